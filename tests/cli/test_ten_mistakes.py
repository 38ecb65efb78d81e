"""The ten commonest mistakes, as typed: one message that names file, problem and mend, and no traceback."""

import json

import cv2
import numpy as np
import pytest

from fmseg.cli import main

NAME = "Dataset501_Discs"


@pytest.fixture
def root(raw_dataset, tmp_path):
    raw_dataset(NAME)
    return tmp_path


def say(capsys, root, *arguments):
    """Return exit code and message of a command that must fail."""
    with pytest.raises(SystemExit) as left:
        main(["--root", str(root), *arguments])
    message = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in message
    assert "fault of fmseg" not in message
    return left.value.code, message


def prepare(root):
    with pytest.raises(SystemExit) as left:
        main(["--root", str(root), "plan_and_preprocess", "-d", "501", "-np", "0", "-q"])
    assert left.value.code == 0


def test_1_no_dataset_json(capsys, root):
    (root / "fmseg_raw" / NAME / "dataset.json").unlink()
    code, message = say(capsys, root, "plan_and_preprocess", "-d", "501", "-np", "0")
    assert code == 3
    assert f"{NAME}/dataset.json: there is no such file. It must name the channels" in message


def test_2_wrong_id(capsys, root):
    code, message = say(capsys, root, "plan_and_preprocess", "-d", "510")
    assert code == 2
    assert "No dataset is called '510'" in message
    assert f"There are: {NAME}" in message


def edit_label(root, change):
    path = root / "fmseg_raw" / NAME / "labelsTr" / "P01_0.png"
    cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))


def lose_image(root):
    (root / "fmseg_raw" / NAME / "imagesTr" / "P01_0_0000.png").unlink()


def cut_image(root):
    path = root / "fmseg_raw" / NAME / "imagesTr" / "P01_0_0000.png"
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        pytest.param(lose_image, ("P01_0.png", "no image"), id="3 label without image"),
        pytest.param(lambda r: edit_label(r, lambda m: m[:-1]), ("P01_0", "47", "48"), id="4 size mismatch"),
        pytest.param(
            lambda r: edit_label(r, lambda m: np.where(m == 2, 7, m).astype(np.uint8)),
            ("P01_0", "7", "declare"),
            id="5 value not declared",
        ),
        pytest.param(cut_image, ("P01_0_0000.png", "ends too early"), id="6 unreadable PNG"),
    ],
)
def test_3_to_6_bad_files_end_before_anything_is_planned(capsys, root, break_it, words):
    break_it(root)
    code, message = say(capsys, root, "plan_and_preprocess", "-d", "501", "-np", "0")
    assert code == 3
    for word in words:
        assert word in message, message
    assert not (root / "fmseg_preprocessed" / NAME / "plans.json").exists()


def test_7_not_planned_yet(capsys, root):
    code, message = say(capsys, root, "train", "501", "0")
    assert code == 2
    assert "plans.json is not there yet. Make it with: fmseg plan_and_preprocess -d 501" in message


def test_8_not_pretrained_yet(capsys, root):
    prepare(root)
    code, message = say(capsys, root, "train", "501", "0", "--init", "d501")
    assert code == 2
    assert "No foundation checkpoint is called 'd501'" in message
    assert "fmseg pretrain" in message


def test_8_without_a_checkpoint_auto_says_that_it_starts_from_scratch(capsys, root):
    prepare(root)
    with pytest.raises(SystemExit) as left:
        main(["--root", str(root), "train", "501", "0", "--set", "iterations=1"])
    assert left.value.code == 0
    assert "there is no foundation checkpoint for ultrasound" in capsys.readouterr().err
    config = json.loads(next(root.glob("fmseg_results/*/*/fold_0/run.json")).read_text())
    assert config["init"]["name"] == "scratch"


def test_9_unknown_recipe(capsys, root):
    prepare(root)
    code, message = say(capsys, root, "train", "501", "0", "-r", "upernett")
    assert code == 2
    assert "No recipe is called 'upernett'. Did you mean 'upernet'?" in message


def test_10_output_folder_not_writable(capsys, root):
    prepare(root)
    with pytest.raises(SystemExit):
        main(["--root", str(root), "train", "501", "0", "--set", "iterations=1", "-q"])
    capsys.readouterr()
    (root / "taken").write_text("a file where a folder must be")
    images = root / "fmseg_raw" / NAME / "imagesTr"
    code, message = say(capsys, root, "predict", "-i", str(images), "-o", str(root / "taken" / "out"))
    assert code == 4
    assert "taken" in message
    assert "Choose another folder" in message


def test_what_is_not_there_yet_is_named_with_what_makes_it(capsys, root, tmp_path):
    code, message = say(capsys, root, "predict", "-i", str(root / "fmseg_raw" / NAME / "imagesTr"), "-o", "out")
    assert code == 2 and f"fmseg train {NAME}" in message
    labels = root / "fmseg_raw" / NAME / "labelsTr"
    code, message = say(capsys, root, "evaluate", "-d", "501", "-i", str(tmp_path / "nowhere"), "-l", str(labels))
    assert code == 2 and "Type the one 'fmseg predict' wrote to after -i" in message


def test_a_sound_dataset_is_said_to_be_one(capsys, root):
    with pytest.raises(SystemExit) as left:
        main(["--root", str(root), "doctor", "-d", "501", "-np", "0", "-q"])
    said = capsys.readouterr().out
    assert int(left.value.code or 0) == 0 and "There are no findings." in said and "severity" not in said
