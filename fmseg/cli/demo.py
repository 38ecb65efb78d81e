"""The whole job on made ultrasound phantoms, as a user would type it.

It stands with the command line because it only types commands: each is printed, then run in this process.
Typed again, it goes on where it was stopped, as every command does.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from fmseg.cli.frame import type_command
from fmseg.console import duration, print_line, print_table
from fmseg.errors import FmsegError
from fmseg.files import write_bytes, write_json
from fmseg.records.dataset import Dataset
from fmseg.records.scores import Scores
from fmseg.workspace import Workspace

LABELLED, UNLABELLED = "Dataset901_Phantoms", "Dataset902_PhantomsUnlabelled"
#: enough to see the idea work on two cores in some minutes; leave them out to use the planned numbers. In trials
#: small batches learned more in the same time, and a decoder of half the planned width learned as much.
QUICK = ("iterations=320", "batch_size=2", "decoder_channels=32", "validation_interval=160")
NUM_FOLDS = 3
#: what fmseg calls the checkpoint; named, since after so short a pretraining --init auto may prefer scratch
CHECKPOINT = "d901-d902"
PRETRAINING = "75s"
PICTURE = "predictions.png"


@dataclass(frozen=True, slots=True)
class Story:
    """What the demo came to."""

    folder: Path
    seconds: float
    #: starting point -> out-of-fold Dice of each fold
    dice: dict[str, list[float]]
    test: Scores

    def as_dict(self) -> dict[str, object]:
        """Return the figures for ``--json``."""
        return {
            "folder": str(self.folder),
            "seconds": round(self.seconds, 1),
            "out_of_fold_dice": self.dice,
            "test_dice": self.test.foreground_dice.mean,
        }

    @property
    def places(self) -> list[tuple[Path, str]]:
        """Files worth opening, and what they show."""
        files = (
            (f"fmseg_results/{LABELLED}/report.html", "all of it on one page, in a browser"),
            (PICTURE, "predictions beside labels"),
            (f"fmseg_results/foundation/ultrasound/{CHECKPOINT}/progress.png", "the pretraining"),
            (f"fmseg_results/foundation/ultrasound/{CHECKPOINT}/features.png", "which patches are alike to it"),
            (f"fmseg_results/foundation/ultrasound/{CHECKPOINT}/card.md", "what it was made from and is worth"),
            (f"fmseg_results/{LABELLED}/upernet-{CHECKPOINT}__fmsegPlans/fold_0/progress.png", "a fold's training"),
            ("predictions/report.csv", "confidence and disagreement of the folds per image"),
        )
        return [(self.folder / file, what) for file, what in files]

    def show(self) -> None:
        """Print the figures, and where to look next."""
        rows = [(start, mean(folds), min(folds), max(folds)) for start, folds in self.dice.items()]
        print_table(
            "Out-of-fold Dice by starting point (mean, worst and best fold)", ("start", "Dice", "worst", "best"), rows
        )
        test = self.test.foreground_dice
        print_line(
            f"Unseen patients: Dice {test.mean:.3f} (95 % interval over patients {test.low:.3f} to {test.high:.3f}). "
            f"The whole job took {duration(self.seconds)}."
        )
        print_line("A demo of minutes shows that the parts work together, not what pretraining is worth.")
        print_line("Look at:")
        for path, what in self.places:
            print_line(f"  {path}  ({what})")
        print_line(f"Ask why: fmseg --root {self.folder} explain -d 901")


def demo(folder: Path) -> Story:
    """Make phantoms in ``folder`` and run the whole job on them."""
    from fmseg.imaging.phantoms import write_phantoms

    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    workspace = Workspace.find(folder)
    write_phantoms(workspace.raw)
    _write_folds(workspace.raw / LABELLED)
    quick = [part for setting in QUICK for part in ("--set", setting)]
    images, labels = workspace.raw / LABELLED / "imagesTs", workspace.raw / LABELLED / "labelsTs"
    predictions = folder / "predictions"
    for arguments in (
        ("plan_and_preprocess", "-d", "901", "902"),
        ("pretrain", "--budget", PRETRAINING),
        ("train", "901", "-r", "upernet", "--init", "scratch", *quick),
        ("train", "901", "-r", "upernet", "--init", CHECKPOINT, *quick),
        ("predict", "-i", str(images), "-o", str(predictions), "--overlays"),
        ("evaluate", "-d", "901", "-i", str(predictions), "-l", str(labels)),
    ):
        _type(folder, arguments)
    _draw(folder, images, labels, predictions)
    dice = {
        title: _fold_dice(workspace.results_of(LABELLED) / f"{runs}__fmsegPlans")
        for title, runs in (
            ("pretrained on its own images", f"upernet-{CHECKPOINT}"),
            ("from scratch", "upernet-scratch"),
        )
    }
    return Story(folder, time.monotonic() - start, dice, Scores.load(predictions / "scores.json"))


def _write_folds(raw: Path) -> None:
    """Write fewer folds than the planner would, to be quick; as everywhere, no patient is in two of them."""
    dataset = Dataset.load(raw)
    patients_of = dataset.patients_of_cases()
    patients = {case.name: patients_of[case.name] for case in dataset.training_cases()}
    number = {patient: index % NUM_FOLDS for index, patient in enumerate(sorted(set(patients.values())))}
    parts = [[case for case, patient in patients.items() if number[patient] == fold] for fold in range(NUM_FOLDS)]
    folds = [{"train": [case for case in patients if case not in val], "val": val} for val in parts]
    write_json(raw / "splits_final.json", folds)


def _type(folder: Path, arguments: tuple[str, ...]) -> None:
    """Type a command. Raises FmsegError if it fails; it has said why."""
    code = type_command("--root", str(folder), *arguments)
    if code:
        raise FmsegError(f"The demo ends here: 'fmseg {arguments[0]}' left with exit code {code}.")


def _fold_dice(runs: Path) -> list[float]:
    files = sorted(runs.glob("fold_*/validation/scores.json"))
    return [Scores.load(file).foreground_dice.mean for file in files]


def _draw(folder: Path, images: Path, labels: Path, predictions: Path) -> None:
    """Draw some unseen phantoms beside label and prediction."""
    from fmseg.imaging.readers import read_label
    from fmseg.reporting.overlays import contact_sheet, overlay

    names = [path.name for path in sorted(labels.glob("*.png"))][::2][:6]
    rows = []
    for name in names:
        image = read_label(images / name.replace(".png", "_0000.png"))[0][0].astype("uint8")
        label, prediction = (read_label(place / name)[0][0] for place in (labels, predictions))
        rows.append((name, [image, overlay(image, label), overlay(image, prediction)]))
    write_bytes(folder / PICTURE, contact_sheet(rows, ("image", "label", "prediction")))
