"""Scores: per case and class, and what they come to. Saved with nnU-Net's keys, plus ours."""

import math
from typing import ClassVar

from fmseg.records.record import Part, Record


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
    distance_unit: str
    nsd_tolerance: float
    #: how empty masks count, in words
    empty_rule: str

    def nnunet_summary(self) -> dict:
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
        }
