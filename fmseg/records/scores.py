"""Scores: per case and class, and what they come to. Those of label maps are summed up as by nnU-Net, too."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from pydantic import Field

from fmseg.records.labels import LabelScheme
from fmseg.records.record import Part, Record
from fmseg.records.seen import Seen

#: what lies in no class or region
BACKGROUND = "background"
#: columns and rows
Table = tuple[tuple[str, ...], list[tuple[object, ...]]]


class Interval(Part):
    """A mean with its 95 % bootstrap interval over patients."""

    mean: float
    low: float
    high: float


class ClassScore(Part):
    """Scores of one class on one case. None where a measure is undefined (a mask is empty)."""

    dice: float | None
    iou: float | None
    #: in ``Scores.distance_unit``
    hd95: float | None
    #: likewise; None in scores that are older than this measure, too
    assd: float | None = None
    nsd: float | None
    tp: int
    fp: int
    fn: int
    tn: int


class CaseScore(Part):
    """Scores of one case."""

    case: str
    patient: str
    classes: dict[str, ClassScore]
    #: tp, fp, fn of the pixels in no class or region; None where they were not counted
    background: tuple[int, int, int] | None = None

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice over the classes where it is defined."""
        values = [score.dice for score in self.classes.values() if score.dice is not None]
        return sum(values) / len(values) if values else None


class Scores(Record):
    """Scores of a set of predictions against their labels."""

    VERSION: ClassVar[int] = 1

    cases: tuple[CaseScore, ...]
    #: class -> measure -> mean over the cases where it is defined
    mean: dict[str, dict[str, Interval]]
    #: over the classes, per image and pooled over all pixels of the set
    foreground_dice: Interval
    pooled_foreground_dice: float
    pooled_dice_with_background: float
    #: class -> Dice pooled over all pixels, ``BACKGROUND`` among them; a class that is nowhere is left out, and in
    #: scores that are older than this all are
    pooled_dice: dict[str, float] = Field(default_factory=dict)
    distance_unit: str
    nsd_tolerance: float
    #: how empty masks count, in words
    empty_rule: str
    #: what the models had met of the cases, as ``predict`` noted it; None where nobody has
    seen: Seen | None = None

    @property
    def headline(self) -> tuple[str, Interval]:
        """The one figure that runs are compared by, and its name."""
        return "Dice", self.foreground_dice

    @property
    def intervals(self) -> dict[str, Interval]:
        """Dice over all classes, and of each one where there are several, with what it would be of other patients."""
        each = {f"Dice of {name}": means["dice"] for name, means in self.mean.items() if "dice" in means}
        return {"Dice": self.foreground_dice} | (each if len(each) > 1 else {})

    def table(self) -> Table:
        """Return columns and rows for people."""
        measures = ("dice", "iou", "hd95", "assd", "nsd")
        rows: list[tuple[object, ...]] = [
            (name, *(means[m].mean if m in means else None for m in measures), self.pooled_dice.get(name))
            for name, means in self.mean.items()
        ]
        unit = self.distance_unit
        return ("class", "Dice", "IoU", f"HD95 [{unit}]", f"ASSD [{unit}]", "NSD", "pooled Dice"), rows

    def summary(self, scheme: LabelScheme, files: Mapping[str, tuple[Path, Path]]) -> dict[str, Any]:
        """Return the content of a summary.json as nnU-Net's: classes by their values, what is undefined as NaN.

        files: case -> its label map and its prediction, of which the names are kept. A class that is nowhere counts in
        no foreground mean, and a set without any has 1 there; nnU-Net has NaN for both.
        """
        keys = {name: _key(values) for name, values in zip(scheme.names, scheme.values, strict=True)}
        per_case = [
            {
                "case": case.case,
                "metrics": {keys[name]: _metrics(score) for name, score in case.classes.items()},
                "reference_file": files[case.case][0].name,
                "prediction_file": files[case.case][1].name,
            }
            for case in self.cases
        ]
        found = {key: [_metrics(case.classes[name]) for case in self.cases] for name, key in keys.items()}
        mean = {key: _means(rows, nothing=math.nan) for key, rows in found.items()}
        foreground = _means(list(mean.values()), nothing=1.0) | {"Dice": self.foreground_dice.mean}
        summary = {"foreground_mean": foreground, "mean": mean, "metric_per_case": per_case}
        return summary | ({"seen": self.seen.model_dump(mode="json")} if self.seen else {})


def _key(values: tuple[int, ...]) -> str:
    """Return what nnU-Net calls a class, or a region of several values."""
    return str(values[0]) if len(values) == 1 else str(values)


def _metrics(score: ClassScore) -> dict[str, float]:
    """Return the measures of one class on one case under nnU-Net's names."""
    dice, iou = (math.nan if value is None else value for value in (score.dice, score.iou))
    counts = {"TP": score.tp, "FP": score.fp, "FN": score.fn, "TN": score.tn}
    return {"Dice": dice, "IoU": iou} | counts | {"n_pred": score.tp + score.fp, "n_ref": score.tp + score.fn}


def _means(rows: Sequence[Mapping[str, float]], *, nothing: float) -> dict[str, float]:
    """Return the mean of each measure over the rows where it is defined; ``nothing`` where it is in none."""
    defined = {name: [row[name] for row in rows if not math.isnan(row[name])] for name in rows[0]}
    return {name: fmean(values) if values else nothing for name, values in defined.items()}


class ClassMeasures(Part):
    """How well one class of whole cases is told. None where a measure is undefined (see the rule for absent ones)."""

    #: cases that are of this class
    support: int
    precision: float | None
    recall: float | None
    f1: float | None
    auroc: float | None
    #: average precision: the area under precision by recall
    auprc: float | None


class ClassifiedCase(Part):
    """One case: what it is and what it was taken for; several classes have semicolons between them."""

    case: str
    patient: str
    label: str
    predicted: str
    #: mean probability of what was decided
    confidence: float


class ClassificationScores(Record):
    """Scores of predicted classes against labels."""

    VERSION: ClassVar[int] = 1

    classes: tuple[str, ...]
    cases: tuple[ClassifiedCase, ...]
    #: means over the classes
    macro_f1: Interval
    balanced_accuracy: Interval
    auroc: Interval | None
    auprc: Interval | None
    #: share of the cases that are told without a fault
    accuracy: Interval
    #: expected calibration error of the confidences, in 15 bins
    calibration_error: float
    per_class: dict[str, ClassMeasures]
    #: rows the labels, columns the predictions, in the order of ``classes``; empty where a case has several classes
    confusion: tuple[tuple[int, ...], ...]
    #: how classes without a case count, in words
    absent_rule: str
    #: see ``Scores.seen``
    seen: Seen | None = None

    @property
    def headline(self) -> tuple[str, Interval]:
        """The one figure that runs are compared by, and its name."""
        return "macro F1", self.macro_f1

    @property
    def intervals(self) -> dict[str, Interval]:
        """The figures over all classes that are defined, with what they would be of other patients."""
        measures = {
            "macro F1": self.macro_f1,
            "balanced accuracy": self.balanced_accuracy,
            "accuracy": self.accuracy,
            "AUROC": self.auroc,
            "AUPRC": self.auprc,
        }
        return {name: value for name, value in measures.items() if value is not None}

    def table(self) -> Table:
        """Return columns and rows for people: each class, then the means."""
        measures = ("f1", "precision", "recall", "auroc", "auprc")
        rows: list[tuple[object, ...]] = [
            (name, each.support, *(getattr(each, measure) for measure in measures))
            for name, each in self.per_class.items()
        ]
        auroc, auprc = (each and each.mean for each in (self.auroc, self.auprc))
        rows.append(("mean", len(self.cases), self.macro_f1.mean, None, self.balanced_accuracy.mean, auroc, auprc))
        return ("class", "cases", "F1", "precision", "recall", "AUROC", "AUPRC"), rows

    def summary(self) -> dict[str, Any]:
        """Return the content of summary.json: the figures without the cases."""
        return self.model_dump(mode="json", exclude={"cases"})
