import numpy as np
import pytest
import tiny_run
import torch
from PIL import Image
from torch import nn

from fmseg.errors import BadData
from fmseg.inference.cases import Failure
from fmseg.inference.classes import ClassPredictor, classify_stacks, features_of
from fmseg.inference.feature_cache import cached_features
from fmseg.inference.members import Member, load_members
from fmseg.inference.out_of_fold_classes import CaseProbabilities, load_probabilities, save_probabilities
from fmseg.networks.build import build_network
from fmseg.records.dataset import CaseFiles
from fmseg.records.labels import ClassScheme

SCHEME = tiny_run.CLASSES
SEVERAL = SCHEME.evolve(is_exclusive=False)


class Bright(nn.Module):
    """Says 'bright' the surer the brighter the image is, and looks at its left half only."""

    def __init__(self, slope=4.0):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, image):
        value = self.slope * image[..., : image.shape[-1] // 2].mean((1, 2, 3))
        return torch.stack([-value, value], dim=1)


def stack(*levels, size=(32, 32)):
    return np.stack([np.full((1, *size), level, np.uint8) for level in levels])


def config(scheme=SCHEME):
    return tiny_run.class_config(scheme)


def test_a_case_of_several_images_is_the_mean_of_them():
    network = Bright().eval()
    single = classify_stacks(network, config(), [stack(20), stack(90), stack(200)], mirror=False)
    (together,) = classify_stacks(network, config(), [stack(20, 90, 200)], mirror=False)
    assert np.allclose(together, single.mean(axis=0))
    assert single.argmax(1).tolist() == [0, 0, 1]


@pytest.mark.parametrize("scheme", [SCHEME, SEVERAL], ids=["exclusive", "several"])
def test_probabilities_are_probabilities(scheme):
    found = classify_stacks(Bright().eval(), config(scheme), [stack(120)], mirror=False)
    assert ((found > 0) & (found < 1)).all()
    if scheme.is_exclusive:
        assert found.sum() == pytest.approx(1)


def test_mirrored_images_get_the_same_answer():
    image = np.random.default_rng(0).integers(0, 255, (1, 1, 32, 32), dtype=np.uint8)
    both = [image, image[..., ::-1].copy()]
    plain = classify_stacks(Bright().eval(), config(), both, mirror=False)
    mirrored = classify_stacks(Bright().eval(), config(), both, mirror=True)
    assert not np.allclose(plain[0], plain[1])
    assert np.allclose(mirrored[0], mirrored[1])
    assert np.allclose(mirrored[0], plain.mean(axis=0))


def test_batches_of_any_size_and_images_of_any_size_say_the_same():
    torch.manual_seed(0)
    network = build_network(config().recipe, config().architecture, SCHEME).eval()
    images = [stack(40, size=(20, 30)), stack(90), stack(3, 200, size=(32, 10)), stack(120), stack(7)]
    together = classify_stacks(network, config(), images, mirror=True)
    single = np.concatenate([classify_stacks(network, config(), [each], mirror=True) for each in images])
    assert np.allclose(together, single, atol=1e-5)
    assert classify_stacks(network, config(), [], mirror=True).shape == (0, 2)


def test_an_ensemble_averages_tempers_and_says_who_disagrees():
    members = [Member(Bright(4.0).eval(), config(), 2.0), Member(Bright(-1.0).eval(), config(), 1.0)]
    (plain,) = ClassPredictor(members).predict_prepared([stack(180)])
    (cold,) = ClassPredictor(members, temperature=0.5).predict_prepared([stack(180)])
    each = [classify_stacks(member.model, config(), [stack(180)], mirror=True)[0] for member in members]
    assert np.allclose(plain.probabilities, (2 * each[0] + each[1]) / 3)
    assert plain.classes == cold.classes == ("bright",)
    assert cold.confidence > plain.confidence == pytest.approx(plain.probabilities.max())
    assert plain.disagreement == pytest.approx(1 / 3)


def test_none_of_several_classes_is_an_answer():
    (verdict,) = ClassPredictor([Member(Nothing().eval(), config(SEVERAL))]).predict_prepared([stack(100)])
    assert verdict.classes == ()
    assert verdict.confidence == pytest.approx(float(torch.tensor(3.0).sigmoid()))


class Nothing(nn.Module):
    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(-3.0))

    def forward(self, image):
        return self.level.expand(len(image), 2)


def test_raw_files_are_judged_in_order_and_bad_ones_named(tmp_path):
    cases = []
    for name, level in (("a", 30), ("b", 220), ("c", 30)):
        Image.fromarray(np.full((50, 40), level, np.uint8)).save(tmp_path / f"{name}.png")
        cases.append(CaseFiles(name, (tmp_path / f"{name}.png",), None))
    cases[2].images[0].write_bytes(b"no image")
    found = list(ClassPredictor([Member(Bright().eval(), config())]).predict_cases(cases, lambda *parts: parts[2]))
    assert [item[1].classes for item in found[:2]] == [("dark",), ("bright",)]
    # whoever tells it says the file first
    assert isinstance(found[2], Failure) and found[2].files.name == "c" and "c.png" not in found[2].problem


def test_features_are_computed_once_and_are_those_of_the_network(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = build_network(config().recipe, config().architecture, SCHEME).eval()
    store = tiny_run.Images([stack(level)[0] for level in range(5)])
    first = cached_features(network, config(), store, tmp_path)
    assert np.allclose(first, features_of(network, config(), store.images))
    monkeypatch.setattr("fmseg.inference.feature_cache.features_of", None)
    assert np.array_equal(first, cached_features(network, config(), store, tmp_path))
    other = config().evolve(init={"name": "other", "sha256": "1", "because": ""})
    with pytest.raises(TypeError):
        cached_features(network, other, store, tmp_path)


def test_a_run_comes_back_from_its_folder(tmp_path):
    model = tiny_run.write_run(tmp_path / "fold_0", config())
    (member,) = load_members([(tmp_path / "fold_0", 1.0)], torch.device("cpu"))
    image = torch.randn(2, 1, 32, 32)
    assert torch.equal(member.model(image), model(image))


def test_probabilities_come_back_from_disk_and_damaged_ones_are_named(tmp_path):
    path = tmp_path / "probabilities.npz"
    found = CaseProbabilities(("uml\u00e4ut", "b"), SCHEME.names, np.array([[0.25, 0.75], [1, 0]]))
    save_probabilities(path, found)
    before = path.read_bytes()
    again = load_probabilities(path, SCHEME)
    assert again.cases == found.cases and np.array_equal(again.probabilities, found.probabilities)
    save_probabilities(path, found)
    assert path.read_bytes() == before, "equal bytes"
    with pytest.raises(BadData, match="dark, bright, not a, b"):
        load_probabilities(path, ClassScheme(names=("a", "b"), is_exclusive=True))
    path.write_bytes(before[:-30])
    with pytest.raises(BadData, match=r"probabilities\.npz"):
        load_probabilities(path, SCHEME)
