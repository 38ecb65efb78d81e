import json
import shutil

import numpy as np
import pytest
import tiny_run
from PIL import Image

from fmseg.cli.frame import type_command
from fmseg.errors import BadData, UsageError
from fmseg.records.scores import Scores
from fmseg.stages.evaluate import evaluate
from fmseg.workspace import Workspace

NAME = "Dataset501_Discs"


@pytest.fixture
def workspace(tmp_path):
    place = Workspace.find(tmp_path)
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
    assert set(summary["mean"]) == {"1"} and summary["metric_per_case"][0]["prediction_file"] == "p1_1.png"
    # nobody has noted what was seen
    assert scores.seen is None and "seen" not in summary


def test_patients_are_those_that_the_dataset_declares(workspace, predictions, labels):
    table = "case,patient\np1_1,A\np1_2,A\np2_1,B\np2_2,B\n"
    (workspace.raw_dataset(NAME) / "patients.csv").write_text(table)
    scores = evaluate(workspace, NAME, predictions, labels)
    assert [case.patient for case in scores.cases] == ["A", "A", "B", "B"]


def test_the_command_shows_the_interval_over_patients(workspace, predictions, labels, tmp_path, capsys):
    (workspace.raw_dataset(NAME) / "patients.csv").write_text("case,patient\np1_1,A\np1_2,A\np2_1,B\np2_2,B\n")
    shutil.copy(predictions / "p1_1.png", predictions / "p2_1.png")
    found = ("-d", "501", "-i", str(predictions), "-l", str(labels))
    assert type_command("--root", str(tmp_path), "evaluate", *found) == 0
    said = " ".join(capsys.readouterr().out.split())
    dice = Scores.load(predictions / "scores.json").foreground_dice
    assert "intervals over 2 patients" in said
    assert f"Dice {dice.mean:.4g} {dice.low:.4g} {dice.high:.4g}" in said


def test_missing_predictions_are_listed(workspace, predictions, labels):
    (predictions / "p1_2.png").unlink()
    with pytest.raises(BadData, match=r"1 of 4 predictions are missing: p1_2"):
        evaluate(workspace, NAME, predictions, labels)
    assert not (predictions / "scores.json").exists()


def rename(folder, names):
    for old, new in names.items():
        (folder / f"{old}.png").rename(folder / f"{new}.png")


def test_predictions_of_the_original_files_are_those_of_the_cases_that_convert_made(
    workspace, predictions, labels, caplog
):
    caplog.set_level("INFO")
    table = "case,patient\np1_1,A\np1_2,A\np2_1,B\np2_2,B\n"
    (workspace.raw_dataset(NAME) / "patients.csv").write_text(table)
    shutil.copy(predictions / "p1_1.png", predictions / "p2_2.png")
    expected = evaluate(workspace, NAME, predictions, labels)
    rename(predictions, {"p1_1": "p1 (1)", "p2_1": "p2 #1"})
    (predictions / "report.csv").write_text("case,seen\np1 (1),training\np1_2,no\np2 #1,no\np2_2,no\n")
    scores = evaluate(workspace, NAME, predictions, labels)
    assert scores.evolve(seen=None) == expected and scores.seen.training == 1
    assert "2 predictions have the names of their original files, such as 'p1 (1)' of p1_1" in caplog.text
    # labels may have the original names, too: patients are found all the same
    originals = shutil.copytree(labels, labels.parent.parent / "originals")
    rename(originals, {"p1_1": "p1 (1)"})
    assert evaluate(workspace, NAME, predictions, originals) == scores


def test_two_predictions_that_may_be_of_one_case_are_named(workspace, predictions, labels):
    shutil.copy(predictions / "p1_1.png", predictions / "p1 1.png")
    with pytest.raises(BadData, match="'p1 1' and 'p1_1' may both be 'p1_1'"):
        evaluate(workspace, NAME, predictions, labels)


def test_a_prediction_that_may_be_the_missing_one_is_told(workspace, predictions, labels):
    rename(predictions, {"p1_2": "clinic_P1_2"})
    with pytest.raises(BadData, match="'clinic_P1_2' is there and has no label: if it is 'p1_2'"):
        evaluate(workspace, NAME, predictions, labels)


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


def test_labels_that_are_not_there_are_to_be_typed(workspace, predictions):
    with pytest.raises(UsageError, match=r"no test images with labels \(labelsTs\).* -l"):
        evaluate(workspace, NAME, predictions)


def test_masks_that_are_no_label_maps_are_named_with_what_makes_such(workspace, predictions, labels, tmp_path):
    masks = shutil.copytree(labels, tmp_path / "masks")
    for path in masks.iterdir():
        Image.fromarray(np.asarray(Image.open(path)) * 255).save(path)
    with pytest.raises(BadData, match=r"the value 255; declared are \[0, 1\]. 'fmseg convert masks' makes"):
        evaluate(workspace, NAME, predictions, masks)


def classified(workspace, tmp_path, labels, rows, scheme=None):
    """Write a cohort of classes and predictions of it; return the place of both."""
    raw = workspace.raw_dataset("Dataset504_Elsewhere")
    tiny_run.write_dataset(raw, list(labels))
    declared = json.loads((raw / "dataset.json").read_text()) | {"task": "classification", "labels": {}}
    (raw / "dataset.json").write_text(json.dumps(declared))
    (raw / "labelsTr.csv").write_text("case,label\n" + "".join(f"{case},{label}\n" for case, label in labels.items()))
    folder = tmp_path / "classes"
    folder.mkdir()
    names = ("brain", "cervix", "femur")
    head = ["case", "predicted", "confidence", "disagreement", *(f"probability_{name}" for name in names)]
    lines = [[case, "", "0.9", "0", *map(str, row)] for case, row in rows.items()]
    (folder / "predictions.csv").write_text("".join(",".join(line) + "\n" for line in [head, *lines]))
    if scheme is not None:
        (folder / "predict.json").write_text(json.dumps({"labels": {"names": names, "is_exclusive": scheme}}))
    return raw.name, folder, raw / "labelsTr.csv"


def test_a_cohort_may_lack_classes_and_these_enter_no_mean(workspace, tmp_path, caplog):
    labels = {"a": "brain", "b": "femur", "c": "femur"}
    rows = {"a": (0.9, 0.05, 0.05), "b": (0.1, 0.1, 0.8), "c": (0.1, 0.2, 0.7)}
    caplog.set_level("INFO")
    scores = evaluate(workspace, *classified(workspace, tmp_path, labels, rows))
    assert scores.macro_f1.mean == scores.accuracy.mean == 1.0
    assert scores.classes == ("brain", "cervix", "femur") and scores.per_class["cervix"].support == 0
    assert "cervix" in caplog.text and "no mean" in caplog.text


def test_classes_of_original_files_are_those_of_the_cases_that_convert_made(workspace, tmp_path):
    rows = {"a b": (0.9, 0.05, 0.05), "c": (0.1, 0.1, 0.8)}
    scores = evaluate(workspace, *classified(workspace, tmp_path, {"a_b": "brain", "c": "femur"}, rows, True))
    assert [(case.case, case.predicted) for case in scores.cases] == [("a_b", "brain"), ("c", "femur")]


@pytest.mark.parametrize("scheme", [False, None])
def test_what_asks_of_each_class_is_decided_by_thresholds_on_cases_of_one(workspace, tmp_path, scheme):
    labels = {"a": "brain", "b": "femur"}
    rows = {"a": (0.9, 0.8, 0.1), "b": (0.1, 0.1, 0.4)}
    # predictions that are older than predict.json's labels tell by their sums
    scores = evaluate(workspace, *classified(workspace, tmp_path, labels, rows, scheme))
    assert [case.predicted for case in scores.cases] == ["brain;cervix", ""]


def test_labels_that_no_prediction_can_be_are_named_and_empty_ones_left_out(workspace, tmp_path, caplog):
    rows = {"a": (0.9, 0.05, 0.05), "b": (0.1, 0.1, 0.8)}
    dataset, predictions, labels = classified(workspace, tmp_path, {"a": "brain", "b": ""}, rows, True)
    assert [case.case for case in evaluate(workspace, dataset, predictions, labels).cases] == ["a"]
    assert "1 cases without a label" in caplog.text
    labels.write_text("case,label\na,brain\nb,spine\n")
    with pytest.raises(BadData, match="spine"):
        evaluate(workspace, dataset, predictions, labels)
