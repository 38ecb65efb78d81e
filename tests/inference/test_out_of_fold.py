from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from unittest.mock import patch

import numpy as np
import pytest
import tiny_run

from fmseg.errors import BadData
from fmseg.imaging.case import Geometry
from fmseg.imaging.prepare import prepare, prepare_label
from fmseg.imaging.readers import read_case, read_label, read_reference, write_label
from fmseg.inference import out_of_fold
from fmseg.inference.out_of_fold import distance_unit, predict_fold, score_cases, validate
from fmseg.inference.probabilities import load_probabilities, save_probabilities
from fmseg.records.dataset import CaseFiles, Dataset
from fmseg.records.plans import Fold
from fmseg.records.scores import Scores

NAMES = [f"p{i // 2}_{i}" for i in range(6)]


@dataclass
class Prepared:
    """Stands in for the store."""

    cases: dict[str, range]
    images: list[np.ndarray]
    labels: list[np.ndarray]

    def image(self, index):
        return self.images[index]

    def label(self, index):
        return self.labels[index]


@pytest.fixture
def dataset(tmp_path):
    tiny_run.write_dataset(tmp_path / "Dataset501_Discs", NAMES)
    return Dataset.load(tmp_path / "Dataset501_Discs")


@pytest.fixture
def store(dataset):
    images, labels = [], []
    for case in dataset.training_cases():
        read = read_case(case)
        images += list(prepare(read.voxels, read.geometry, tiny_run.PREPROCESSING))
        labels += list(prepare_label(*read_label(case.label), tiny_run.PREPROCESSING))
    return Prepared({name: range(i, i + 1) for i, name in enumerate(NAMES)}, images, labels)


CONFIG = tiny_run.config(cases=Fold(train=tuple(NAMES[:2]), val=tuple(NAMES[2:])))
CONFIG = CONFIG.evolve(recipe=CONFIG.recipe.evolve(batch_size=2))  # so there are two batches
PATIENTS = {name: name.split("_")[0] for name in NAMES}


class Team:
    """Threads that share a fold, as ranks do."""

    def __init__(self, world):
        self.world, self.barrier, self.board = world, Barrier(world), [""] * world


@dataclass
class Member:
    """One of them."""

    team: Team
    rank: int

    @property
    def world(self):
        return self.team.world

    def gathered(self, text):
        self.team.board[self.rank] = text
        self.team.barrier.wait()
        found = list(self.team.board)
        self.team.barrier.wait()
        return found

    def from_main(self, text):
        return self.gathered(text)[0]


def predicted(dataset, store, folder, *, model=None, world=1):
    """Predict the fold; return the scores, which are the same on all ranks."""
    team = Team(world)

    def work(rank):
        options = {"patients": PATIENTS, "ranks": Member(team, rank)}
        return predict_fold(model or tiny_run.Brightness(), CONFIG, store, dataset.training_cases(), folder, **options)

    with ThreadPoolExecutor(world) as pool:
        first, *others = pool.map(work, range(world))
    assert all(each == first for each in others)
    return first


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_fold_is_predicted_stored_and_scored(tmp_path, dataset, store):
    folder = tmp_path / "validation"
    model = tiny_run.Brightness().train()
    scores = predicted(dataset, store, folder, model=model)
    assert [case.case for case in scores.cases] == NAMES[2:]
    assert {case.patient for case in scores.cases} == {"p1", "p2"}
    assert scores.foreground_dice.mean > 0.93
    assert scores.distance_unit == "px" and scores.mean["disc"]["hd95"].mean < 3
    assert Scores.load(folder / "scores.json") == scores
    assert (folder / "summary.json").exists()
    probabilities = load_probabilities(folder / f"{NAMES[2]}.prob")
    assert probabilities.shape == (2, 1, *store.image(2).shape[1:])
    assert model.training


@pytest.mark.parametrize("world", [1, 2, 5])
def test_any_number_of_ranks_gives_the_same_bytes(tmp_path, dataset, store, world):
    for folder, ranks in (("one", 1), ("more", world)):
        predicted(dataset, store, tmp_path / folder, world=ranks)
    assert contents(tmp_path / "one") == contents(tmp_path / "more")


@pytest.mark.parametrize("world", [1, 2])
def test_a_stopped_fold_goes_on_with_what_it_has_predicted(tmp_path, dataset, store, world):
    folder = tmp_path / "validation"
    predicted(dataset, store, folder)
    before = contents(folder)
    for name in (f"{NAMES[2]}.prob", "scores.json", "summary.json"):
        (folder / name).unlink()
    with patch.object(out_of_fold, "save_probabilities", wraps=save_probabilities) as saved:
        predicted(dataset, store, folder, world=world)
    # with the others of its batch, so that not a bit is another one
    assert {call.args[0].stem for call in saved.call_args_list} == {NAMES[2], NAMES[3]}
    assert contents(folder) == before


def test_validation_during_training_is_near_the_real_score(tmp_path, dataset, store):
    model = tiny_run.Brightness().train()
    quick = validate(model, CONFIG, store, NAMES[2:])
    real = predicted(dataset, store, tmp_path, model=model)
    assert quick == pytest.approx(real.foreground_dice.mean, abs=0.05)
    assert validate(tiny_run.Brightness(-8.0), CONFIG, store, NAMES[2:]) < 0.1
    assert model.training


def test_a_missing_label_map_is_named(tmp_path, dataset, store):
    (dataset.folder / "labelsTr" / f"{NAMES[3]}.png").unlink()
    with pytest.raises(BadData, match=NAMES[3]):
        predicted(dataset, store, tmp_path)


def test_an_undeclared_value_is_named_with_its_file(dataset):
    cases = dataset.training_cases()
    with pytest.raises(BadData, match=r"p0_0\.png.*value 7"):
        score_cases(cases, lambda case, shape: np.full(shape, 7, np.uint8), tiny_run.SCHEME, patients={})


def test_millimetres_only_where_every_pixel_size_is_known(tmp_path, dataset):
    flat = dataset.training_cases()[0]
    volume = CaseFiles("x", flat.images, tmp_path / "x.nii.gz")
    write_label(np.ones((2, 4, 4), np.uint8), Geometry(spacing_mm=(2.0, 1.0, 1.0)), volume.label)
    assert distance_unit([volume]) == "mm"
    assert distance_unit([volume, flat]) == "px"


def test_pixel_sizes_of_the_table_scale_distances_and_nothing_else(dataset):
    def scored(cases):
        def shifted(case, shape):
            return np.roll(read_label(case.label)[0], 2, axis=2)

        found = score_cases(cases, shifted, tiny_run.SCHEME, patients={})
        return found.distance_unit, [case.classes["disc"] for case in found.cases]

    unit, plain = scored(dataset.training_cases())
    assert unit == "px"
    (dataset.folder / "spacings.csv").write_text("case,spacing_mm\n" + "".join(f"{name},0.25\n" for name in NAMES))
    unit, known = scored(dataset.training_cases())
    assert unit == "mm"
    for one, other in zip(plain, known, strict=True):
        assert (other.hd95, other.assd) == pytest.approx((one.hd95 / 4, one.assd / 4))
        assert other.dice == one.dice


def test_the_image_knows_the_pixel_size_where_its_label_map_cannot(tmp_path):
    image, label = tmp_path / "a_0000.nii.gz", tmp_path / "a.png"
    for path in (image, label):
        write_label(np.ones((1, 4, 4), np.uint8), Geometry(spacing_mm=(1.0, 0.5, 0.25)), path)
    assert read_reference(CaseFiles("a", (image,), label))[1] == pytest.approx((1.0, 0.5, 0.25))
