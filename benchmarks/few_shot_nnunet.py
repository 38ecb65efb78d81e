"""nnU-Net v2 on the labelled images of few_shot.py, for as much time on the cores as fmseg had.

    python benchmarks/few_shot_nnunet.py --root WORK --minutes 40 [--shrink] [--threads 1]

WORK is the workspace of few_shot.py or of the pretraining rig: each fold's training images become a dataset of
nnU-Net's, which plans and trains its 2D network on all of them, and predicts the fold's held-out images. --shrink
gives it images and labels of fmseg's prepared size, on which its steps are several times as fast; its predictions are
scored on the original grid either way. --minutes is the time of the training alone, summed over the cores that it
had, so that a busy machine gives it no less.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
from few_shot import HEADS, row
from peers import NUMBER, Bench, need_nnunet

from fmseg.console import print_json, print_table
from fmseg.imaging.metrics import score_case
from fmseg.imaging.readers import read_case, read_label
from fmseg.planning.folds import load_folds
from fmseg.records.dataset import CaseFiles, Dataset
from fmseg.records.plans import Plans
from fmseg.workspace import Workspace

TRAINING = Path(__file__).with_name("nnunet_training.py")


def write(folder: Path, case: CaseFiles, size: tuple[int, int] | None, *, training: bool) -> None:
    """Write a case as PNGs under nnU-Net's names, at ``size`` (height, width) or as it is."""
    image = read_case(case).voxels[0, 0]
    where = folder / ("imagesTr" if training else "imagesTs")
    cv2.imwrite(str(where / f"{case.name}_0000.png"), resized(image, size, cv2.INTER_AREA))
    if training and case.label is not None:
        label = read_label(case.label)[0][0].astype(np.uint8)
        cv2.imwrite(str(folder / "labelsTr" / f"{case.name}.png"), resized(label, size, cv2.INTER_NEAREST))


def resized(array: np.ndarray, size: tuple[int, int] | None, how: int) -> np.ndarray:
    """Return (h, w) at another size (height, width), or as it is."""
    return array if size is None else cv2.resize(array, size[::-1], interpolation=how)


def write_dataset(place: Bench, training: list[CaseFiles], test: list[CaseFiles], size: tuple[int, int] | None) -> None:
    """Write the raw dataset of one fold, in place of the fold before."""
    for folder in (place.raw, place.prepared("nnunet"), place.root / "nnunet_results", place.root / "predicted"):
        shutil.rmtree(folder, ignore_errors=True)
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (place.raw / name).mkdir(parents=True)
    for case in training:
        write(place.raw, case, size, training=True)
    for case in test:
        write(place.raw, case, size, training=False)
    declaration = {"channel_names": {"0": "ultrasound"}, "labels": {"background": 0, "head": 1}, "file_ending": ".png"}
    (place.raw / "dataset.json").write_text(json.dumps(declaration | {"numTraining": len(training)}))


def run_fold(place: Bench, minutes: float) -> float:
    """Plan, train and predict; return the minutes on the cores of the training."""
    place.nnunet("nnUNetv2_plan_and_preprocess", "-d", NUMBER, "-c", "2d", "-np", "1", "--no_pbar")
    measured = place.nnunet("python", str(TRAINING), NUMBER, str(minutes))
    print((place.root / "log.txt").read_text().splitlines()[-1], file=sys.stderr)
    options = ["-d", NUMBER, "-c", "2d", "-f", "all", "-device", "cpu", "-npp", "1", "-nps", "1"]
    place.nnunet("nnUNetv2_predict", "-i", str(place.raw / "imagesTs"), "-o", str(place.root / "predicted"), *options)
    return measured.core_seconds / 60


def dice(place: Bench, test: list[CaseFiles], dataset: Dataset) -> float:
    """Return the mean Dice of the head, on the grid of the labels."""
    scores = []
    for case in test:
        assert case.label is not None
        reference, geometry = read_label(case.label)
        found = cv2.imread(str(place.root / "predicted" / f"{case.name}.png"), cv2.IMREAD_UNCHANGED)
        prediction = resized(found, reference.shape[1:], cv2.INTER_NEAREST)[None]
        scores.append(score_case(prediction, reference, dataset.labels, geometry.spacing_mm, None)["head"].dice)
    return float(np.mean(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="workspace with the folds")
    parser.add_argument("--work", type=Path, required=True, help="folder for nnU-Net's files")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--peer-venv", type=Path, default=Path(".venv-nnunet"), help="made there if need be")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    need_nnunet(options.peer_venv)
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
    workspace = Workspace.find(options.root)
    name = workspace.dataset_name(str(HEADS))
    dataset = Dataset.load(workspace.raw_dataset(name))
    plans = Plans.load(workspace.prepared(name) / "plans.json")
    folds = load_folds(workspace.prepared(name) / "splits_final.json")
    cases = {case.name: case for case in dataset.training_cases()}
    place = Bench(options.work.absolute(), options.peer_venv.absolute())
    place.root.mkdir(parents=True, exist_ok=True)
    values, minutes = [], []
    for fold in (folds[index] for index in options.folds):
        test = [cases[case] for case in fold.val]
        size = plans.preprocessing.image_size if options.shrink else None
        write_dataset(place, [cases[case] for case in fold.train], test, size)
        minutes.append(run_fold(place, options.minutes))
        values.append(dice(place, test, dataset))
        print(f"Dice {values[-1]:.4f} after {minutes[-1]:.1f} min on the cores", file=sys.stderr)
    if options.json:
        print_json({"dice": values, "minutes": minutes})
    else:
        columns = ("score", "start", "mean", "standard error", "runs")
        print_table("nnU-Net, few labels, held-out patients", columns, [row("Dice", "nnU-Net", values)])


if __name__ == "__main__":
    main()
