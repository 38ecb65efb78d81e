"""Patients of DICOM images come from their headers, and nothing else of these headers stays."""

import json

import numpy as np
from test_readers_dicom import write as write_dicom

from fmseg.imaging.case import Geometry
from fmseg.imaging.measure import read_facts
from fmseg.imaging.readers import write_label
from fmseg.planning.patients import known_patients
from fmseg.records.dataset import Dataset
from fmseg.stages.doctor import doctor
from fmseg.stages.evaluate import evaluate
from fmseg.stages.fingerprint import fingerprint
from fmseg.workspace import Workspace

PATIENTS = {"a": "MRN 77123", "b": "MRN 77123", "c": "MRN 88456", "d": "Anonymous"}


def make(root, patients=PATIENTS) -> Workspace:
    root.mkdir(exist_ok=True)
    workspace = Workspace.find(root)
    folder = workspace.raw_dataset("Dataset501_Clips")
    (folder / "imagesTr").mkdir(parents=True)
    for number, (name, patient) in enumerate(patients.items()):
        pixels = np.random.default_rng(number).integers(0, 255, (1, 12, 20), np.uint8)
        write_dicom(folder / "imagesTr" / name, pixels, PatientID=patient)
    declaration = {"channel_names": {"0": "ultrasound"}, "task": "unlabelled"}
    (folder / "dataset.json").write_text(json.dumps(declaration))
    return workspace


def measured(workspace):
    found = fingerprint(workspace, "Dataset501_Clips", num_processes=0)
    path = workspace.prepared("Dataset501_Clips") / "cases.jsonl"
    return found, {fact.case: fact.patient for fact in read_facts(path)}


def test_headers_name_patients_and_no_number_of_theirs_is_written(tmp_path):
    workspace = make(tmp_path)
    found, patients = measured(workspace)
    assert patients["a"] == patients["b"] != patients["c"] and patients["d"] == "d"
    assert found.num_patients == 3 and not found.patients_declared
    assert "of 1 cases" in found.patient_source
    written = b"".join(path.read_bytes() for path in workspace.preprocessed.rglob("*") if path.is_file())
    assert b"77123" not in written and b"Secret" not in written and b"88456" not in written
    assert (workspace.preprocessed / ".patient_salt").stat().st_mode & 0o077 == 0
    # what is there holds: nothing is measured again, nobody changes
    path = workspace.prepared("Dataset501_Clips") / "cases.jsonl"
    before = path.read_bytes()
    assert measured(workspace)[1] == patients and path.read_bytes() == before


def test_another_workspace_gives_other_hashes(tmp_path):
    found, ours = measured(make(tmp_path / "one", dict.fromkeys("abc", "MRN 1") | {"d": "MRN 2"}))
    assert found.patients_declared and found.num_patients == 2
    _, theirs = measured(make(tmp_path / "two"))
    assert not set(ours.values()) & set(theirs.values())


def test_a_table_comes_before_headers_and_headers_come_back_without_it(tmp_path):
    workspace = make(tmp_path)
    _, by_header = measured(workspace)
    table = workspace.raw_dataset("Dataset501_Clips") / "patients.csv"
    table.write_text("case,patient\na,P1\nb,P2\nc,P2\nd,P1\n")
    found, patients = measured(workspace)
    assert patients == {"a": "P1", "b": "P2", "c": "P2", "d": "P1"} and found.patient_source == "patients.csv"
    table.unlink()
    assert measured(workspace)[1] == by_header


def test_a_labelled_set_may_hold_files_without_an_ending(tmp_path):
    workspace = make(tmp_path)
    folder = workspace.raw_dataset("Dataset501_Clips")
    declaration = json.loads((folder / "dataset.json").read_text())
    declaration |= {"task": "segmentation", "labels": {"background": 0, "head": 1}, "file_ending": ""}
    (folder / "dataset.json").write_text(json.dumps(declaration))
    (folder / "labelsTr").mkdir()
    (folder / "labelsTr" / "a.png").write_bytes(b"")
    dataset = Dataset.load(folder)
    assert [case.name for case in dataset.training_cases()] == ["a", "b", "c", "d"]
    assert dataset.training_cases()[0].label == folder / "labelsTr" / "a.png" and not dataset.orphan_labels()


def declare_classes(folder):
    declaration = {"channel_names": {"0": "ultrasound"}, "task": "classification", "file_ending": ""}
    (folder / "dataset.json").write_text(json.dumps(declaration))
    (folder / "labelsTr.csv").write_text("case,label\na,x\nb,y\nc,x\nd,y\n")


def test_a_patient_of_the_headers_on_both_sides_is_found(tmp_path):
    workspace = make(tmp_path)
    folder = workspace.raw_dataset("Dataset501_Clips")
    declare_classes(folder)
    (folder / "imagesTs").mkdir()
    pixels = np.random.default_rng(9).integers(0, 255, (1, 12, 20), np.uint8)
    write_dicom(folder / "imagesTs" / "t", pixels, PatientID="MRN 88456")
    fingerprint(workspace, "Dataset501_Clips", num_processes=0)
    both = [each for each in doctor(workspace, "Dataset501_Clips") if "both" in each.problem]
    assert [each.where for each in both] == ["imagesTs"] and "88456" not in both[0].problem
    write_dicom(folder / "imagesTs" / "t", pixels, PatientID="MRN 5")
    assert not [each for each in doctor(workspace, "Dataset501_Clips") if "both" in each.problem]


def write_test_images(folder, patients):
    (folder / "imagesTs").mkdir()
    for number, (name, patient) in enumerate(patients.items(), start=20):
        pixels = np.random.default_rng(number).integers(0, 255, (1, 12, 20), np.uint8)
        write_dicom(folder / "imagesTs" / f"{name}.dcm", pixels, PatientID=patient)


def test_whoever_asks_for_a_patient_gets_the_one_of_the_folds(tmp_path):
    workspace = make(tmp_path)
    folder = workspace.raw_dataset("Dataset501_Clips")
    declare_classes(folder)
    write_test_images(folder, {"t": "MRN 88456", "u": "MRN 3", "v": ""})
    dataset = Dataset.load(folder)
    asked = ["d", "a", "t", "b", "u", "v", "c"]
    before = known_patients(workspace, dataset, asked)
    _, measured_ones = measured(workspace)
    found = known_patients(workspace, dataset, asked)
    assert found == before, "headers say the same before and after they were measured"
    assert {case: found[case] for case in PATIENTS} == measured_ones
    assert found["t"] == found["c"] and found["v"] == "v" and len(set(found.values())) == 5
    (folder / "patients.csv").write_text("case,patient\nt,P1\na,P1\n")
    assert known_patients(workspace, dataset, ["t", "a", "c"]) == {"t": "P1", "a": "P1", "c": "c"}


def test_test_images_of_one_patient_count_as_one_in_the_scores(tmp_path):
    workspace = Workspace.find(tmp_path)
    folder = workspace.raw_dataset("Dataset501_Clips")
    folder.mkdir(parents=True)
    labels = {"background": 0, "head": 1}
    declaration = {"channel_names": {"0": "ultrasound"}, "labels": labels, "file_ending": ".dcm"}
    (folder / "dataset.json").write_text(json.dumps(declaration))
    write_test_images(folder, {"x": "MRN 1", "y": "MRN 1", "z": "MRN 2"})
    for place in (folder / "labelsTs", tmp_path / "out"):
        place.mkdir()
        for name in "xyz":
            write_label(np.ones((1, 12, 20), np.uint8), Geometry(None, is_2d=True), place / f"{name}.png")
    x, y, z = (case.patient for case in evaluate(workspace, "Dataset501_Clips", tmp_path / "out").cases)
    assert x == y != z and "MRN" not in (tmp_path / "out" / "scores.json").read_text()
