"""Scores: per case and class, and what they come to. Those of label maps are saved with nnU-Net's keys, plus ours."""

import math
from typing import Any, ClassVar

from pydantic import Field

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

    def table(self) -> Table:
        """Return columns and rows for people."""
        measures = ("dice", "iou", "hd95", "assd", "nsd")
        rows: list[tuple[object, ...]] = [
            (name, *(means[m].mean if m in means else None for m in measures), self.pooled_dice.get(name))
            for name, means in self.mean.items()
        ]
        unit = self.distance_unit
        return ("class", "Dice", "IoU", f"HD95 [{unit}]", f"ASSD [{unit}]", "NSD", "pooled Dice"), rows

    def summary(self) -> dict[str, Any]:
        """Return the content of nnU-Net's summary.json: undefined values are NaN there."""

        def number(value: float | None) -> float:
            return math.nan if value is None else value

        def metrics(score: ClassScore) -> dict[str, float]:
            counts = {"TP": score.tp, "FP": score.fp, "FN": score.fn, "TN": score.tn}
            sums = {"n_pred": score.tp + score.fp, "n_ref": score.tp + score.fn}
            return {"Dice": number(score.dice), "IoU": number(score.iou)} | counts | sums

        per_case = [
            {"case": case.case, "metrics": {name: metrics(score) for name, score in case.classes.items()}}
            for case in self.cases
        ]
        mean = {name: {"Dice": values["dice"].mean, "IoU": values["iou"].mean} for name, values in self.mean.items()}
        return {
            "metric_per_case": per_case,
            "mean": mean,
            "foreground_mean": {"Dice": self.foreground_dice.mean},
        } | ({"seen": self.seen.model_dump(mode="json")} if self.seen else {})


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
