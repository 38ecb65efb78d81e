"""Networks that others are compared with learn, compete and predict with the same commands as any recipe."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from fmseg.cli.frame import type_command
from fmseg.networks.classifier import classifiers
from fmseg.networks.cnn import build_cnn
from fmseg.records.run import RunConfig
from fmseg.records.selection import Selection
from fmseg.stages.train import classification, planned_recipes, segmentation
from fmseg.stages.train.fold import has_stalled
from fmseg.workspace import Workspace

DATASET = "Dataset501_Discs"
SEGMENTATION = ("unet", "upernet_frozen")
CLASSIFICATION = ("attentive_probe", "knn", "logreg", "resnet50")
SHORT = ("--set", "iterations=4", "--set", "validation_interval=2", "--set", "batch_size=2", "--num-workers", "0")


@pytest.fixture
def raw(raw_dataset, tmp_path):
    """Four patients in two folds."""
    workspace = raw_dataset(DATASET, num_patients=4, images_per_patient=1)
    folder = workspace.raw_dataset(DATASET)
    halves = (["P00_0", "P01_0"], ["P02_0", "P03_0"])
    folds = [{"train": halves[1 - number], "val": halves[number]} for number in range(2)]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    shutil.copytree(folder / "imagesTr", tmp_path / "new")
    return tmp_path


@pytest.fixture
def raw_classes(raw_dataset, tmp_path):
    """Six patients in two folds, of two classes by turns."""
    workspace = raw_dataset("Dataset502_Discs", task="classification", num_patients=6, images_per_patient=1)
    folder = workspace.raw_dataset("Dataset502_Discs")
    halves = (["P00_0", "P01_0", "P02_0"], ["P03_0", "P04_0", "P05_0"])
    folds = [{"train": halves[1 - number], "val": halves[number]} for number in range(2)]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    shutil.copytree(folder / "imagesTr", tmp_path / "new")
    return tmp_path


def type_(root, *arguments):
    return type_command("--root", str(root), *arguments)


def test_baselines_are_trained_chosen_from_and_predict(raw):
    assert type_(raw, "plan_and_preprocess", "-d", "501", "-np", "0") == 0
    for recipe in SEGMENTATION:
        for fold in ("fold0", "fold1"):
            assert type_(raw, "train", "501", fold, "-r", recipe, *SHORT) == 0
    assert type_(raw, "find_best", "501") == 0
    results = raw / "fmseg_results" / DATASET
    selection = Selection.load(results / "selection.json")
    assert {f"{name}__fmsegPlans" for name in SEGMENTATION} <= {each.name for each in selection.candidates}
    run = RunConfig.load(results / "unet__fmsegPlans" / "fold_0" / "run.json")
    assert (run.recipe.network, run.init.name) == ("unet", "scratch") and "random weights" in run.init.because
    for name in SEGMENTATION[1:]:
        shutil.rmtree(results / f"{name}__fmsegPlans")
    (results / "selection.json").unlink()
    assert type_(raw, "predict", "-i", str(raw / "new"), "-o", str(raw / "predictions"), "--no-mirror") == 0
    for path in sorted((raw / "new").iterdir()):
        found = Image.open(raw / "predictions" / path.name.replace("_0000", ""))
        assert found.size == Image.open(path).size
        assert set(np.unique(found)) <= {0, 1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["unetr", "multiresunet"])
def test_the_other_networks_of_the_paper_do_so_too(raw, recipe):
    assert type_(raw, "plan_and_preprocess", "-d", "501", "-np", "0") == 0
    assert type_(raw, "train", "501", "-r", recipe, *SHORT) == 0
    assert type_(raw, "predict", "-i", str(raw / "new"), "-o", str(raw / "predictions"), "--no-mirror") == 0


def test_a_resumed_unet_ends_in_the_same_bytes_with_momentum_too(raw):
    sgd = ("--set", "optimizer=sgd", "--set", "momentum=0.9", "--set", "learning_rate=0.01")
    assert type_(raw, "plan_and_preprocess", "-d", "501", "-np", "0") == 0
    fold = raw / "fmseg_results" / DATASET / "unet__fmsegPlans" / "fold_0"
    train = ("train", "501", "fold0", "-r", "unet", *SHORT, *sgd, "--checkpoint-minutes", "0")
    assert type_(raw, *train) == 0
    whole = (fold / "model.safetensors").read_bytes()
    # go back to the checkpoint before the last one
    (fold / "finished.json").unlink()
    newest = max((fold / "checkpoints").glob("step_*.json")).stem
    for path in (fold / "checkpoints").glob(f"{newest}.*"):
        path.unlink()
    assert type_(raw, *train) == 0
    assert (fold / "model.safetensors").read_bytes() == whole


def test_a_baseline_takes_no_checkpoint_and_only_its_own_task(raw, capfd):
    assert type_(raw, "plan_and_preprocess", "-d", "501", "-np", "0") == 0
    workspace = Workspace.find(raw)
    assert planned_recipes(workspace, DATASET, "fmsegPlans")[:2] == ("upernet", "unet")
    assert "unet" not in planned_recipes(workspace, DATASET, "fmsegPlans", "ultrasound")
    assert type_(raw, "train", "501", "fold0", "-r", "unet", "--init", "ultrasound", *SHORT) == 2
    assert "The network 'unet' has no ViT, so --init ultrasound" in capfd.readouterr().err
    assert type_(raw, "train", "501", "fold0", "-r", "finetune", *SHORT) == 2
    assert "needs the decoder 'class_head'" in capfd.readouterr().err


def test_probes_and_convolutions_tell_classes_with_the_same_commands(raw_classes, capfd, monkeypatch):
    # a smaller one of the same kind
    monkeypatch.setitem(classifiers._items, "resnet50", partial(build_cnn, model="resnet10t"))
    assert type_(raw_classes, "plan_and_preprocess", "-d", "502", "-np", "0") == 0
    for recipe in CLASSIFICATION:
        for fold in ("fold0", "fold1"):
            assert type_(raw_classes, "train", "502", fold, "-r", recipe, *SHORT) == 0
    assert type_(raw_classes, "find_best", "502") == 0
    results = raw_classes / "fmseg_results" / "Dataset502_Discs"
    selection = Selection.load(results / "selection.json")
    assert {f"{name}__fmsegPlans" for name in CLASSIFICATION} <= {each.name for each in selection.candidates}
    for name in CLASSIFICATION:
        if name != "knn":
            shutil.rmtree(results / f"{name}__fmsegPlans")
    (results / "selection.json").unlink()
    assert type_(raw_classes, "predict", "-i", str(raw_classes / "new"), "-o", str(raw_classes / "predictions")) == 0
    assert len((raw_classes / "predictions" / "predictions.csv").read_text().splitlines()) == 7
    assert type_(raw_classes, "train", "502", "fold0", "-r", "resnet50", "--init", "timm", *SHORT) != 0
    assert "nothing is downloaded" in capfd.readouterr().err
    assert type_(raw_classes, "train", "502", "fold0", "-r", "unet", *SHORT) != 0


EARLY = (
    "--set",
    "iterations=40",
    "--set",
    "validation_interval=2",
    "--set",
    "patience=2",
    "--set",
    "learning_rate=0.0",
)


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_patience_ends_a_run_early_by_patients_that_it_neither_learns_from_nor_is_scored_on(
    raw_dataset, tmp_path, task, monkeypatch
):
    raw_dataset(DATASET, task=task, num_patients=8, images_per_patient=2)
    lesson, name = {"segmentation": (segmentation, "validate"), "classification": (classification, "validate_classes")}[
        task
    ]
    looked_at, validate = [], getattr(lesson, name)

    def look(model, config, store, cases, *rest):
        looked_at.append(set(cases))
        return validate(model, config, store, cases, *rest)

    monkeypatch.setattr(lesson, name, look)
    learned_from, fit = [], lesson.fit_task
    monkeypatch.setattr(
        lesson,
        "fit_task",
        lambda fold, task, samples, *rest: learned_from.append(rest[0]) or fit(fold, task, samples, *rest),
    )
    assert type_(tmp_path, "plan_and_preprocess", "-d", "501", "-np", "0") == 0
    recipe = "linear" if task == "segmentation" else "finetune"
    rest = ("--set", "batch_size=2", "--set", "validation_cases=99", "--num-workers", "0")
    assert type_(tmp_path, "train", "501", "fold0", "-r", recipe, *EARLY, *rest) == 0
    fold = tmp_path / "fmseg_results" / DATASET / f"{recipe}__fmsegPlans" / "fold_0"
    steps = [json.loads(line)["step"] for line in (fold / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) < 40
    assert (fold / "model.safetensors").read_bytes() == (fold / "model_best.safetensors").read_bytes()
    config = RunConfig.load(fold / "run.json")
    watched = set(config.watched)
    assert watched and all(cases == watched for cases in looked_at)
    assert watched < set(config.cases.train) and not watched & set(config.cases.val)
    assert not {case[:3] for case in watched} & {case[:3] for case in set(config.cases.train) - watched}
    assert learned_from == [len(config.cases.train) - len(watched)]


def test_patience_with_too_few_patients_is_refused(raw, capfd):
    assert type_(raw, "plan_and_preprocess", "-d", "501", "-np", "0") == 0
    assert type_(raw, "train", "501", "fold0", "-r", "linear", *EARLY, "--num-workers", "0") == 2
    assert "patience" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("values", "patience", "stalled"),
    [
        ([], 2, False),
        ([0.5, 0.4, 0.3], 0, False),
        ([0.5, 0.4], 2, False),
        ([0.5, 0.4, 0.3], 2, True),
        ([0.5, 0.4, 0.5], 2, True),
        ([0.1, 0.5, 0.4, 0.3], 2, True),
        ([0.5, 0.4, 0.6], 2, False),
    ],
)
def test_a_run_has_stalled_when_the_last_validations_brought_nothing_better(values, patience, stalled):
    history = [{"step": index, "loss": 1.0} | {"val_dice": value} for index, value in enumerate(values)]
    assert has_stalled([*history, {"step": 99, "loss": 1.0}], patience) == stalled
