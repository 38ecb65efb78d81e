import json
import shutil

import cv2
import numpy as np
import pytest

from fmseg.errors import BadData, NotReady
from fmseg.stages.doctor import check, doctor
from fmseg.stages.doctor.tables import _alike
from fmseg.stages.fingerprint import fingerprint

NAME = "Dataset501_Discs"


def examined(workspace) -> list[tuple[str, str, str]]:
    fingerprint(workspace, NAME, num_processes=0)
    return [(finding.severity, finding.where, finding.problem) for finding in doctor(workspace, NAME)]


def declare(workspace, **changes) -> None:
    path = workspace.raw_dataset(NAME) / "dataset.json"
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: each for key, each in value.items() if each is not None}))


@pytest.mark.parametrize("options", [{}, {"ending": ".nii.gz"}, {"colour": "rgb"}, {"task": "classification"}], ids=str)
def test_a_sound_dataset_has_no_findings(raw_dataset, options):
    # each class has two patients
    workspace = raw_dataset(num_patients=4, **options)
    assert examined(workspace) == []
    assert json.loads((workspace.prepared(NAME) / "doctor.json").read_text()) == []


def test_a_volume_sliced_along_another_axis_is_told_and_not_taken_for_one_in_other_units(raw_dataset):
    import nibabel

    workspace = raw_dataset(num_patients=4, ending=".nii.gz")
    # the third axis of a file is what it is sliced along: here to the head, there to the right
    axial, sagittal = np.diag([0.5, 0.5, 6.0, 1.0]), np.eye(4)
    sagittal[:3, :3] = np.array([[0, 0, 0.5], [0.5, 0, 0], [0, 6.0, 0]])
    for path in sorted(workspace.raw_dataset(NAME).glob("*Tr/*.nii.gz")):
        voxels = np.asarray(nibabel.load(path).dataobj)
        image = nibabel.Nifti1Image(voxels, sagittal if path.name.startswith("P01_0") else axial)
        nibabel.save(image, path)
    [(severity, where, problem)] = examined(workspace)
    assert (severity, where) == ("warning", "P01_0")
    assert problem == "its slices are sagittal, those of the others axial"


def test_it_needs_measurements(raw_dataset):
    with pytest.raises(NotReady, match=f"fmseg fingerprint -d {NAME}"):
        doctor(raw_dataset(), NAME)


def test_orphan_labels_and_wrong_counts(raw_dataset):
    workspace = raw_dataset()
    folder = workspace.raw_dataset(NAME)
    shutil.copy(folder / "labelsTr" / "P00_0.png", folder / "labelsTr" / "P99_0.png")
    declare(workspace, numTraining=7)
    assert examined(workspace) == [
        ("error", "labelsTr/P99_0.png", "this label map has no image"),
        ("warning", "dataset.json", "'numTraining' is 7, but there are 6 cases"),
    ]


def test_duplicates_are_warnings_and_say_what_differs(raw_dataset):
    workspace = raw_dataset()
    folder = workspace.raw_dataset(NAME)
    shutil.copy(folder / "imagesTr" / "P00_0_0000.png", folder / "imagesTr" / "P00_1_0000.png")
    shutil.copy(folder / "imagesTr" / "P00_0_0000.png", folder / "imagesTr" / "P01_0_0000.png")
    [(severity, where, problem)] = examined(workspace)
    assert (severity, where) == ("warning", "P00_0")
    assert problem == (
        "the same image is there 3 times: P00_0, P00_1, P01_0, with different label maps, under different patients"
    )


@pytest.mark.parametrize("with_labels", [True, False])
def test_test_images_and_patients_that_are_trained_on(raw_dataset, with_labels):
    workspace = raw_dataset()
    folder = workspace.raw_dataset(NAME)
    (folder / "imagesTs").mkdir()
    shutil.copy(folder / "imagesTr" / "P00_0_0000.png", folder / "imagesTs" / "P50_0_0000.png")
    cv2.imwrite(str(folder / "imagesTs" / "P02_7_0000.png"), np.random.default_rng(9).integers(0, 255, (48, 48)))
    (folder / "imagesTs" / "P51_0_0000.png").write_bytes(b"")
    if with_labels:
        (folder / "labelsTs").mkdir()
    severity = "error" if with_labels else "warning"
    found = examined(workspace)
    assert (severity, "imagesTs/P50_0", "the same image is in imagesTr, as 'P00_0'") in found
    assert (severity, "imagesTs", "1 patients have images in imagesTr and in imagesTs: P02") in found
    assert any(where == "imagesTs/P51_0" and "empty" in problem for _, where, problem in found)
    assert len(found) == 3


def test_guessed_patients_are_noted(raw_dataset):
    workspace = raw_dataset()
    declare(workspace, group_regex=None)
    [(severity, where, problem)] = examined(workspace)
    assert (severity, where) == ("note", "dataset.json") and "patients were not declared" in problem


def test_names_that_differ_in_case_or_accents(raw_dataset):
    workspace = raw_dataset(task="unlabelled")
    folder = workspace.raw_dataset(NAME) / "imagesTr"
    for index, name in enumerate(("p00_0_0000.png", "P00_1_0000.jpg", "P9\u00e9.png", "P9e\u0301.png")):
        cv2.imwrite(str(folder / name), np.random.default_rng(index).integers(0, 255, (48, 48)))
    declare(workspace, group_regex="^([pP][0-9]+)", numTraining=9)
    found = examined(workspace)
    assert all(severity == "warning" for severity, _, _ in found)
    texts = [problem for _, _, problem in found]
    assert "the case names P00_0_0000, p00_0_0000 differ only in case or accents" in texts
    assert any("differ only" in text and "P9" in text for text in texts)
    assert any("give one case name" in text for text in texts) and len(texts) == 3


def test_channels_and_types_are_compared_with_the_declaration(raw_dataset):
    workspace = raw_dataset()
    folder = workspace.raw_dataset(NAME) / "imagesTr"
    shutil.copy(folder / "P00_0_0000.png", folder / "P00_0_0001.png")
    cv2.imwrite(str(folder / "P00_1_0000.png"), np.random.default_rng(0).integers(0, 9000, (48, 48)).astype(np.uint16))
    assert examined(workspace)[:2] == [
        ("error", "P00_0", "it has 2 channels, dataset.json declares 1"),
        ("error", "P00_1", "its values are uint16, those of most images uint8"),
    ]


def test_colour_in_a_grey_set_and_the_other_way_round(raw_dataset):
    workspace = raw_dataset(colour="rgb")
    declare(workspace, channel_names={"0": "photo"})
    assert [where for _, where, _ in examined(workspace)] == ["dataset.json"]
    declare(workspace, channel_names={"0": "red", "1": "green", "2": "blue"})
    image = np.random.default_rng(0).integers(0, 255, (48, 48)).astype(np.uint8)
    cv2.imwrite(str(workspace.raw_dataset(NAME) / "imagesTr" / "P00_0_0000.png"), image)
    [(severity, _, problem)] = examined(workspace)
    assert severity == "note" and problem.startswith("1 image is grey (P00_0)")


def test_classification_rows_and_images_must_match(raw_dataset):
    workspace = raw_dataset(num_patients=4, task="classification")
    table = workspace.raw_dataset(NAME) / "labelsTr.csv"
    table.write_text(table.read_text().replace("P00_0,", "P77_0,"))
    assert examined(workspace) == [
        ("error", "P00_0", "this image has no row in labelsTr.csv"),
        ("warning", "labelsTr.csv", "the case 'P77_0' has no image"),
    ]


def test_errors_stop_and_warnings_do_not(raw_dataset):
    workspace = raw_dataset()
    folder = workspace.raw_dataset(NAME)
    (folder / "imagesTr" / "P00_0_0000.png").write_bytes(b"")
    (folder / "labelsTr" / "P00_1.png").unlink()
    declare(workspace, numTraining=7)
    fingerprint(workspace, NAME, num_processes=0)
    findings = doctor(workspace, NAME)
    assert [finding.severity for finding in findings] == ["error", "error", "warning"]
    with pytest.raises(BadData, match=r"(?s)2 things are wrong.*P00_0_0000\.png: the file is empty.*P00_1_0000\.png"):
        check(findings)
    check(findings[2:])


def test_bad_files_of_an_unlabelled_set_are_warnings(raw_dataset):
    workspace = raw_dataset(task="unlabelled")
    (workspace.raw_dataset(NAME) / "imagesTr" / "P00_0_0000.png").write_bytes(b"")
    assert examined(workspace) == [("warning", "imagesTr/P00_0_0000.png", "the file is empty (0 bytes)")]


def test_only_what_reads_alike_is_one_patient():
    different = [*map(str, range(1200)), "1_23", "12_3", "a1", "1a", "a_1"]
    assert list(_alike(different)) == []
    for pair in (("7", "007"), ("Ann 1", "ann_01"), ("A-10", "a  10")):
        (found,) = _alike(pair)
        assert all(name in found.problem for name in pair)
