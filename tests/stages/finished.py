"""Finished jobs on disk, made without training: discs in noise that are found nearly always."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tiny_run
from safetensors.numpy import save_file

from fmseg.imaging.decode import targets_from_classes, targets_from_labels
from fmseg.imaging.prepare import prepare_label
from fmseg.imaging.readers import read_label
from fmseg.inference.class_scoring import score_classes
from fmseg.inference.out_of_fold import restored_labels, save_scores, score_cases
from fmseg.inference.out_of_fold_classes import CaseProbabilities, save_class_scores
from fmseg.inference.out_of_fold_classes import save_probabilities as save_class_probabilities
from fmseg.inference.probabilities import load_probabilities, save_probabilities
from fmseg.records.dataset import Dataset
from fmseg.records.plans import Fold
from fmseg.records.run import RunConfig, RunFolder
from fmseg.stages.doctor import doctor
from fmseg.stages.find_best import find_best
from fmseg.stages.fingerprint import fingerprint
from fmseg.workspace import Workspace

SEGMENTED, CLASSIFIED = "Dataset501_Discs", "Dataset502_Bright"
NAMES = [f"p{i}" for i in range(12)]


def halves(names: Sequence[str]) -> list[Fold]:
    """Return two folds, each validated on one half of the cases."""
    first, second = tuple(names[: len(names) // 2]), tuple(names[len(names) // 2 :])
    return [Fold(train=second, val=first), Fold(train=first, val=second)]


FOLDS = halves(NAMES)


def write_finished(
    root: Path, *, chosen: bool = True, names: Sequence[str] = NAMES, size: tuple[int, int] = (40, 52)
) -> Workspace:
    """Write a finished segmentation and a finished classification of the same cases into a workspace."""
    workspace = Workspace.find(root)
    for name in (SEGMENTED, CLASSIFIED):
        _write_data(workspace, name, names, size)
        for number, fold in enumerate(halves(names)):
            folder = workspace.results_of(name) / "linear__fmsegPlans" / f"fold_{number}"
            write = _write_label_maps if name == SEGMENTED else _write_classes
            write(workspace, folder, number, fold)
            _write_logs(RunFolder(folder))
        if chosen:
            find_best(workspace, name)
    return workspace


def _write_data(workspace: Workspace, name: str, names: Sequence[str], size: tuple[int, int]) -> None:
    raw = workspace.raw_dataset(name)
    tiny_run.write_dataset(raw, list(names), size=size)
    if name == CLASSIFIED:
        declared = json.loads((raw / "dataset.json").read_text()) | {"task": "classification", "labels": {}}
        (raw / "dataset.json").write_text(json.dumps(declared))
        rows = [f"{case},{'bright' if index % 2 else 'dark'}" for index, case in enumerate(names)]
        (raw / "labelsTr.csv").write_text("\n".join(["case,label", *rows]) + "\n")
    fingerprint(workspace, name, num_processes=0)
    doctor(workspace, name)
    splits = [fold.model_dump(mode="json") for fold in halves(names)]
    (workspace.prepared(name) / "splits_final.json").write_text(json.dumps(splits))
    config = tiny_run.config() if name == SEGMENTED else tiny_run.class_config()
    _plans(config, name).plans.save(workspace.prepared(name) / "plans.json")


def _plans(config: RunConfig, name: str) -> RunConfig:
    return config.evolve(plans=config.plans.evolve(dataset=name, name="fmsegPlans").model_dump(mode="json"))


def _write_label_maps(workspace: Workspace, folder: Path, number: int, fold: Fold) -> None:
    """Write predictions that are the truth, but for the first case, which is empty."""
    cases = {case.name: case for case in Dataset.load(workspace.raw_dataset(SEGMENTED)).training_cases()}
    run = _plans(tiny_run.config(fold=number, cases=fold), SEGMENTED)
    run.save(folder / "run.json")
    for name in fold.val:
        truth = targets_from_labels(
            prepare_label(*read_label(cases[name].label), tiny_run.PREPROCESSING), tiny_run.SCHEME
        )
        foreground = 0.1 + 0.8 * truth[1] * (name != "p0")
        save_probabilities(folder / "validation" / f"{name}.prob", np.stack([1 - foreground, foreground]))
    scores = score_cases(
        [cases[name] for name in fold.val],
        lambda case, shape: restored_labels(
            load_probabilities(folder / "validation" / f"{case.name}.prob"), shape, run
        ),
        tiny_run.SCHEME,
        patients={},
    )
    files = {name: (cases[name].label, folder / "validation" / f"{name}.prob") for name in fold.val}
    save_scores(scores, folder / "validation", tiny_run.SCHEME, files)


def _write_classes(workspace: Workspace, folder: Path, number: int, fold: Fold) -> None:
    """Write probabilities that are right, but for the first case."""
    run = _plans(tiny_run.class_config(fold=number, cases=fold.model_dump(mode="json")), CLASSIFIED)
    run.save(folder / "run.json")
    dataset, scheme = Dataset.load(workspace.raw_dataset(CLASSIFIED)), tiny_run.CLASSES
    targets = targets_from_classes(dataset.classes_of_cases(), fold.val, scheme, Path("labelsTr.csv"))
    wrong = np.array([[name == "p0"] for name in fold.val])
    found = 0.1 + 0.8 * np.where(wrong, 1 - targets, targets)
    (folder / "validation").mkdir(parents=True)
    save_class_probabilities(
        folder / "validation" / "probabilities.npz", CaseProbabilities(fold.val, scheme.names, found)
    )
    save_class_scores(score_classes(fold.val, found, targets, scheme, patients={}), folder / "validation")


def _write_logs(run: RunFolder) -> None:
    for step in (1, 2, 3):
        run.log(step, {"loss": 1 / step, "val_dice": step / 4})
        run.log_timing(step, {"seconds": 2.0})
    save_file({"weight": np.zeros(2, np.float32)}, run.path / "model.safetensors")
    run.finish({"seen_in_pretraining": 0})
