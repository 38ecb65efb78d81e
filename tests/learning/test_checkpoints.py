import json
import logging

import pytest
import torch
from torch import nn

from fmseg.errors import BadData, FmsegError
from fmseg.learning.checkpoints import load_checkpoint, load_latest, save_checkpoint
from fmseg.learning.state import pack, unpack

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3, dtype=torch.int64)}
OFF = torch.amp.GradScaler("cpu", enabled=False)


def stems(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_comes_back(tmp_path):
    values = {"text": "ä", "numbers": [0.1, None]}
    save_checkpoint(tmp_path, 5, TENSORS, values)
    step, tensors, back = load_latest(tmp_path)
    assert (step, back) == (5, values)
    assert tensors.keys() == TENSORS.keys() and all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)


def test_shared_views_and_empty_tensors_come_back(tmp_path):
    base = torch.randn(4, 4)
    tensors = {"base": base, "tied": base, "turned": base.T, "row": base[1], "empty": torch.zeros(0, 3)}
    tensors |= {"empty2": torch.zeros(0, 3), "half": base.bfloat16()}
    save_checkpoint(tmp_path, 1, tensors, {})
    _, back, _ = load_latest(tmp_path)
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
    assert "tied" in json.loads((tmp_path / "step_00000001.json").read_text())["aliases"]


def test_two_are_kept_and_named_ones_stay(tmp_path):
    save_checkpoint(tmp_path, 1, TENSORS, {}, name="best")
    (tmp_path / ".step_00000002.safetensors.1.tmp").touch()
    (tmp_path / "step_00000002.safetensors").touch()
    for step in (3, 20, 100):
        save_checkpoint(tmp_path, step, TENSORS, {})
    names = ["best", "step_00000020", "step_00000100"]
    assert stems(tmp_path) == [f"{name}.{end}" for name in names for end in ("json", "safetensors")]
    assert load_checkpoint(tmp_path, "best")[0] == 1


def test_no_checkpoint_is_no_error(tmp_path):
    assert load_latest(tmp_path / "none") is None
    (tmp_path / "step_00000001.safetensors").touch()  # killed before the first was complete
    assert load_latest(tmp_path) is None


def test_values_that_are_not_finite_are_not_saved(tmp_path):
    with pytest.raises(FmsegError, match=r"Step 2.*1 tensors, as in b"):
        save_checkpoint(tmp_path, 2, {"a": torch.ones(2), "b": torch.tensor([1.0, torch.inf])}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["json", "safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "empty"])
def test_every_damage_is_noticed(tmp_path, ending, damage, caplog):
    save_checkpoint(tmp_path, 1, TENSORS, {"x": 12345})
    save_checkpoint(tmp_path, 2, TENSORS, {"x": 12345})
    path = tmp_path / f"step_00000002.{ending}"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        flipped = data.replace(b"12345", b"12344") if ending == "json" else data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes({"cut": data[:-5], "flip": flipped, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        assert load_latest(tmp_path)[0] == 1
    # without its JSON it never was a checkpoint
    assert ("step_00000002" in caplog.text) == ((ending, damage) != ("json", "missing"))


def test_all_damaged_is_an_error_that_names_them(tmp_path):
    save_checkpoint(tmp_path, 1, TENSORS, {})
    (tmp_path / "step_00000001.safetensors").write_bytes(b"x")
    with pytest.raises(BadData, match=r"step_00000001\.json.damaged"):
        load_latest(tmp_path)


class Tied(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.one, self.two = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), nn.Linear(4, 4)
        self.three = nn.Linear(4, 4)
        self.three.weight = self.two.weight
        self.register_buffer("count", torch.tensor(seed))

    def forward(self, x):
        return self.three(self.two(self.one(x).mean((2, 3)))).square().sum()


@pytest.mark.parametrize("kind", ["adamw", "sgd", "momentum"])
def test_a_packed_state_goes_on_bit_for_bit(tmp_path, kind):
    def build(seed):
        task = Tied(seed)
        makers = {
            "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
            "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
            "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
        }
        parameters = [p for name, p in task.named_parameters() if name != "three.bias"]
        return task, makers[kind](parameters)

    def step(task, optimizer):
        optimizer.zero_grad()
        task(torch.ones(2, 3, 5, 5)).backward()
        optimizer.step()

    first = build(1)
    step(*first)
    save_checkpoint(tmp_path, 1, *pack(*first, OFF))
    second = build(2)
    _, tensors, values = load_latest(tmp_path)
    unpack(tensors, values, *second, OFF)
    for pair in (first, second):
        step(*pair)
    for one, other in zip(first[0].state_dict().values(), second[0].state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert second[0].three.weight is second[0].two.weight


def test_the_state_of_another_model_is_refused():
    one = nn.Linear(2, 2)
    tensors, values = pack(one, torch.optim.SGD(one.parameters()), OFF)
    other = nn.Linear(3, 2)
    with pytest.raises(BadData, match="another model"):
        unpack(tensors, values, other, torch.optim.SGD(other.parameters()), OFF)
