import json

import pytest

from fmseg.errors import BadData, NotReady, UnknownName
from fmseg.planning.folds import load_folds
from fmseg.records.plans import Plans
from fmseg.stages.explain import explain
from fmseg.stages.fingerprint import fingerprint
from fmseg.stages.plan import plan

NAME = "Dataset501_Discs"


@pytest.fixture
def planned(raw_dataset):
    """Return a function that writes and measures a dataset and returns its workspace."""

    def make(**options):
        workspace = raw_dataset(NAME, **options)
        fingerprint(workspace, NAME, num_processes=0)
        return workspace

    return make


def add_patient(workspace, patient):
    """Copy a patient's files under another patient's name, and measure again."""
    folder = workspace.raw_dataset(NAME)
    for part in ("imagesTr", "labelsTr"):
        for path in sorted((folder / part).glob("P00_*")):
            (folder / part / path.name.replace("P00", patient)).write_bytes(path.read_bytes())
    fingerprint(workspace, NAME, num_processes=0)


def test_a_plan_lies_on_disk_with_its_folds_and_is_the_same_again(planned):
    workspace = planned()
    plans = plan(workspace, NAME)
    folder = workspace.prepared(NAME)
    assert Plans.load(folder / "plans.json") == plans
    # three patients: one fold for each
    folds = load_folds(folder / "splits_final.json")
    assert [fold.val for fold in folds] == [(f"P0{p}_0", f"P0{p}_1") for p in range(3)]
    before = (folder / "plans.json").read_bytes()
    plan(workspace, NAME)
    assert (folder / "plans.json").read_bytes() == before


def test_small_images_are_planned_with_small_patches(planned):
    plans = plan(planned(), NAME)
    assert plans.preprocessing.image_size == (48, 48)
    assert plans.pretraining.architecture.patch_size == 8
    assert plans.labels is not None
    assert plans.labels.names == ("head", "organ")


def test_a_budget_and_a_name_are_kept_apart_from_the_default(planned):
    workspace = planned()
    usual = plan(workspace, NAME)
    short = plan(workspace, NAME, plans_name="short", budget_s=60.0)
    assert Plans.load(workspace.prepared(NAME) / "plans.json") == usual
    assert Plans.load(workspace.prepared(NAME) / "short.json") == short
    assert short.pretraining.iterations < usual.pretraining.iterations


def test_new_cases_join_the_folds_without_moving_old_ones(planned):
    workspace = planned(num_patients=6)
    plan(workspace, NAME)
    path = workspace.prepared(NAME) / "splits_final.json"
    before = load_folds(path)
    add_patient(workspace, "P77")
    plan(workspace, NAME)
    after = load_folds(path)
    assert sum("P77_0" in fold.val for fold in after) == 1
    for old, new in zip(before, after, strict=True):
        assert set(old.val) <= set(new.val)
        assert set(old.train) <= set(new.train)


def test_the_owners_folds_are_kept_and_checked(planned):
    workspace = planned()
    own = [{"train": ["P00_0", "P00_1", "P02_0", "P02_1"], "val": ["P01_0", "P01_1"]}]
    given = workspace.raw_dataset(NAME) / "splits_final.json"
    given.write_text(json.dumps(own))
    plan(workspace, NAME)
    made = workspace.prepared(NAME) / "splits_final.json"
    assert json.loads(made.read_text()) == own
    given.write_text(json.dumps([{"train": ["P00_0"], "val": ["P00_1"]}]))
    with pytest.raises(BadData, match=r"splits_final.json: fold 0: patient 'P00'"):
        plan(workspace, NAME)
    assert json.loads(made.read_text()) == own


def test_a_case_that_is_gone_leaves_the_folds(planned):
    workspace = planned(num_patients=6)
    plan(workspace, NAME)
    for path in workspace.raw_dataset(NAME).glob("*/P03_1*"):
        path.unlink()
    fingerprint(workspace, NAME, num_processes=0)
    plan(workspace, NAME)
    folds = load_folds(workspace.prepared(NAME) / "splits_final.json")
    assert sorted(case for fold in folds for case in fold.val) == [
        f"P0{p}_{i}" for p in range(6) for i in range(2) if (p, i) != (3, 1)
    ]


@pytest.mark.parametrize("task", ["classification", "unlabelled"])
def test_other_tasks_are_planned_too(planned, task):
    workspace = planned(task=task, num_patients=6)
    plans = plan(workspace, NAME)
    assert plans.task == task
    assert (plans.labels is None) == (task == "unlabelled")
    assert (workspace.prepared(NAME) / "splits_final.json").exists() == (task == "classification")


def test_volumes_keep_their_spacing(planned):
    plans = plan(planned(ending=".nii.gz"), NAME)
    assert plans.preprocessing.size_mode == "spacing"
    assert plans.preprocessing.spacing_mm == (0.5, 0.25)


def test_what_is_missing_names_the_command(raw_dataset):
    with pytest.raises(NotReady, match="fmseg fingerprint -d 501"):
        plan(raw_dataset(NAME), NAME)
    with pytest.raises(NotReady, match="fmseg plan -d 501"):
        explain(raw_dataset("Dataset502_Discs"), NAME)


def test_an_unknown_planner_is_named(planned):
    with pytest.raises(UnknownName, match="standard"):
        plan(planned(), NAME, planner="nobody")


def test_explain_tells_all_numbers_or_what_differs(planned):
    workspace = planned()
    plan(workspace, NAME)
    plan(workspace, NAME, plans_name="short", budget_s=60.0)
    rows = explain(workspace, NAME)
    assert len(rows) > 80
    assert all(len(row) == 4 for row in rows)
    different = explain(workspace, NAME, other=workspace.prepared(NAME) / "short.json")
    assert 0 < len(different) < 20
    assert "pretraining.iterations" in {row.number for row in different}


def test_a_plan_that_cannot_be_read_is_replaced(planned):
    workspace = planned()
    path = workspace.prepared(NAME) / "plans.json"
    path.write_text("{broken")
    assert plan(workspace, NAME) == Plans.load(path)


def test_centres_are_left_out_where_the_dataset_says_so(planned):
    workspace = planned(num_patients=6)
    folder = workspace.raw_dataset(NAME)
    declaration = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(declaration | {"split_by": "centre"}))
    with pytest.raises(BadData, match=r"patients.csv: there is no such file"):
        plan(workspace, NAME)
    rows = [f"P0{p}_{i},P0{p},{'north' if p < 4 else 'south'}" for p in range(6) for i in range(2)]
    (folder / "patients.csv").write_text("\n".join(["case,patient,centre", *rows]) + "\n")
    fingerprint(workspace, NAME, num_processes=0)
    plan(workspace, NAME)
    folds = load_folds(workspace.prepared(NAME) / "splits_final.json")
    assert [{case[:3] for case in fold.val} for fold in folds] == [{"P00", "P01", "P02", "P03"}, {"P04", "P05"}]
