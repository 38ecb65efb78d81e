import json
import shutil

import numpy as np
import pytest
import tiny_run
from PIL import Image

from fmseg.errors import BadData, UsageError
from fmseg.records.scores import Scores
from fmseg.stages.evaluate import evaluate
from fmseg.workspace import Workspace

NAME = "Dataset501_Discs"


@pytest.fixture
def workspace(tmp_path):
    place = Workspace(tmp_path / "raw", tmp_path / "prepared", tmp_path / "results")
    tiny_run.write_dataset(place.raw_dataset(NAME), ["p1_1", "p1_2", "p2_1", "p2_2"])
    return place


@pytest.fixture
def labels(workspace):
    return workspace.raw_dataset(NAME) / "labelsTr"


@pytest.fixture
def predictions(labels, tmp_path):
    return shutil.copytree(labels, tmp_path / "predictions")


def test_perfect_predictions_score_one_and_are_written_down(workspace, predictions, labels):
    (predictions / "report.csv").write_text("case\n")
    scores = evaluate(workspace, NAME, predictions, labels)
    assert scores.foreground_dice.mean == scores.pooled_dice_with_background == 1.0
    assert scores.mean["disc"]["hd95"].mean == 0.0
    assert Scores.load(predictions / "scores.json") == scores
    summary = json.loads((predictions / "summary.json").read_text())
    assert summary["foreground_mean"]["Dice"] == 1.0 and len(summary["metric_per_case"]) == 4
    # nobody has noted what was seen
    assert scores.seen is None and "seen" not in summary


def test_patients_are_those_that_the_dataset_declares(workspace, predictions, labels):
    table = "case,patient\np1_1,A\np1_2,A\np2_1,B\np2_2,B\n"
    (workspace.raw_dataset(NAME) / "patients.csv").write_text(table)
    scores = evaluate(workspace, NAME, predictions, labels)
    assert [case.patient for case in scores.cases] == ["A", "A", "B", "B"]


def test_missing_predictions_are_listed(workspace, predictions, labels):
    (predictions / "p1_2.png").unlink()
    with pytest.raises(BadData, match=r"1 of 4 predictions are missing: p1_2"):
        evaluate(workspace, NAME, predictions, labels)
    assert not (predictions / "scores.json").exists()


def test_other_endings_match_and_another_size_is_named(workspace, predictions, labels):
    made = np.asarray(Image.open(predictions / "p2_1.png"))
    (predictions / "p2_1.png").unlink()
    Image.fromarray(made).save(predictions / "p2_1.tif")
    assert evaluate(workspace, NAME, predictions, labels).foreground_dice.mean == 1.0
    Image.fromarray(made[:-1]).save(predictions / "p2_1.tif")
    with pytest.raises(BadData, match=r"p2_1\.tif"):
        evaluate(workspace, NAME, predictions, labels)


def test_a_folder_without_label_maps_is_named(workspace, labels, tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        evaluate(workspace, NAME, tmp_path / "nowhere", labels)
    with pytest.raises(UsageError, match="no label map"):
        evaluate(workspace, NAME, workspace.raw, labels)
