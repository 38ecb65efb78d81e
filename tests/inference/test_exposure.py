import shutil

import numpy as np
import pytest
import tiny_run
from PIL import Image

from fmseg.imaging.case import content_hash
from fmseg.imaging.measure import read_facts
from fmseg.inference.exposure import exposure_of, pretraining_exposure, seen_cases
from fmseg.records.foundation import CARD, SEEN
from fmseg.records.plans import Fold
from fmseg.records.seen import Seen
from fmseg.stages.fingerprint import fingerprint
from fmseg.workspace import Workspace

NAME = "Dataset501_Discs"
CASES = ["a", "b", "c", "d"]


@pytest.fixture
def workspace(tmp_path):
    place = Workspace(tmp_path / "raw", tmp_path / "prepared", tmp_path / "results")
    tiny_run.write_dataset(place.raw_dataset(NAME), CASES)
    fingerprint(place, NAME, num_processes=0)
    return place


@pytest.fixture
def hashes(workspace):
    return {fact.case: fact.content_hash for fact in read_facts(workspace.prepared(NAME) / "cases.jsonl")}


def start_from(workspace, name, seen):
    return tiny_run.write_foundation(workspace.foundation("ultrasound", name), name, seen)


def run_on(init, train, val=()):
    return tiny_run.config(cases=Fold(train=tuple(train), val=tuple(val))).evolve(init=init)


def test_training_comes_before_pretraining_before_nothing(workspace, hashes):
    init = start_from(workspace, "one", [hashes["a"], hashes["c"]])
    exposure = exposure_of(workspace, [run_on(init, "a", "b")])
    sights = [exposure.sight(hashes[case]) for case in CASES]
    assert sights == ["training", "training", "pretraining", "no"]
    assert Seen.of(sights) == Seen(num_cases=4, training=2, pretraining=1, unknown=0)


def test_what_any_member_has_met_counts_and_scratch_has_met_nothing(workspace, hashes):
    inits = [start_from(workspace, each, [hashes[each]]) for each in "ab"]
    scratch = tiny_run.config().init
    exposure = pretraining_exposure(workspace, [*inits, scratch])
    assert seen_cases(workspace, NAME, CASES, exposure) == Seen(num_cases=4, training=0, pretraining=2, unknown=0)
    nothing = pretraining_exposure(workspace, [scratch])
    assert seen_cases(workspace, NAME, CASES, nothing) == Seen(num_cases=4, training=0, pretraining=0, unknown=0)


@pytest.mark.parametrize("loss", ["checkpoint", "list", "card"])
def test_a_checkpoint_that_is_gone_is_told_as_unknown(workspace, hashes, loss):
    kept, lost = start_from(workspace, "kept", [hashes["a"]]), start_from(workspace, "lost", [hashes["b"]])
    folder = workspace.foundation("ultrasound", "lost")
    if loss == "checkpoint":
        shutil.rmtree(folder)
    elif loss == "list":
        (folder / SEEN).unlink()
    else:
        (folder / CARD).write_text("{")
    exposure = pretraining_exposure(workspace, [kept, lost])
    assert [exposure.sight(hashes[case]) for case in "bcd"] == ["unknown"] * 3
    assert (exposure.sight(hashes["a"]) == "pretraining") == (loss != "card")
    (reason,) = exposure.unknown
    assert "lost" in reason


def test_labelled_cases_whose_dataset_is_gone_are_told_as_unknown(workspace, hashes):
    run = run_on(tiny_run.config().init, "ab")
    assert exposure_of(workspace, [run]).sight(hashes["d"]) == "no"
    shutil.rmtree(workspace.prepared(NAME))
    exposure = exposure_of(workspace, [run])
    assert exposure.sight(hashes["d"]) == "unknown" and "2 labelled cases" in exposure.unknown[0]


def test_a_journal_of_another_version_does_not_stop_a_prediction(workspace, hashes):
    (workspace.prepared(NAME) / "cases.jsonl").write_text("{}\n")
    assert exposure_of(workspace, [run_on(tiny_run.config().init, "ab")]).sight(hashes["a"]) == "unknown"


def test_the_hash_of_the_measured_case_is_that_of_its_pixels(workspace, hashes):
    pixels = np.asarray(Image.open(workspace.raw_dataset(NAME) / "imagesTr" / "a_0000.png"))
    assert hashes["a"] == content_hash(pixels[None, None])
    assert hashes["a"] != content_hash(255 - pixels[None, None])


def test_the_sentence_names_what_there_is():
    assert Seen.of(["no", "no"]).sentence == "Seen before, of 2 cases: none."
    sentence = Seen.of(["training", "pretraining", "unknown", "no"]).sentence
    assert "1 in training, with their labels; 1 in pretraining" in sentence and "of 1 it is not known" in sentence
