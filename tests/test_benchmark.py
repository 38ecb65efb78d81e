"""``fmseg benchmark``: what is missing is run, what is there stays, and no patient is on two sides of anything."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fmseg.cli import benchmark as module
from fmseg.cli.frame import type_command
from fmseg.errors import BadData, Busy
from fmseg.records.benchmark import BenchmarkScore
from fmseg.records.protocol import PRESETS, Protocol, find_preset, read_protocol
from fmseg.records.run import RunConfig
from fmseg.stages import benchmark as stage
from fmseg.stages.benchmark import extended, plan_runs, scores_of
from fmseg.stages.benchmark.runs import open_setting
from fmseg.workspace import Workspace

DATASET = "Dataset501_Discs"
PROTOCOL = """
name: few
splits: 2
settings: {iterations: 2, batch_size: 2, decoder_channels: 8}
studies:
  - dataset: 501
    recipes: [linear]
    regimes: {n=4: 2, 50%: 1}
"""


@pytest.fixture
def root(raw_dataset, tmp_path) -> Path:
    """Six patients of three images each, prepared."""
    raw_dataset(DATASET, num_patients=6, images_per_patient=3)
    (tmp_path / "few.yaml").write_text(PROTOCOL)
    assert type_command("--root", str(tmp_path), "plan_and_preprocess", "-d", "501", "-np", "0") == 0
    return tmp_path


def benchmark(root: Path, *arguments: str) -> int:
    return type_command("--root", str(root), "benchmark", *arguments, "--num-workers", "0")


def said(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def configs(root: Path) -> Iterator[tuple[str, RunConfig]]:
    for path in sorted((root / "fmseg_results/benchmark/runs").glob("**/run.json")):
        yield str(path.relative_to(root / "fmseg_results/benchmark/runs")), RunConfig.load(path)


def patient(case: str) -> str:
    return case[:3]


def scores_in(folder: Path) -> list[BenchmarkScore]:
    lines = (folder / "scores.jsonl").read_text().splitlines()
    return [BenchmarkScore.parse(json.loads(line), "") for line in lines]


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def give_official_test(own: Path, other: Path) -> None:
    """Make the training images of a raw dataset the official test of another, of patients T00, T01 ..."""
    for kind in ("imagesTr", "labelsTr"):
        if (other / kind).is_dir():
            shutil.copytree(other / kind, own / kind.replace("Tr", "Ts"))
            for path in list((own / kind.replace("Tr", "Ts")).iterdir()):
                path.rename(path.with_name(path.name.replace("P", "T")))
    if (other / "labelsTr.csv").exists():
        (own / "labelsTs.csv").write_text((other / "labelsTr.csv").read_text().replace("P0", "T0"))
    change(own / "dataset.json", "^(P[0-9]+)_", "^([PT][0-9]+)_")


def check_tables(folder: Path) -> None:
    values = [score.score.mean for score in scores_in(folder) if score.regime == "n=4"]
    (row,) = csv.DictReader((folder / "table1.csv").read_text().splitlines())
    assert float(row["Discs n=4, mean"]) == pytest.approx(sum(values) / 2)
    assert float(row["Discs n=4, standard error"]) == pytest.approx(abs(values[0] - values[1]) / 2)
    assert f"{50 * sum(values):.2f} ± {50 * abs(values[0] - values[1]):.2f}" in (folder / "table1.txt").read_text()
    assert r"Discs 50\%" in (folder / "table1.tex").read_text()


def test_a_benchmark_runs_what_is_missing_and_no_more(root, capsys, monkeypatch):
    file = str(root / "few.yaml")
    assert benchmark(root, file, "--dry-run", "--json") == 0
    ahead = said(capsys)
    assert [run["state"] for run in ahead["runs"]] == ["waiting"] * 3 and ahead["seconds_left"] > 0
    assert not (root / "fmseg_results").exists()
    assert benchmark(root, file, "--json") == 0
    first = said(capsys)
    assert first["trained"] == 3 and not first["failed"]
    (row,) = first["table"]
    assert row["method"] == "scratch"
    assert list(row)[1:] == ["Discs n=4", "Discs 50%"]
    assert "±" in row["Discs n=4"] and "±" not in row["Discs 50%"]
    folder = root / "fmseg_results/benchmark/few"
    names = {"protocol.json", "table1.txt", "table1.csv", "table1.tex", "scores.jsonl", "figure1b.png", "figure1b.csv"}
    assert {path.name for path in folder.iterdir()} == names
    # no checkpoint, nor single prediction, is left to fill the disk
    assert not list(root.glob("fmseg_results/**/*.prob")) and not list(root.glob("fmseg_results/**/checkpoints"))
    for place, config in configs(root):
        sides = [{patient(case) for case in side} for side in (config.cases.train, config.cases.val)]
        assert sides[0] and sides[1] and not sides[0] & sides[1], place
    check_tables(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(module, "train_on", None)
    assert benchmark(root, file, "--json") == 0
    assert said(capsys) == first | {"trained": 0}
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_no_patient_is_trained_and_tested_on_in_any_regime(raw_dataset, tmp_path, task):
    workspace = raw_dataset(DATASET, num_patients=12, images_per_patient=3, task=task)
    assert type_command("--root", str(tmp_path), "plan_and_preprocess", "-d", "501", "-np", "0") == 0
    regimes = {"full": 6, "n=3": 6, "n=8": 6, "p=2x2": 6, "30%": 6}
    for test in ("folds", "0.3"):
        protocol = Protocol.parse({"studies": [{"dataset": "501", "regimes": regimes, "test": test}]}, "")
        runs = plan_runs(workspace, protocol, "fmsegPlans")
        assert len(runs) == len({run.folder.path for run in runs}) == 30 * len(runs[0].work.plans.recipes)
        sizes = {}
        for run in runs:
            cases = run.work.cases
            sides = [{patient(case) for case in side} for side in (cases.train, cases.val)]
            assert sides[0] and sides[1] and not sides[0] & sides[1], run.title
            sizes[run.split, run.regime.name] = set(cases.train)
            if test != "folds":
                assert cases.val == runs[0].work.cases.val, "a held-out share is the same for all"
        for split in range(6):
            few, more, most = (sizes[split, name] for name in ("n=3", "n=8", "full"))
            assert few < more < most
            shown = sizes[split, "p=2x2"]
            assert len({patient(case) for case in shown}) == 2 and len(shown) == 4


def test_a_published_protocol_runs_once_its_dataset_is_there(raw_dataset, tmp_path, capsys):
    assert type_command("--root", str(tmp_path), "benchmark", "jnu_ifm", "--dry-run") == 2
    assert "No dataset is called 'JNU_IFM'" in capsys.readouterr().err
    name = "Dataset504_JNU_IFM"
    workspace = raw_dataset(name, num_patients=12, images_per_patient=3)
    # a frame that lacks a structure is left out
    label = workspace.raw_dataset(name) / "labelsTr" / "P04_2.png"
    cv2.imwrite(str(label), np.minimum(cv2.imread(str(label), cv2.IMREAD_UNCHANGED), 1))
    assert type_command("--root", str(tmp_path), "plan_and_preprocess", "-d", "504", "-np", "0") == 0
    runs = plan_runs(workspace, find_preset("jnu_ifm"), "fmsegPlans")
    assert [(run.split, run.recipe) for run in runs] == [
        (split, recipe) for split in range(5) for recipe in ("upernet", "unet")
    ]
    for run in runs:
        assert len({patient(case) for case in run.work.cases.train}) == 4
        assert "P04_2" not in (*run.work.cases.train, *run.work.cases.val)
        assert abs(len(run.work.cases.val) - 18) <= 3


def test_the_normal_job_sees_nothing_of_it(root, capsys):
    assert benchmark(root, "-d", "501", "-r", "linear", "--set", "iterations=1", "--splits", "1") == 0
    capsys.readouterr()
    assert type_command("--root", str(root), "find_best", "501") == 2
    assert "no finished run" in capsys.readouterr().err
    assert type_command("--root", str(root), "list", "--json") == 0
    assert said(capsys)[0]["state"] == "prepared"


@pytest.mark.parametrize("what", ["plans", "recipe", "labels"])
def test_another_plan_is_told_and_fresh_runs_that_alone_again(root, capsys, what):
    options = ("-d", "501", "-r", "linear", "--set", "iterations=1", "--splits", "2", "--test", "0.3")
    assert benchmark(root, *options) == 0
    (stale,) = (root / "fmseg_results/benchmark/runs").glob("**/split_1/run.json")
    config = RunConfig.load(stale)
    others = {
        "plans": config.plans.evolve(mirror_axes=()).model_dump(mode="json"),
        "recipe": config.recipe.evolve(learning_rate=0.5).model_dump(mode="json"),
        "labels": "those before they were mended",
    }
    config.evolve(**{what: others[what]}).save(stale)
    capsys.readouterr()
    assert benchmark(root, *options) == 2
    assert "1 runs were trained under other plans or numbers" in capsys.readouterr().err
    assert benchmark(root, *options, "--fresh", "--json") == 0
    assert said(capsys)["trained"] == 1


def test_runs_of_classes_are_what_was_foretold_of_them(raw_dataset, tmp_path, capsys):
    raw_dataset("Dataset502_Planes", task="classification", num_patients=6)
    assert type_command("--root", str(tmp_path), "plan_and_preprocess", "-d", "502", "-np", "0") == 0
    options = ("-d", "502", "-r", "finetune", "linear_probe", "--regime", "n=4", "full", "--splits", "1", "--json")
    capsys.readouterr()
    assert benchmark(tmp_path, *options, "--set", "iterations=2") == 0
    assert said(capsys)["trained"] == 4
    assert benchmark(tmp_path, *options, "--set", "iterations=2") == 0  # nothing of it counts as out of date
    assert said(capsys)["trained"] == 0


def test_a_cohort_is_a_second_test_without_what_was_trained_on(root, raw_dataset, capsys):
    raw_dataset("Dataset502_Elsewhere", num_patients=2, images_per_patient=2, seed=1)
    there = root / "fmseg_raw/Dataset502_Elsewhere"
    # other values for the same names, and one image that was trained on
    declaration = json.loads((there / "dataset.json").read_text())
    declaration["labels"] = {"background": 0, "organ": 1, "head": 2}
    (there / "dataset.json").write_text(json.dumps(declaration))
    for kind, ending in (("imagesTr", "_0000.png"), ("labelsTr", ".png")):
        source = root / f"fmseg_raw/{DATASET}/{kind}/P05_0{ending}"
        shutil.copy(source, there / kind / f"P99_0{ending}")
    options = ("-d", "501", "-r", "linear", "--set", "iterations=1", "--splits", "1", "--test", "0.3")
    assert benchmark(root, *options, "--cohort", "502", "--json") == 0
    report = said(capsys)
    assert list(report["table"][0]) == ["method", "Discs full", "Discs to Elsewhere full"]
    (path,) = root.glob("fmseg_results/benchmark/runs/**/cohort_Dataset502_Elsewhere/result.json")
    score = BenchmarkScore.load(path)
    assert "P05_0" in RunConfig.load(path.parents[1] / "run.json").cases.train
    assert (score.num_test_cases, score.left_out, score.tested_on) == (4, 1, "Dataset502_Elsewhere")


def test_classes_their_official_test_and_a_cohort_of_fewer_classes(raw_dataset, tmp_path, capsys):
    for number, name in ((502, "Planes"), (503, "Elsewhere")):
        raw_dataset(f"Dataset{number}_{name}", task="classification", num_patients=6, seed=number)
    own, other = (tmp_path / "fmseg_raw" / name for name in ("Dataset502_Planes", "Dataset503_Elsewhere"))
    give_official_test(own, other)
    change(other / "labelsTr.csv", "odd", "strange")
    assert type_command("--root", str(tmp_path), "plan_and_preprocess", "-d", "502", "-np", "0") == 0
    options = ("fetal_planes", "-d", "502", "--name", "planes", "--json")
    protocol = {
        "studies": [{"dataset": 502, "recipes": ["linear_probe"], "splits": 1, "test": "official", "cohorts": [503]}]
    }
    (tmp_path / "own.yaml").write_text(json.dumps(protocol))  # JSON is YAML
    assert benchmark(tmp_path, *options, "--dry-run") == 0
    assert {run["recipe"] for run in said(capsys)["runs"]} == {"finetune", "linear_probe"}
    assert benchmark(tmp_path, str(tmp_path / "own.yaml"), "--json") == 0
    assert said(capsys)["trained"] == 1
    scores = scores_in(tmp_path / "fmseg_results/benchmark/own")
    assert {(each.tested_on, each.num_test_cases, each.left_out) for each in scores} == {
        ("Dataset502_Planes", 12, 0),
        ("Dataset503_Elsewhere", 6, 6),
    }
    assert all(each.num_train_cases == 12 and each.measure == "macro F1" for each in scores)


@pytest.fixture(params=["segmentation", "classification"])
def tested(request, raw_dataset, tmp_path, monkeypatch, capsys) -> Path:
    """A workspace whose run of "own.yaml" is tested on the official test and on a cohort; no more is trained."""
    recipe = {"segmentation": "linear", "classification": "linear_probe"}[request.param]
    for number, name in ((501, "Discs"), (502, "Elsewhere")):
        raw_dataset(f"Dataset{number}_{name}", task=request.param, num_patients=4, seed=number)
    give_official_test(tmp_path / "fmseg_raw" / DATASET, tmp_path / "fmseg_raw/Dataset502_Elsewhere")
    assert type_command("--root", str(tmp_path), "plan_and_preprocess", "-d", "501", "-np", "0") == 0
    study = {"dataset": 501, "recipes": {recipe: {"iterations": 1}}, "splits": 1, "test": "official", "cohorts": [502]}
    if request.param == "classification":
        study["recipes"] = [recipe]
    (tmp_path / "own.yaml").write_text(json.dumps({"studies": [study]}))
    assert benchmark(tmp_path, str(tmp_path / "own.yaml")) == 0
    monkeypatch.setattr(module, "train_on", None)
    capsys.readouterr()
    return tmp_path


one_task = pytest.mark.parametrize("tested", ["classification"], indirect=True)


def is_segmentation(root: Path) -> bool:
    return (root / "fmseg_raw" / DATASET / "labelsTs").is_dir()


def results(root: Path) -> dict[str, bytes]:
    """Return dataset tested on -> its result.json."""
    found = root.glob("fmseg_results/benchmark/runs/**/result.json")
    return {BenchmarkScore.load(path).tested_on: path.read_bytes() for path in found}


def mend(root: Path, folder: Path, part: str) -> None:
    """Give the first case of a raw dataset another label."""
    if is_segmentation(root):
        path = sorted((folder / f"labels{part}").iterdir())[0]
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[::-1])
    else:
        change(folder / f"labels{part}.csv", "0_0,even", "0_0,odd")


def foretold(root: Path, capsys) -> tuple[str, str]:
    """Return how far the run is, and what is said of it."""
    assert benchmark(root, str(root / "own.yaml"), "--dry-run", "--json") == 0
    caught = capsys.readouterr()
    (run,) = json.loads(caught.out.splitlines()[-1])["runs"]
    return run["state"], " ".join(caught.err.split())


@pytest.mark.parametrize(("name", "part"), [(DATASET, "Ts"), ("Dataset502_Elsewhere", "Tr")])
def test_a_test_whose_labels_were_mended_since_is_done_again_and_no_other(tested, capsys, name, part):
    file, before = str(tested / "own.yaml"), results(tested)
    state, told = foretold(tested, capsys)
    assert state == "done" and "tested" not in told
    mend(tested, tested / "fmseg_raw" / name, part)
    state, told = foretold(tested, capsys)
    assert state == "trained"
    assert f"What {name} is tested with was changed since: 1 tests" in told
    # what is of other labels stands in no table
    runs = plan_runs(Workspace.find(tested), read_protocol(tested / "own.yaml"), "fmsegPlans")
    assert {score.tested_on for score in scores_of(runs)} == set(before) - {name}
    assert benchmark(tested, file, "--json") == 0
    assert said(capsys)["failed"] == []
    after = results(tested)
    assert {each for each in after if after[each] != before[each]} == {name}
    assert json.loads(after[name])["score"] != json.loads(before[name])["score"]
    assert {score.tested_on for score in scores_in(tested / "fmseg_results/benchmark/own")} == set(before)
    assert foretold(tested, capsys)[0] == "done"


def test_a_cohort_that_has_grown_is_tested_on_again(tested, raw_dataset, capsys):
    there = tested / "fmseg_raw/Dataset502_Elsewhere"
    shutil.copy(there / "imagesTr/P00_0_0000.png", there / "imagesTr/P77_0_0000.png")
    if is_segmentation(tested):
        shutil.copy(there / "labelsTr/P00_0.png", there / "labelsTr/P77_0.png")
    else:
        change(there / "labelsTr.csv", "P00_0,even", "P00_0,even\nP77_0,even")
    assert foretold(tested, capsys)[0] == "trained"
    assert benchmark(tested, str(tested / "own.yaml")) == 0
    found = {name: json.loads(content)["num_test_cases"] for name, content in results(tested).items()}
    assert found == {DATASET: 8, "Dataset502_Elsewhere": 9}


@one_task
def test_a_test_of_which_nobody_noted_the_labels_is_done_again_once(tested, capsys):
    for path in tested.glob("fmseg_results/benchmark/runs/**/result.json"):
        content = json.loads(path.read_bytes())
        assert content.pop("test_digest")
        path.write_text(json.dumps(content))
    state, told = foretold(tested, capsys)
    assert state == "trained" and "(it was not noted): 1 tests" in told
    assert benchmark(tested, str(tested / "own.yaml")) == 0
    capsys.readouterr()
    assert foretold(tested, capsys)[0] == "done"


@one_task
def test_labels_that_are_mended_while_the_command_runs_are_noticed(tested, capsys, monkeypatch):
    there, file = tested / "fmseg_raw/Dataset502_Elsewhere", str(tested / "own.yaml")
    whole = stage.score_elsewhere

    def mend_first(*arguments):
        change(there / "labelsTr.csv", "P02_0,even", "P02_0,odd")
        return whole(*arguments)

    mend(tested, there, "Tr")
    monkeypatch.setattr(stage, "score_elsewhere", mend_first)
    assert benchmark(tested, file) == 0
    assert "Dataset502_Elsewhere was changed since this command began" in " ".join(capsys.readouterr().err.split())
    # what has other labels than the command began with is in no table, but need not be done again
    assert {score.tested_on for score in scores_in(tested / "fmseg_results/benchmark/own")} == {DATASET}
    assert foretold(tested, capsys)[0] == "done"
    assert benchmark(tested, file) == 0
    assert len(scores_in(tested / "fmseg_results/benchmark/own")) == 2


@one_task
def test_no_old_score_stays_in_a_table_if_its_test_cannot_be_done_again(tested, capsys, monkeypatch):
    for name, part in ((DATASET, "Ts"), ("Dataset502_Elsewhere", "Tr")):
        mend(tested, tested / "fmseg_raw" / name, part)

    def fail(*_):
        raise BadData("the disk ate it")

    monkeypatch.setattr(stage, "score_elsewhere", fail)
    assert benchmark(tested, str(tested / "own.yaml"), "--json") == 5
    assert said(capsys)["table"] == []
    folder = tested / "fmseg_results/benchmark/own"
    assert [path.name for path in folder.iterdir()] == ["protocol.json"]


@one_task
def test_a_test_that_another_process_does_again_is_left_to_it(tested, capsys):
    mend(tested, tested / "fmseg_raw/Dataset502_Elsewhere", "Tr")
    (run,) = plan_runs(Workspace.find(tested), read_protocol(tested / "own.yaml"), "fmsegPlans")
    before = results(tested)
    hold = "import sys; from pathlib import Path; from fmseg.files import locked\n"
    hold += "with locked(Path(sys.argv[1]), 'this run'): print(flush=True); input()"
    command = [sys.executable, "-c", hold, str(run.folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        assert benchmark(tested, str(tested / "own.yaml")) == 5
        other.communicate("\n")
    assert "another process is at it" in capsys.readouterr().out and results(tested) == before


def test_a_run_that_fails_is_told_and_the_others_go_on(root, capsys, monkeypatch):
    whole = module.train_on

    def fail_once(workspace, work, run, options):
        if work.number == 0:
            raise BadData("the disk ate it")
        return whole(workspace, work, run, options)

    monkeypatch.setattr(module, "train_on", fail_once)
    options = ("-d", "501", "-r", "linear", "--set", "iterations=1", "--splits", "2", "--json")
    assert benchmark(root, *options) == 5
    report = said(capsys)
    assert report["trained"] == 1 and report["failed"][0][1] == "the disk ate it"
    assert "(1 of 2)" in report["table"][0]["Discs full"]


def test_a_run_that_another_process_is_at_is_left_to_it(root, capsys, monkeypatch):
    options = ("-d", "501", "-r", "linear", "--set", "iterations=1", "--splits", "1")

    def held(*_):
        raise Busy("somebody is at it")

    monkeypatch.setattr(module, "train_on", held)
    assert benchmark(root, *options) == 5
    said_so = capsys.readouterr().out
    assert "No run has come to its end yet" in said_so and "another process is at it" in said_so


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("studies: [{dataset: 501, regimes: [20]}]", "'20' is no regime"),
        ("studies: [{dataset: 501, recipes: [finetune]}]", "finetune is none for segmentation"),
        ("studies: [{dataset: 501, recipes: [upernett]}]", "Did you mean 'upernet'"),
        ("studies: [{dataset: 501, test: some}]", "give 'folds', 'official'"),
        ("studies: [{dataset: 501, test: official}]", "has no folder imagesTs"),
        ("studies: [{dataset: 501, regimes: [n=500]}]", "wants more than the"),
        ("studies: [{dataset: 501, seed: 3}]", "seed"),
        ("starts: [nobody]\nstudies: [{dataset: 501}]", "nobody"),
        ("studies: [{dataset: 577}]", "577"),
        ("studies: [{dataset: 501, cohorts: 501}]", "is no cohort"),
        ("settings: {patience: 2}\nstudies: [{dataset: 501, recipes: linear}]", "patience learns from fewer"),
        ("studies: [{dataset: 501, recipes: linear}, {dataset: 501, recipes: linear, test: 0.3}]", "asked for twice"),
        ("studies: 501", "'studies' must be a list"),
        ("studies: [", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_wrong_protocol_is_refused_before_anything_runs(text, problem, root, capsys):
    (root / "wrong.yaml").write_text(text)
    assert benchmark(root, str(root / "wrong.yaml")) in (2, 3)
    assert problem in capsys.readouterr().err.replace("\n", " ")
    assert not (root / "fmseg_results").exists()


def test_options_that_a_protocol_would_overrule_are_refused(root, capsys):
    assert benchmark(root, str(root / "few.yaml"), "--set", "iterations=3", "--splits", "5") == 2
    assert "--splits, --set would change nothing" in " ".join(capsys.readouterr().err.split())


def test_recipes_and_cohorts_that_are_typed_add_to_each_study_of_a_protocol(root, raw_dataset, capsys):
    def planned(*options):
        assert benchmark(root, str(root / "few.yaml"), "--dry-run", "--json", *options) == 0
        return {(run["recipe"], run["regime"], run["split"]) for run in said(capsys)["runs"]}

    raw_dataset("Dataset502_Elsewhere", num_patients=2)
    before = planned()
    after = planned("-r", "unet", "linear", "--cohort", "502", "Dataset502_Elsewhere")
    assert after == before | {("unet", regime, split) for _, regime, split in before}
    asked = {"recipes": ["unet", "linear", "finetune"], "cohorts": ["502"], "plans_name": "fmsegPlans"}
    workspace = Workspace.find(root)
    study = extended(workspace, read_protocol(root / "few.yaml").studies[0], **asked)
    # what is there keeps its settings, what is new is as planned, and what is of another task is left out
    assert set(study.recipes) == {"linear", "unet"} and study.recipes["linear"] and not study.recipes["unet"]
    assert open_setting(workspace, study.evolve(cohorts=("502", "Elsewhere")), "fmsegPlans").cohorts == (
        "Dataset502_Elsewhere",
    )
    # a study that names no recipes has those of the plan, and more
    study = extended(workspace, study.evolve(recipes={}), ["linear"], [], "fmsegPlans")
    assert set(study.recipes) == {"upernet", "unet", "linear"}
    assert benchmark(root, str(root / "few.yaml"), "-r", "finetune") == 2
    assert "finetune" in capsys.readouterr().err


def test_the_protocol_of_the_docs_is_one(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "how-to" / "benchmark.md").read_text()
    (snippet,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "ours.yaml").write_text(snippet)
    protocol = read_protocol(tmp_path / "ours.yaml")
    assert protocol.name == "ours" and protocol.starts == ("scratch", "d503")
    first, second = protocol.studies
    assert first.regimes == {"n=20": 5, "25%": 3, "full": 3} and first.share == 0.2
    assert second.recipes == {"linear_probe": {}, "finetune": {"iterations": "500"}}
    assert second.regimes == {"full": 3} and second.cohorts == ("504",)
    assert {find_preset(name).name for name in PRESETS} == set(PRESETS)
