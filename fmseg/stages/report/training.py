"""The chapter on training: how each fold learned."""

import json
from collections.abc import Sequence

import numpy as np

from fmseg.console import duration
from fmseg.files import read_lines
from fmseg.inference.outcome import FoldOutcome, Outcome
from fmseg.reporting.charts import Line, lines
from fmseg.reporting.curves import read_curves, smoothed
from fmseg.reporting.page import Block, Figure, Figures, Section, Table

SCORES = {"val_dice": "Dice", "val_macro_f1": "macro F1"}


def section(outcome: Outcome, number: int) -> Section:
    """Return the chapter. number: of the dataset."""
    if not outcome.folds:
        return Section("Training", f"Nothing is trained yet. Type: fmseg train {number}", ())
    blocks: list[Block] = []
    figures = [*_losses(outcome.chosen), *_validations(outcome.chosen)]
    if figures:
        blocks.append(Figures(tuple(figures)))
    blocks.append(_table(outcome.folds))
    lead = (
        f"{len(outcome.folds)} folds are trained; {len(outcome.chosen)} of them predict. How they began: "
        f"{outcome.chosen[0].config.init.because}."
    )
    return Section("Training", lead, tuple(blocks))


def seconds_of(fold: FoldOutcome) -> float:
    """Return the time that a fold's training took, 0 where nobody has noted it."""
    return sum(json.loads(line).get("seconds", 0.0) for line in read_lines(fold.run.timing))


def _losses(folds: Sequence[FoldOutcome]) -> list[Figure]:
    curves = []
    for fold in folds:
        found = read_curves(fold.run.metrics)
        if "loss" in found and len(found["loss"][0]) > 1:
            steps, values = found["loss"]
            curves.append(Line("", steps, smoothed(values), "quiet"))
    if not curves:
        return []
    mean = _mean(curves)
    alt = f"Training loss falls from {mean.y[0]:.3g} to {mean.y[-1]:.3g}."
    return [
        Figure("Training loss", "A thin line each fold, and their mean, smoothed.", lines([*curves, mean], alt=alt))
    ]


def _validations(folds: Sequence[FoldOutcome]) -> list[Figure]:
    for key, measure in SCORES.items():
        found = [read_curves(fold.run.metrics).get(key) for fold in folds]
        curves = [Line("", steps, values, "quiet") for curve in found if curve for steps, values in [curve]]
        if not curves:
            continue
        mean = _mean(curves)
        alt = f"{measure} of validation cases while training ends at {mean.y[-1]:.3f} on average."
        caption = (
            f"{measure} of some validation cases on the way, quick and without mirroring; the scores below are final."
        )
        return [Figure("Validation", caption, lines([*curves, mean], alt=alt))]
    return []


def _mean(curves: Sequence[Line]) -> Line:
    """Return the mean of curves at the steps of the longest one that all of them reach."""
    end = min(float(curve.x[-1]) for curve in curves)
    steps = max((curve.x for curve in curves), key=len)
    steps = steps[steps <= end]
    values = np.mean([np.interp(steps, curve.x, curve.y) for curve in curves], axis=0)
    return Line("mean", steps, values)


def _table(folds: Sequence[FoldOutcome]) -> Table:
    measure = folds[0].scores.headline[0]
    rows = []
    for fold in folds:
        _, value = fold.scores.headline
        took = seconds_of(fold)
        rows.append((fold.runs.partition("__")[0], fold.number, len(fold.config.cases.train), len(fold.scores.cases),
                     value.mean, value.low, value.high, duration(took) if took else None))  # fmt: skip
    columns = ("recipe", "fold", "trained on", "validated", measure, "from", "to", "training took")
    return Table("Fold by fold", columns, tuple(rows), "Scores are of patients that the fold was not trained on.")
