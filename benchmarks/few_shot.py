"""Does pretraining on a site's own images pay with few labels? Real fetal ultrasound, patients kept apart.

    python benchmarks/few_shot.py --data DATA --root WORK --budget 20m

DATA holds ``hc18`` (training_set with outline annotations and the CSV beside it) and ``fetal_planes`` (JPEGs
named PatientNNNNN_PlaneK_...). 30 % of the exams and patients are held out from everything, pretraining too.
From the rest a foundation checkpoint is pretrained without labels (unless it is there already). Then:

- segmentation: for each seed, 20 labelled HC18 images are drawn, and the same recipe is trained from the
  checkpoint and from scratch, and scored on all held-out images (Dice of the head);
- planes: a linear probe (logistic regression on frozen features) is fitted on the planes of the other patients
  and scored on the held-out patients (macro F1), for the checkpoint and for random weights.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from fmseg.cli import type_command
from fmseg.console import print_json, print_table
from fmseg.inference.probes import probe_images
from fmseg.networks.vit import ViT
from fmseg.networks.weights import load_backbone
from fmseg.planning.patients import patients_of
from fmseg.records.dataset import Dataset
from fmseg.records.foundation import Foundation
from fmseg.records.plans import Fold, Plans
from fmseg.records.scores import Scores
from fmseg.sampling.store import Store
from fmseg.workspace import Workspace

HEADS, PLANES, CORPUS = 501, 502, 503
HELD_OUT_SHARE = 0.3
NAME = "few-shot"


def fmseg(root: Path, *arguments: str) -> None:
    """Type one fmseg command; stop if it fails."""
    if code := type_command("--root", str(root), *arguments):
        raise SystemExit(code)


def held_out(dataset: Dataset, seed: int = 0) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the cases of all other patients, those of the held-out patients, and case -> patient."""
    names = [case.name for case in dataset.training_cases()]
    patients = patients_of(dataset, names)[0]
    groups = sorted(set(patients.values()))
    chosen = set(np.random.default_rng(seed).permutation(groups)[: round(HELD_OUT_SHARE * len(groups))])
    rest = [name for name in names if patients[name] not in chosen]
    return rest, [name for name in names if patients[name] in chosen], patients


def prepare(root: Path, data: Path, num_images: int, seeds: int) -> None:
    """Convert, write the corpus list without held-out images, and one fold per seed; then plan and prepare."""
    workspace = Workspace.find(root)
    if not (workspace.raw / f"Dataset{CORPUS}_Corpus").exists():
        fmseg(root, "convert", "hc18", str(data / "hc18"), "-d", str(HEADS))
        fmseg(root, "convert", "fetal_planes", str(data / "fetal_planes"), "-d", str(PLANES))
        write_corpus(workspace)
    write_folds(workspace, num_images, seeds)
    fmseg(root, "plan_and_preprocess", "-d", str(HEADS), str(PLANES), str(CORPUS))


def write_corpus(workspace: Workspace) -> None:
    """Write the unlabelled dataset of all images that are not held out."""
    paths = []
    for number in (HEADS, PLANES):
        dataset = Dataset.load(workspace.raw_dataset(workspace.dataset_name(str(number))))
        allowed = set(held_out(dataset)[0])
        paths += [str(case.images[0]) for case in dataset.training_cases() if case.name in allowed]
    folder = workspace.raw / f"Dataset{CORPUS}_Corpus"
    folder.mkdir(parents=True)
    (folder / "images.txt").write_text("\n".join(paths) + "\n")
    declaration = {"task": "unlabelled", "channel_names": {"0": "ultrasound"}, "images": "images.txt"}
    (folder / "dataset.json").write_text(json.dumps(declaration))


def write_folds(workspace: Workspace, num_images: int, seeds: int) -> None:
    """Write one fold per seed: some labelled images, one per exam, against all held-out images."""
    name = workspace.dataset_name(str(HEADS))
    dataset = Dataset.load(workspace.raw_dataset(name))
    rest, test, patients = held_out(dataset)
    first = {}
    for case in rest:
        first.setdefault(patients[case], case)
    folds = []
    for seed in range(seeds):
        order = np.random.default_rng((1, seed)).permutation(sorted(first.values()))
        folds.append({"train": sorted(order[:num_images].tolist()), "val": test})
    path = workspace.raw_dataset(name) / "splits_final.json"
    path.write_text(json.dumps(folds))


def segmentation_scores(root: Path, seeds: int, recipe: str, settings: list[str]) -> dict[str, list[float]]:
    """Train each seed from the checkpoint and from scratch; return the Dice on the held-out images."""
    workspace, scores = Workspace.find(root), {}
    name = workspace.dataset_name(str(HEADS))
    options = [part for setting in settings for part in ("--set", setting)]
    for init in (NAME, "scratch"):
        for seed in range(seeds):
            fmseg(root, "train", str(HEADS), str(seed), "-r", recipe, "--init", init, *options)
        runs = workspace.results_of(name) / f"{recipe}-{init}__fmsegPlans"
        files = [runs / f"fold_{seed}" / "validation" / "scores.json" for seed in range(seeds)]
        scores[init] = [Scores.load(file).foreground_dice.mean for file in files]
    return scores


def probe_scores(root: Path, seeds: int) -> dict[str, list[float]]:
    """Return the macro F1 of a linear probe on held-out planes, for the checkpoint and for random weights."""
    import torch

    workspace = Workspace.find(root)
    folder = next(workspace.foundations().glob(f"*/{NAME}"))
    vit, card = load_backbone(folder)
    scores = {NAME: [probe(workspace, vit, card)], "random": []}
    for seed in range(seeds):
        torch.manual_seed(seed)
        scores["random"].append(probe(workspace, ViT(card.architecture), card))
    return scores


def probe(workspace: Workspace, vit: ViT, card: Foundation) -> float:
    """Fit a logistic regression on frozen features of the other patients' planes, score the held-out ones."""
    name = workspace.dataset_name(str(PLANES))
    dataset = Dataset.load(workspace.raw_dataset(name))
    store = Store.of(workspace.prepared(name), Plans.load(workspace.prepared(name) / "plans.json"))
    rest, test, patients = held_out(dataset)
    train, val = (tuple(case for case in cases if case in store.cases) for cases in (rest, test))
    fold = Fold(train=train, val=val)
    return probe_images(vit, (card.mean, card.std), store, fold, dataset.classes_of_cases(), patients)["linear_f1"]


def row(what: str, start: str, values: list[float]) -> tuple[object, ...]:
    """Return mean and standard error over the seeds."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return what, start, float(np.mean(values)), error, len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True, help="Workspace to work in; goes on where it was stopped.")
    parser.add_argument("--budget", default="20m", help="Time of the pretraining.")
    parser.add_argument("--images", type=int, default=20, help="Labelled images.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="upernet")
    parser.add_argument("--set", action="append", default=[], help="Passed on to fmseg train.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.root.mkdir(parents=True, exist_ok=True)
    prepare(options.root, options.data, options.images, options.seeds)
    fmseg(options.root, "pretrain", "-d", str(CORPUS), "--name", NAME, "--budget", options.budget)
    dice = segmentation_scores(options.root, options.seeds, options.recipe, options.set)
    f1 = probe_scores(options.root, options.seeds)
    rows = [row(f"Dice, {options.images} labelled images", start, values) for start, values in dice.items()]
    rows += [row("macro F1, linear probe of planes", start, values) for start, values in f1.items()]
    columns = ("score", "start", "mean", "standard error", "runs")
    if options.json:
        print_json({"dice": dice, "macro_f1": f1})
    else:
        print_table("Few labels, held-out patients", columns, rows)


if __name__ == "__main__":
    main()
