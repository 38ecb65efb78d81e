"""doctor --fix: the copy is sound, and the original is as it was."""

import json
import shutil

import cv2
import numpy as np
import pytest

from fmseg.cli import main
from fmseg.files import sha256_file
from fmseg.imaging.case import Geometry
from fmseg.imaging.readers import read_label, write_label

NAME, COPY = "Dataset501_Discs", "Dataset502_DiscsMended"


def typed(capsys, root, *arguments):
    with pytest.raises(SystemExit) as left:
        main(["--root", str(root), *arguments])
    captured = capsys.readouterr()
    return left.value.code, captured.out + captured.err


def hashes(folder):
    return {path: sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def declare(folder, **changes):
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def mended(capsys, tmp_path, folder, code=0):
    """Mend a dataset and return the copy's folder and what was said."""
    before = hashes(folder)
    found, text = typed(capsys, tmp_path, "doctor", "-d", "501", "--fix", "-np", "0", "-q")
    assert found == code, text
    assert hashes(folder) == before
    return folder.parent / COPY, text


def test_values_are_made_consecutive_in_declaration_and_label_maps(raw_dataset, tmp_path, capsys):
    folder = raw_dataset(NAME).raw_dataset(NAME)
    declare(folder, labels={"background": 0, "head": 2, "organ": 7, "ignore": 5}, numTraining=9)
    drawn = {}
    for path in (folder / "labelsTr").iterdir():
        drawn[path.name] = np.array([0, 2, 7], np.uint8)[cv2.imread(str(path), cv2.IMREAD_UNCHANGED)]
        drawn[path.name][0, 0] = 5
        cv2.imwrite(str(path), drawn[path.name])
    copy, _ = mended(capsys, tmp_path, folder)
    value = json.loads((copy / "dataset.json").read_text())
    assert value["labels"] == {"background": 0, "head": 1, "organ": 2, "ignore": 3} and value["numTraining"] == 6
    for name, before in drawn.items():
        after = cv2.imread(str(copy / "labelsTr" / name), cv2.IMREAD_UNCHANGED)
        for old, new in ((0, 0), (2, 1), (7, 2), (5, 3)):
            assert np.array_equal(before == old, after == new)
    assert typed(capsys, tmp_path, "plan_and_preprocess", "-d", "502", "-np", "0")[0] == 0


def test_masks_of_255_become_1(raw_dataset, tmp_path, capsys):
    folder = raw_dataset(NAME).raw_dataset(NAME)
    declare(folder, labels={"background": 0, "head": 1})
    for path in (folder / "labelsTr").iterdir():
        cv2.imwrite(str(path), (cv2.imread(str(path), 0) > 0).astype(np.uint8) * 255)
    copy, _ = mended(capsys, tmp_path, folder)
    labels = [np.unique(cv2.imread(str(path), 0)).tolist() for path in (copy / "labelsTr").iterdir()]
    assert labels == [[0, 1]] * 6


def test_what_cannot_be_used_is_left_out(raw_dataset, tmp_path, capsys):
    folder = raw_dataset(NAME, num_patients=4).raw_dataset(NAME)
    (folder / "imagesTr" / "P00_0_0000.png").write_bytes(b"")
    shutil.copy(folder / "labelsTr" / "P00_1.png", folder / "labelsTr" / "P99_0.png")
    for part, end in (("imagesTr", "_0000.png"), ("labelsTr", ".png")):
        shutil.copy(folder / part / f"P01_0{end}", folder / part / f"P01_1{end}")
    (folder / "imagesTs").mkdir()
    shutil.copy(folder / "imagesTr" / "P02_0_0000.png", folder / "imagesTs" / "P90_0_0000.png")
    (folder / "patients.csv").write_text(
        "case,patient\n" + "".join(f"P{p:02d}_{i},q{p}\n" for p in range(4) for i in (0, 1))
    )
    copy, text = mended(capsys, tmp_path, folder)
    assert sorted(path.name[:5] for path in (copy / "imagesTr").iterdir()) == [
        "P00_1",
        "P01_0",
        "P02_1",
        "P03_0",
        "P03_1",
    ]
    assert len(list((copy / "labelsTr").iterdir())) == 5
    assert (copy / "patients.csv").read_text().count("\n") == 6
    for word in ("'P00_0' was left out: the file is empty", "P99_0.png was left out", "'P01_1'", "'P02_0'", "3 lines"):
        assert word in text
    assert typed(capsys, tmp_path, "doctor", "-d", "502", "-np", "0")[0] == 0
    code, text = typed(capsys, tmp_path, "doctor", "-d", "501", "--fix", "-np", "0")
    assert code == 2 and "is a mended copy" in text


def test_label_maps_are_laid_on_their_images(raw_dataset, tmp_path, capsys):
    folder = raw_dataset(NAME, ending=".nii.gz").raw_dataset(NAME)
    path = folder / "labelsTr" / "P00_0.nii.gz"
    before = read_label(path)[0]
    write_label(before, Geometry((1.0, 1.0, 1.0)), path)
    copy, _ = mended(capsys, tmp_path, folder)
    labels, geometry = read_label(copy / "labelsTr" / "P00_0.nii.gz")
    assert np.array_equal(labels, before)
    assert geometry.spacing_mm == pytest.approx((2.0, 0.5, 0.25)) and geometry.origin == pytest.approx((1, 2, 3))


def test_what_only_a_person_can_mend_is_left_to_one(raw_dataset, tmp_path, capsys):
    folder = raw_dataset(NAME).raw_dataset(NAME)
    declare(folder, group_regex="^(Q[0-9]+)_")
    _, text = mended(capsys, tmp_path, folder, code=3)
    assert "group_regex" in text
