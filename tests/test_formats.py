"""The job on other kinds of data: volumes, colour, 16 bit, regions with an ignore label."""

import json

import cv2
import numpy as np
import pytest

from fmseg.cli import type_command
from fmseg.imaging.readers import read_label

NAME = "Dataset501_Discs"
SHORT = ("--set", "iterations=3", "--set", "batch_size=4", "--num-workers", "0", "-q")


def run(root, *arguments):
    assert type_command("--root", str(root), *arguments) == 0


def run_job(root, ending):
    """Plan, pretrain, train one fold and predict the training images; return the predictions' folder."""
    run(root, "plan_and_preprocess", "-d", "501", "-np", "0", "-q")
    run(root, "pretrain", *SHORT)
    run(root, "train", "501", "0", *SHORT)
    out = root / "out"
    run(root, "predict", "-i", str(root / "fmseg_raw" / NAME / "imagesTr"), "-o", str(out), "--overlays", "-q")
    names = {path.name for path in out.iterdir() if path.name.endswith(ending) and "overlay" not in path.name}
    labels = root / "fmseg_raw" / NAME / "labelsTr"
    assert names >= {path.name for path in labels.iterdir()}
    run(root, "evaluate", "-d", "501", "-i", str(out), "-l", str(labels), "-q")
    return out


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_volumes_come_back_on_their_own_grid(raw_dataset, tmp_path, ending):
    raw_dataset(NAME, ending=ending)
    out = run_job(tmp_path, ending)
    reference, geometry = read_label(tmp_path / "fmseg_raw" / NAME / "labelsTr" / f"P00_0{ending}")
    predicted, same = read_label(out / f"P00_0{ending}")
    assert predicted.shape == reference.shape == (3, 48, 48)
    np.testing.assert_allclose(same.spacing_mm, geometry.spacing_mm)
    np.testing.assert_allclose(same.origin, geometry.origin)


@pytest.mark.slow
@pytest.mark.parametrize(("colour", "channels"), [("grey", 1), ("rgb", 3)])
def test_colour_is_kept_and_grey_saved_as_colour_is_reduced(raw_dataset, tmp_path, colour, channels):
    raw_dataset(NAME, colour=colour)
    run_job(tmp_path, ".png")
    plans = json.loads((tmp_path / "fmseg_preprocessed" / NAME / "plans.json").read_text())
    assert plans["preprocessing"]["channels"] == channels


@pytest.mark.slow
def test_sixteen_bit_images(raw_dataset, tmp_path):
    raw_dataset(NAME)
    for path in (tmp_path / "fmseg_raw" / NAME / "imagesTr").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.uint16) * 57)
    run_job(tmp_path, ".png")


@pytest.mark.slow
def test_regions_with_an_ignore_label(raw_dataset, tmp_path):
    raw_dataset(NAME)
    path = tmp_path / "fmseg_raw" / NAME / "dataset.json"
    declaration = json.loads(path.read_text())
    declaration["labels"] = {"background": 0, "whole": [1, 2], "organ": [2], "ignore": 3}
    declaration["regions_class_order"] = [1, 2]
    path.write_text(json.dumps(declaration))
    for label in (tmp_path / "fmseg_raw" / NAME / "labelsTr").iterdir():
        values = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
        values[:6] = 3
        cv2.imwrite(str(label), values)
    out = run_job(tmp_path, ".png")
    for prediction in out.glob("P*.png"):
        assert set(np.unique(read_label(prediction)[0])) <= {0, 1, 2}
