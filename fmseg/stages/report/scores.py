"""The chapter on scores: what was chosen and why, class by class, case by case."""

from collections.abc import Sequence

import numpy as np

from fmseg.inference.calibration import NUM_BINS
from fmseg.inference.outcome import Outcome
from fmseg.planning.planner import DEFAULT_NAME
from fmseg.records.scores import ClassificationScores, Interval, Scores
from fmseg.reporting.charts import Span, reliability, spans, spreads
from fmseg.reporting.page import Block, Cell, Figure, Figures, Matrix, Section, Table

#: rows of the table of cases; the others are in scores.json
MOST_ROWS = 2000
#: classes that a confusion matrix stays legible with
MOST_CLASSES = 20


def section(outcome: Outcome) -> Section | None:
    """Return the chapter; None where nothing is scored."""
    if outcome.pooled is None:
        return None
    figures = _candidates(outcome)
    if isinstance(outcome.pooled, Scores):
        blocks = _of_label_maps(outcome.pooled, outcome, figures)
    else:
        blocks = _of_classes(outcome.pooled, outcome, figures)
    because = (
        f"The choice: {without_plans(outcome.selection.because)}." if outcome.selection else "Nothing is chosen yet."
    )
    lead = f"{because} Intervals are 95 %, from 1,000 resamplings of the patients."
    return Section("Scores", lead, tuple(blocks))


def without_plans(text: str) -> str:
    """Return a text with the names of runs as people type them: ``upernet__fmsegPlans`` is upernet."""
    return text.replace(f"__{DEFAULT_NAME}", "")


def _candidates(outcome: Outcome) -> list[Figure]:
    if outcome.selection is None or len(outcome.selection.candidates) < 2:
        return []
    measure, best = outcome.selection.measure, outcome.selection.candidates[0]
    rows = [_span(without_plans(each.name), each.score, is_strong=each is best)
            for each in outcome.selection.candidates]  # fmt: skip
    told = ", ".join(f"{row.name} {row.middle:.3f}" for row in rows)
    caption = "Every finished recipe, and their ensemble. Where intervals overlap widely, the order may be chance."
    chart = spans(rows, alt=f"{measure} of all candidates: {told}.", unit=measure)
    return [Figure("What was compared", caption, chart)]


def _of_label_maps(pooled: Scores, outcome: Outcome, figures: list[Figure]) -> list[Block]:
    names = [name for name, means in pooled.mean.items() if "dice" in means]
    if names:
        rows = [_span(name, pooled.mean[name]["dice"], is_strong=True) for name in names]
        told = ", ".join(f"{row.name} {row.middle:.3f}" for row in rows)
        figures.append(Figure("Dice of each class", "Mean over the cases, with its interval.",
                              spans(rows, alt=f"Dice of each class: {told}.", unit="Dice")))  # fmt: skip
        values = [np.array([case.classes[name].dice for case in pooled.cases if case.classes[name].dice is not None])
                  for name in names]  # fmt: skip
        low = min(float(each.min()) for each in values)
        caption = "Dice case by case: bar the middle half, line 5 to 95 %, a dot each of the others."
        chart = spreads(names, values, unit="Dice", alt=f"Dice of the cases, the lowest {low:.3f}.")
        figures.append(Figure("How the cases are spread", caption, chart))
    unit = pooled.distance_unit
    columns = ("class", "Dice", "95 % interval", "IoU", f"HD95, {unit}", f"NSD at {pooled.nsd_tolerance:g} {unit}")
    rows_of = [(name, *_mean_cells(means)) for name, means in pooled.mean.items()]
    table = Table("Class by class", columns, tuple(rows_of), pooled.empty_rule)
    return [Figures(tuple(figures)), table, _cases_of_maps(pooled, outcome)]


def _mean_cells(means: dict[str, Interval]) -> tuple[Cell, ...]:
    found = {key: value.mean for key, value in means.items()}
    dice = means.get("dice")
    interval = f"{dice.low:.3f} to {dice.high:.3f}" if dice else None
    return found.get("dice"), interval, found.get("iou"), found.get("hd95"), found.get("nsd")


def _cases_of_maps(pooled: Scores, outcome: Outcome) -> Table:
    names = list(pooled.mean)
    rows = sorted(
        ((case.case, outcome.fold_of.get(case.case), case.mean_dice, *(case.classes[name].dice for name in names),
          max((each.hd95 for each in case.classes.values() if each.hd95 is not None), default=None))
         for case in pooled.cases),
        key=lambda row: (row[2] is None, row[2] or 0.0),
    )  # fmt: skip
    columns = ("case", "fold", "Dice", *(f"Dice {name}" for name in names), f"HD95, {pooled.distance_unit}")
    if len(names) == 1:
        columns = (*columns[:3], columns[-1])
        rows = [(*row[:3], row[-1]) for row in rows]
    return _capped("All cases, worst first", columns, rows)


def _of_classes(pooled: ClassificationScores, outcome: Outcome, figures: list[Figure]) -> list[Block]:
    rows = [_span(name, value, is_strong=name == "macro F1") for name, value in pooled.intervals.items()]
    told = ", ".join(f"{row.name} {row.middle:.3f}" for row in rows)
    figures.append(Figure("Five views of the same answers", "Means over the classes, with their intervals.",
                          spans(rows, alt=f"{told}.", unit="score")))  # fmt: skip
    if pooled.confusion:
        figures.append(_calibration(pooled))
    columns, cells = pooled.table()
    blocks: list[Block] = [Figures(tuple(figures))]
    if pooled.confusion and len(pooled.classes) <= MOST_CLASSES:
        note = "A row each true class, a column each class that was predicted; darker is a larger share of the row."
        blocks.append(Matrix("What is taken for what", pooled.classes, pooled.confusion, note))
    blocks.append(Table("Class by class", columns, tuple(tuple(_cell(each) for each in row) for row in cells),
                        pooled.absent_rule))  # fmt: skip
    wrong = sorted((case for case in pooled.cases if case.label != case.predicted), key=lambda case: -case.confidence)
    lines = [(case.case, outcome.fold_of.get(case.case), case.label, case.predicted, case.confidence) for case in wrong]
    columns = ("case", "fold", "label", "predicted", "confidence")
    return [*blocks, _capped(f"All {len(wrong):,} mistakes, the surest first", columns, lines)]


def _calibration(pooled: ClassificationScores) -> Figure:
    sure = np.array([case.confidence for case in pooled.cases])
    right = np.array([case.label == case.predicted for case in pooled.cases])
    bins = np.minimum((sure * NUM_BINS).astype(int), NUM_BINS - 1)
    there = [number for number in range(NUM_BINS) if (bins == number).any()]
    found = [(float(sure[bins == each].mean()), float(right[bins == each].mean()), int((bins == each).sum()))
             for each in there]  # fmt: skip
    confidence, accuracy, counts = zip(*found, strict=True)
    caption = (
        f"Share of right answers by confidence; on the dashed line they agree. Off by {pooled.calibration_error:.3f} "
        "on average."
    )
    alt = f"Accuracy against confidence; expected calibration error {pooled.calibration_error:.3f}."
    return Figure("Whether confidence can be trusted", caption, reliability(confidence, accuracy, counts, alt=alt))


def _capped(title: str, columns: tuple[str, ...], rows: Sequence[tuple[Cell, ...]]) -> Table:
    note = f"The first {MOST_ROWS:,} of {len(rows):,}; scores.json has all." if len(rows) > MOST_ROWS else ""
    return Table(title, columns, tuple(rows[:MOST_ROWS]), note, is_folded=len(rows) > 12)


def _span(name: str, value: Interval, *, is_strong: bool) -> Span:
    return Span(name, value.mean, value.low, value.high, is_strong)


def _cell(value: object) -> Cell:
    return value if isinstance(value, str | int | float) or value is None else str(value)
