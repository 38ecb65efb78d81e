import numpy as np
import pytest
import tiny_run
from PIL import Image

from fmseg.errors import EnvironmentProblem
from fmseg.inference.cases import Failure
from fmseg.inference.members import Member
from fmseg.inference.pipeline import MemoryBound
from fmseg.inference.predictor import Predictor
from fmseg.records.dataset import CaseFiles
from fmseg.records.selection import CleanUp


def member(slope=8.0, **changes):
    return Member(tiny_run.Brightness(slope).eval(), tiny_run.config(), **changes)


def write_images(folder, sizes):
    cases, labels = [], {}
    for index, size in enumerate(sizes):
        image, label = tiny_run.disc(np.random.default_rng(index), size)
        path = folder / f"c{index}.png"
        Image.fromarray(image).save(path)
        cases.append(CaseFiles(f"c{index}", (path,), None))
        labels[f"c{index}"] = label
    return cases, labels


SIZES = [(40, 52), (64, 30), (32, 32), (100, 100), (20, 24), (41, 77)]


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_discs_of_all_sizes_come_back_on_their_own_grid(tmp_path):
    cases, labels = write_images(tmp_path, SIZES)
    done = list(Predictor([member()]).predict_cases(cases, lambda prediction: prediction))
    assert [files.name for files, _ in done] == [case.name for case in cases]
    for files, prediction in done:
        assert prediction.labels.shape == (1, *labels[files.name].shape)
        assert dice(prediction.labels[0], labels[files.name]) > 0.93
        assert 0.9 < prediction.confidence <= 1
        assert prediction.disagreement == 0


def test_bad_files_are_named_in_their_place_and_the_others_done(tmp_path):
    cases, _ = write_images(tmp_path, SIZES)
    (tmp_path / "c1.png").write_bytes(b"no image")
    (tmp_path / "c5.png").unlink()
    done = list(Predictor([member()]).predict_cases(cases, lambda prediction: None))
    failed = [item.files.name for item in done if isinstance(item, Failure)]
    assert failed == ["c1", "c5"] and len(done) == len(cases)
    assert "no PNG" in done[1].problem and str(tmp_path) not in done[1].problem


def test_a_full_disk_ends_it(tmp_path):
    cases, _ = write_images(tmp_path, SIZES)

    def full(prediction):
        raise EnvironmentProblem("the disk is full")

    with pytest.raises(EnvironmentProblem):
        list(Predictor([member()]).predict_cases(cases, full))


def test_members_at_odds_are_noticed_and_averaged_by_weight():
    image = np.full((1, 1, 32, 32), 120, np.uint8)  # brighter than the mean of 0.4
    bright, dark = member(), member(slope=-8.0)
    (answer,) = Predictor([bright, dark]).predict_prepared([image])
    assert answer.disagreement == 1.0
    assert answer.probabilities[1] == pytest.approx(0.5, abs=1e-6)
    heavy = Predictor([member(weight=3.0), dark]).predict_prepared([image])[0].probabilities
    single = Predictor([bright]).predict_prepared([image])[0].probabilities
    np.testing.assert_allclose(heavy, 0.75 * single + 0.25 * single[::-1], atol=1e-6)


def test_stacks_of_several_images_come_back_as_stacks():
    rng = np.random.default_rng(0)
    stacks = [rng.integers(0, 255, (z, 1, 32, 20)).astype(np.uint8) for z in (3, 1, 5)]
    predictor = Predictor([member(slope=0.5)])
    together = predictor.predict_prepared(stacks)
    for stack, answer in zip(stacks, together, strict=True):
        assert answer.probabilities.shape == (2, len(stack), 32, 20)
        for z, image in enumerate(stack):
            (alone,) = predictor.predict_prepared([image[None]])
            np.testing.assert_allclose(answer.probabilities[:, z], alone.probabilities[:, 0], atol=1e-6)


def test_clean_up_is_applied_on_the_own_grid(tmp_path):
    image, _ = tiny_run.disc(np.random.default_rng(0), (64, 64))
    image[2:6, 2:6] = 255
    Image.fromarray(image).save(tmp_path / "x.png")
    cases = [CaseFiles("x", (tmp_path / "x.png",), None)]
    rules = [CleanUp(output="disc", rule="largest_component", min_share=0.0)]
    ((_, plain),) = Predictor([member()]).predict_cases(cases, lambda prediction: prediction.labels)
    ((_, clean),) = Predictor([member()], clean_up=rules).predict_cases(cases, lambda prediction: prediction.labels)
    assert plain[0, 3, 3] == 1 and clean[0, 3, 3] == 0
    assert clean.sum() > 100


def test_few_large_cases_are_in_memory_at_once():
    bound = MemoryBound(most=12, budget_bytes=1000)
    assert 1 <= bound.limit() <= 12
    bound.note(10)
    assert bound.limit() == 12
    bound.note(400)
    assert bound.limit() == 2
    bound.note(5000)
    assert bound.limit() == 1
