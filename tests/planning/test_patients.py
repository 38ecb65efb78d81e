import errno
import json
import os
import re
from pathlib import Path

import pytest

import fmseg
from fmseg.errors import BadData, EnvironmentProblem
from fmseg.planning.patients import guess_patients, known_patients, patient_salt, patients_of
from fmseg.records.dataset import Dataset
from fmseg.workspace import Workspace


def dataset_with(folder, table=None, **keys):
    value = {"channel_names": {"0": "B-mode"}, "labels": {"background": 0, "head": 1}, "file_ending": ".png"}
    (folder / "dataset.json").write_text(json.dumps(value | keys))
    if table:
        (folder / "patients.csv").write_text("case,patient\n" + "".join(f"{c},{p}\n" for c, p in table.items()))
    return Dataset.load(folder)


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (
            ["000_HC", "000_2HC", "001_HC", "002_HC", "003_HC", "004_HC"],
            ["000", "000", "001", "002", "003", "004"],
        ),
        (
            ["Patient00188_Plane5_1_of_1", "Patient00695_Plane3_3_of_4", "Patient00695_Plane3_4_of_4"],
            ["Patient00188", "Patient00695", "Patient00695"],
        ),
        (["P03_img_2", "P03_img_3", "P04_img_1"], ["P03", "P03", "P04"]),
        (["sub-01/bmode_1", "sub-01/bmode_2", "sub-02/bmode_1"], ["sub-01", "sub-01", "sub-02"]),
        (["case_12_frame_1", "case_12_frame_2", "case_13_frame_1"], ["case_12", "case_12", "case_13"]),
        (["case_12", "case_13"], ["case_12", "case_13"]),
        # a class in front, not an exam: too few groups to be one
        ([f"{k}_{i}" for k in (0, 1) for i in range(4)], [f"{k}_{i}" for k in (0, 1) for i in range(4)]),
        # one name that says nothing, and nothing is guessed
        (["P03_img_2", "P03_img_3", "thyroid"], ["P03_img_2", "P03_img_3", "thyroid"]),
    ],
)
def test_names_are_grouped_only_by_what_they_say(names, groups):
    found = guess_patients(names)
    assert list(found.of_case.values()) == groups
    assert list(found.of_case) == names
    assert not found.declared
    assert "guessed" in found.source


def test_what_stands_for_a_patient_is_told(tmp_path):
    known = patients_of(dataset_with(tmp_path, {"v1_1": "v1", "v2_1": "v2"}, patient_unit="video"), ["v1_1", "v2_1"])
    assert known.declared and known.source == "patients.csv, where a video counts as a patient"


def test_a_table_comes_before_an_expression_and_names_cases_that_it_lacks(tmp_path):
    dataset = dataset_with(tmp_path, {"a_1": "Eve", "b_1": "Eve"}, group_regex="^([a-z])_")
    of_case, source, declared = patients_of(dataset, ["a_1", "b_1", "c_1"])
    assert of_case == {"a_1": "Eve", "b_1": "Eve", "c_1": "c_1"}
    assert declared
    assert "1 cases" in source
    assert "c_1" in source


def test_an_expression_groups_by_its_group(tmp_path):
    found = patients_of(dataset_with(tmp_path, group_regex="^([a-z])_"), ["a_1", "a_2", "b_1"])
    assert found.of_case == {"a_1": "a", "a_2": "a", "b_1": "b"}
    assert found.declared


def test_an_expression_that_fits_not_every_case_is_an_error_naming_both(tmp_path):
    with pytest.raises(BadData, match=r"dataset\.json.*\^\(\[a-z\]\)_.*'7_1'"):
        patients_of(dataset_with(tmp_path, group_regex="^([a-z])_"), ["a_1", "7_1"])


@pytest.mark.parametrize("table", [None, {"a_1": "a", "a_2": "a"}], ids=["expression", "table"])
def test_new_images_of_which_nothing_is_declared_are_a_patient_each_and_told(tmp_path, caplog, table):
    dataset = dataset_with(tmp_path, table, group_regex="^([a-z])_")
    workspace = Workspace.find(tmp_path)
    assert known_patients(workspace, dataset, ["a_1", "a_2"]) == {"a_1": "a", "a_2": "a"}
    assert not caplog.text
    found = known_patients(workspace, dataset, ["a_1", "new 1", "new 2"])
    assert found == {"a_1": "a", "new 1": "new 1", "new 2": "new 2"}
    assert "2 of 3 cases, such as new 1" in caplog.text


def test_a_full_disk_leaves_no_half_salt(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(EnvironmentProblem, match="disk is full"):
        patient_salt(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    salt = patient_salt(tmp_path)
    assert len(salt) == 32 and patient_salt(tmp_path) == salt


def test_nobody_derives_patients_from_names_alone():
    """But those that measure, the doctor, which compares names of training and test, and convert, which counts."""
    package = Path(fmseg.__file__).parent
    callers = {
        path for path in package.rglob("*.py") if re.search(r"\b(?:patients_of|guess_patients)\(", path.read_text())
    }
    wanted = {"planning/patients.py", "stages/fingerprint.py", "stages/doctor/tests.py", "stages/convert/__init__.py"}
    assert {str(path.relative_to(package)) for path in callers} == wanted
