import pytest
import tiny_run
import torch
from safetensors.torch import load_file, save_file

from fmseg.errors import BadData, NotReady
from fmseg.inference.members import load_member, sliding_of
from fmseg.inference.trained import need_one_plan

CPU = torch.device("cpu")


def test_a_loaded_member_says_what_the_trained_one_said(tmp_path):
    model = tiny_run.write_run(tmp_path, tiny_run.config())
    member = load_member(tmp_path, CPU)
    image = torch.randn(2, 1, 32, 32)
    assert torch.equal(member.model(image), model(image))
    assert not member.model.training
    assert member.config == tiny_run.config()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, key: t.pop(key), "is missing"),
        (lambda t, key: t.update({key: t[key][..., :1].contiguous()}), "instead of"),
        (lambda t, key: t.update(more=t[key]), "'more' is one too many"),
        (lambda t, key: t.update({key: t[key] * float("nan")}), "no numbers"),
    ],
)
def test_foreign_weights_are_refused_and_the_tensor_named(tmp_path, change, message):
    tiny_run.write_run(tmp_path, tiny_run.config())
    path = tmp_path / "model.safetensors"
    tensors = {key: value.clone() for key, value in load_file(path).items()}
    change(tensors, next(key for key, value in tensors.items() if value.ndim > 1))
    save_file({key: value.clone() for key, value in tensors.items()}, path)
    with pytest.raises(BadData, match=message):
        load_member(tmp_path, CPU)


def test_half_a_file_and_an_unfinished_run_are_named(tmp_path):
    tiny_run.write_run(tmp_path, tiny_run.config())
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadData, match=r"model\.safetensors"):
        load_member(tmp_path, CPU)
    path.unlink()
    with pytest.raises(NotReady, match=r"model\.safetensors"):
        load_member(tmp_path, CPU)


def test_black_is_what_zero_becomes():
    assert sliding_of(tiny_run.config(), mirror=True).black == pytest.approx((-2.0,))
    assert sliding_of(tiny_run.config(), mirror=True).mirror_axes == ("horizontal",)
    assert sliding_of(tiny_run.config(), mirror=False).mirror_axes == ()


def test_members_of_other_plans_are_not_averaged():
    one, other = tiny_run.config(), tiny_run.config(scheme=tiny_run.TWO)
    need_one_plan([one, one])
    with pytest.raises(BadData, match="labels"):
        need_one_plan([one, other])
