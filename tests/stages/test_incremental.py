"""Data that grows and changes: what is new is noticed, what is old stays where it was, what is stale is refused."""

import json
import os
import signal

import cv2
import numpy as np
import pytest

from fmseg.cli import main
from fmseg.errors import Interrupted, NotReady, UsageError
from fmseg.planning.folds import load_folds
from fmseg.planning.targets import digest_of_targets
from fmseg.records.plans import Fold, Plans
from fmseg.records.run import RunFolder
from fmseg.records.selection import Selection
from fmseg.sampling.store import Store
from fmseg.stages import train as stages_train

NAME = "Dataset501_Discs"
PREPARE = ("plan_and_preprocess", "-d", "501", "-np", "0", "-q")


def typed(capsys, root, *arguments):
    with pytest.raises(SystemExit) as left:
        main(["--root", str(root), *arguments])
    captured = capsys.readouterr()
    return left.value.code, captured.out + captured.err


def write_case(folder, case, seed):
    rng = np.random.default_rng(seed)
    cv2.imwrite(str(folder / "imagesTr" / f"{case}_0000.png"), rng.integers(0, 255, (48, 48)).astype(np.uint8))
    label = np.zeros((48, 48), np.uint8)
    label[10:30, 10:30], label[15:20, 15:20] = 1, 2
    cv2.imwrite(str(folder / "labelsTr" / f"{case}.png"), label)


def prepared(workspace):
    """Return folds, plans and store of the dataset."""
    folder = workspace.prepared(NAME)
    plans = Plans.load(folder / "plans.json")
    return load_folds(folder / "splits_final.json"), plans, Store.of(folder, plans)


def fold_of(folds):
    return {case: number for number, fold in enumerate(folds) for case in fold.val}


def test_cases_added_changed_and_removed(raw_dataset, tmp_path, capsys):
    workspace = raw_dataset(NAME, num_patients=6)
    folder = workspace.raw_dataset(NAME)
    assert typed(capsys, tmp_path, *PREPARE)[0] == 0
    folds, plans, store = prepared(workspace)
    before = {case: store.image(numbers[0]) for case, numbers in store.cases.items()}
    places = fold_of(folds)
    for index in range(2):
        write_case(folder, f"P90_{index}", 90 + index)
    write_case(folder, "P01_0", 91_000)
    for path in (folder / "imagesTr" / "P02_1_0000.png", folder / "labelsTr" / "P02_1.png"):
        path.unlink()
    # whoever skips the repair is told of it, and of the one command
    with pytest.raises(NotReady, match=r"P0[12]_[01].*fmseg plan_and_preprocess -d 501"):
        digest_of_targets(workspace, plans, folds[0])
    assert typed(capsys, tmp_path, *PREPARE)[0] == 0
    folds, _, store = prepared(workspace)
    now = fold_of(folds)
    assert {case: now[case] for case in places if case != "P02_1"} == {c: f for c, f in places.items() if c != "P02_1"}
    assert now["P90_0"] == now["P90_1"] and "P02_1" not in now
    assert set(store.cases) == (set(before) - {"P02_1"}) | {"P90_0", "P90_1"}
    for case, image in before.items():
        if case != "P02_1":
            assert np.array_equal(store.image(store.cases[case][0]), image) == (case != "P01_0")


def test_files_that_were_only_touched_change_nothing(raw_dataset, tmp_path, capsys):
    workspace = raw_dataset(NAME)
    assert typed(capsys, tmp_path, *PREPARE)[0] == 0
    folder = workspace.prepared(NAME)
    folds, plans, _ = prepared(workspace)
    kept = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("cases.jsonl", ".lock")]
    before = {path: path.read_bytes() for path in kept}
    digest = digest_of_targets(workspace, plans, folds[0])
    for path in workspace.raw_dataset(NAME).rglob("*.png"):
        os.utime(path, (1, 1))
    assert digest_of_targets(workspace, plans, folds[0]) == digest
    assert typed(capsys, tmp_path, *PREPARE)[0] == 0
    assert {path: path.read_bytes() for path in kept} == before


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_other_labels_are_another_digest(raw_dataset, tmp_path, capsys, task):
    workspace = raw_dataset(NAME, task=task)
    folder = workspace.raw_dataset(NAME)
    assert typed(capsys, tmp_path, *PREPARE)[0] == 0
    folds, plans, _ = prepared(workspace)
    before = digest_of_targets(workspace, plans, folds[0])
    if task == "classification":
        table = folder / "labelsTr.csv"
        table.write_text(table.read_text().replace("P00_0,even", "P00_0,odd"))
    else:
        write_case(folder, "P00_0", 5)
        assert typed(capsys, tmp_path, *PREPARE)[0] == 0
    assert digest_of_targets(workspace, plans, folds[0]) != before
    others = Fold(train=("P01_0",), val=("P02_0",))
    assert digest_of_targets(workspace, plans, others) == digest_of_targets(workspace, plans, others)


def test_a_recipe_trained_on_labels_that_were_mended_since_is_not_ranked(raw_dataset, tmp_path, capsys):
    workspace = raw_dataset(NAME)
    assert typed(capsys, tmp_path, *PREPARE)[0] == 0
    train = ("train", "501", "--set", "iterations=1", "-q", "--init", "scratch", "--num-workers", "0")
    assert typed(capsys, tmp_path, *train, "-r", "linear")[0] == 0
    write_case(workspace.raw_dataset(NAME), "P00_0", 5)
    assert typed(capsys, tmp_path, *PREPARE)[0] == 0
    code, said = typed(capsys, tmp_path, "find_best", "501")
    assert code == 2 and "other labels than the dataset has now" in said and "--fresh" in said
    assert typed(capsys, tmp_path, *train, "-r", "upernet_frozen")[0] == 0
    best = Selection.load(workspace.results_of(NAME) / "selection.json")
    assert [member.runs.split("-")[0] for member in best.members] == ["upernet_frozen"]


def test_a_fresh_start_that_was_stopped_goes_on_without_the_option(raw_dataset, tmp_path, capsys, monkeypatch):
    workspace = raw_dataset(NAME)
    assert typed(capsys, tmp_path, *PREPARE)[0] == 0
    train = ("train", "501", "-r", "linear", "--set", "iterations=1", "--init", "scratch", "--num-workers", "0")
    assert typed(capsys, tmp_path, *train)[0] == 0
    runs = workspace.results_of(NAME) / "linear-scratch__fmsegPlans"
    assert typed(capsys, tmp_path, *train, "--fresh", "--set", "iteration=2")[0] == 2  # a wrong word removes nothing
    assert len(list(runs.glob("fold_*/finished.json"))) == 3
    learn = stages_train.train

    def stopped(workspace, name, fold, options):
        if fold == 1:
            raise Interrupted("Stopped by SIGINT.", signal.SIGINT)
        return learn(workspace, name, fold, options)

    monkeypatch.setattr(stages_train, "train", stopped)
    code, said = typed(capsys, tmp_path, *train, "--fresh")
    assert code == 130 and "Leave out --fresh" in said
    assert [path.parent.name for path in runs.glob("fold_*/finished.json")] == ["fold_0"]
    monkeypatch.setattr(stages_train, "train", learn)
    before = (runs / "fold_0" / "finished.json").stat().st_mtime_ns
    assert typed(capsys, tmp_path, *train)[0] == 0
    assert (runs / "fold_0" / "finished.json").stat().st_mtime_ns == before
    assert len(list(runs.glob("fold_*/finished.json"))) == 3


def test_a_fold_with_other_settings_than_those_beside_it_is_told(raw_dataset, tmp_path, capsys):
    raw_dataset(NAME)
    assert typed(capsys, tmp_path, *PREPARE)[0] == 0
    train = ("-r", "linear", "--init", "scratch", "--num-workers", "0", "--set")
    said = [
        typed(capsys, tmp_path, "train", "501", f"fold{n}", *train, f"iterations={m}")[1]
        for n, m in [(0, 1), (2, 1), (1, 2)]
    ]
    assert "other settings" not in said[0] + said[1]
    assert "fold_0 was trained with other settings" in said[2] and "iterations 1, now 2" in " ".join(said[2].split())


def test_a_run_does_not_go_on_with_other_labels(tmp_path):
    import tiny_run

    run = RunFolder(tmp_path)
    run.claim(tiny_run.config(labels="one"))
    run.claim(tiny_run.config(labels="one"))
    with pytest.raises(UsageError, match=r"other labels.*--fresh"):
        run.claim(tiny_run.config(labels="two"))
    # a run of before, which had not noted them
    value = json.loads((tmp_path / "run.json").read_text())
    del value["labels"]
    (tmp_path / "run.json").write_text(json.dumps(value))
    run.claim(tiny_run.config(labels="two"))
