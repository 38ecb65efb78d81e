"""What a benchmark came to: the paper's Table 1 (mean and standard error), and Figure 1b (score by number of labels).

Rows are starting points; a baseline, whose network no foundation checkpoint is of, is a row of its own. Columns are
dataset and regime, and the recipe where several of them take a starting point.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from fmseg.files import write_bytes
from fmseg.records.benchmark import BenchmarkScore
from fmseg.records.fingerprint import Fingerprint
from fmseg.reporting.curves import COLOURS, FAINT, INK

SCRATCH = "scratch"
MARKERS = "os^Dvp*X"

#: method -> regime -> scores of its splits
Lines = dict[str, dict[str, list[BenchmarkScore]]]
#: (dataset, tested on, recipe, measure) -> lines
Panels = dict[tuple[str, str, str, str], Lines]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table."""

    dataset: str
    tested_on: str
    regime: str
    #: empty where one recipe alone takes a starting point
    recipe: str
    measure: str

    @property
    def head(self) -> tuple[str, str, str]:
        """The head of the column: what is learned from and tested on, how much of it, and how."""
        where = _short(self.dataset)
        if self.tested_on != self.dataset:
            where += f" to {_short(self.tested_on)}"
        return where, self.regime, self.recipe

    @property
    def title(self) -> str:
        """The head in one line."""
        return " ".join(part for part in self.head if part)


@dataclass(frozen=True, slots=True)
class Cell:
    """Scores of some splits; in per cent where they are printed."""

    mean: float
    #: standard error of the mean; None for a single split
    error: float | None
    count: int
    #: splits that there will be
    expected: int


@dataclass(frozen=True, slots=True)
class BenchmarkTable:
    """Table 1."""

    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: Mapping[tuple[str, Column], Cell]
    #: what must be said beside it, a sentence each
    notes: tuple[str, ...]

    def best(self, column: Column) -> str | None:
        """Return the row with the highest mean of a column; None where there is nothing to compare."""
        found = {row: self.cells[row, column].mean for row in self.rows if (row, column) in self.cells}
        return max(found, key=lambda row: found[row]) if len(found) > 1 else None


def summarise(
    scores: Sequence[BenchmarkScore],
    expected: Mapping[tuple[str, str], int],
    measured: Mapping[str, Fingerprint],
) -> BenchmarkTable:
    """Return the table of some scores. expected: (dataset, regime) -> number of splits, once all are there.

    measured: dataset -> what says whose its images are.
    """
    placed: dict[tuple[str, Column], list[float]] = {}
    rows: dict[str, None] = {}
    columns: dict[Column, None] = {}
    for score, row, column in _placed(scores):
        rows.setdefault(row)
        columns.setdefault(column)
        placed.setdefault((row, column), []).append(score.score.mean)
    cells = {
        key: Cell(
            *mean_and_error(values), len(values), max(len(values), expected.get((key[1].dataset, key[1].regime), 0))
        )
        for key, values in placed.items()
    }
    ordered = sorted(columns, key=lambda each: _order(each, list(expected)))
    return BenchmarkTable(tuple(rows), tuple(ordered), cells, tuple(_notes(scores, measured)))


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error, None for one value."""
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), error


def draw_label_curves(scores: Sequence[BenchmarkScore], picture: Path, table: Path) -> None:
    """Draw Figure 1b: a panel for each dataset and recipe, a line for each row, score by number of labelled images."""
    panels: Panels = {}
    for score, row, column in _placed(scores):
        key = (column.dataset, column.tested_on, column.recipe, column.measure)
        panels.setdefault(key, {}).setdefault(row, {}).setdefault(score.regime, []).append(score)
    write_bytes(table, _points_csv(panels).encode())
    write_bytes(picture, _draw(panels))


def _placed(scores: Sequence[BenchmarkScore]) -> Iterable[tuple[BenchmarkScore, str, Column]]:
    """Yield each score with its row and column."""
    for score in scores:
        others = [each.recipe for each in scores if each.dataset == score.dataset and each.takes_foundation]
        recipes = list(dict.fromkeys(others))
        if score.takes_foundation:
            row, recipe = score.start, score.recipe if len(recipes) > 1 else ""
        else:
            # a baseline stands in the columns of the first recipe that takes a starting point
            row, recipe = f"{score.recipe}, {score.start}", recipes[0] if len(recipes) > 1 else ""
        yield score, row, Column(score.dataset, score.tested_on, score.regime, recipe, score.measure)


def _order(column: Column, regimes: Sequence[tuple[str, str]]) -> tuple[Any, ...]:
    key = (column.dataset, column.regime)
    place = regimes.index(key) if key in regimes else len(regimes)
    return column.dataset, column.recipe, column.tested_on != column.dataset, column.tested_on, place


def _notes(scores: Sequence[BenchmarkScore], measured: Mapping[str, Fingerprint]) -> Iterable[str]:
    if not scores:
        yield "No run has come to its end yet."
        return
    yield (
        "Mean and standard error over the splits, in per cent; the score is "
        + ", ".join(
            f"{measure} for {', '.join(sorted({_short(each.dataset) for each in scores if each.measure == measure}))}"
            for measure in dict.fromkeys(each.measure for each in scores)
        )
        + "."
    )
    for name in dict.fromkeys(score.dataset for score in scores):
        yield f"{_short(name)}: {_kept_apart(measured[name])}."
    seen: dict[tuple[str, str], int] = {}
    for score in scores:
        if score.seen_in_pretraining:
            key = (score.start, score.tested_on)
            seen[key] = max(seen.get(key, 0), score.seen_in_pretraining)
    for (start, name), count in seen.items():
        yield f"{start} had met up to {count} test images of {_short(name)} in its pretraining, without their labels."
    left: dict[str, int] = {}
    for score in scores:
        left[score.tested_on] = max(left.get(score.tested_on, 0), score.left_out)
    for name, count in left.items():
        if count:
            why = "trained on, unreadable, unlabelled, or of unknown classes"
            yield f"{_short(name)}: up to {count} images were left out: {why}."


def _kept_apart(known: Fingerprint) -> str:
    """Return who is not on both sides, and what that is known from."""
    source = known.patient_source
    if not known.patients_declared:
        return f"nobody has declared whose the images are, so a patient may be trained and tested on ({source})"
    return f"no {known.patient_unit} is trained and tested on, by {source}"


def _points_csv(panels: Panels) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("dataset", "tested on", "recipe", "measure", "method", "regime", "labelled cases")
    writer.writerow((*names, "mean", "standard error", "splits"))
    for key, lines in panels.items():
        for row, regimes in lines.items():
            for regime, found in regimes.items():
                labels = float(np.mean([each.num_train_cases for each in found]))
                mean, error = mean_and_error([each.score.mean for each in found])
                writer.writerow((*key, row, regime, labels, mean, "" if error is None else error, len(found)))
    return text.getvalue()


def _draw(panels: Panels) -> bytes:
    from matplotlib.figure import Figure

    # a single regime is no curve, unless nothing else is there
    curves = {key: lines for key, lines in panels.items() if max(map(len, lines.values())) > 1} or panels
    names = list(dict.fromkeys(row for lines in panels.values() for row in lines))
    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(5.2 * columns, 0.8 + 4 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[len(curves) :]:
        axis.set_axis_off()
    handles: dict[str, Any] = {}
    for axis, (key, lines) in zip(axes, curves.items(), strict=False):
        _draw_panel(axis, key, lines, names)
        handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True)) | handles
    shown = [name for name in names if name in handles]
    figure.legend(
        [handles[name] for name in shown], shown, loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _draw_panel(axis: Any, key: tuple[str, str, str, str], lines: Lines, names: Sequence[str]) -> None:
    """Draw one dataset; a method has the same colour and mark in all panels."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    dataset, tested_on, recipe, measure = key
    ticks = set()
    for row, regimes in lines.items():
        number, dashes = names.index(row), ":" if row.endswith(SCRATCH) else "-"
        # samples of few patients do not lie within those of many: they are points beside the curve
        of_patients = {name for name in regimes if name.startswith("p=")}
        for chosen, style in ((regimes.keys() - of_patients, dashes), (of_patients, "none")):
            if not chosen:
                continue
            points = sorted(_point(regimes[name]) for name in chosen)
            x, y, error = (np.array(column) for column in zip(*points, strict=True))
            ticks |= set(x.tolist())
            axis.errorbar(
                *(x, 100 * y, 100 * error),
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                markerfacecolor="none" if style == "none" else None,
                linestyle=style,
                capsize=3,
                label=row,
            )
    axis.set_xscale("log")
    axis.set_xticks(sorted(ticks))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    where = _short(dataset) + ("" if tested_on == dataset else f", tested on {_short(tested_on)}")
    axis.set_title(" ".join(part for part in (where, recipe) if part), fontsize=10, color=INK)
    axis.set_xlabel("labelled cases")
    axis.set_ylabel(f"{measure} [%]")
    axis.grid(color=FAINT, lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _point(scores: Sequence[BenchmarkScore]) -> tuple[float, float, float]:
    """Return labelled cases, mean score and standard error (NaN for one split) of a regime."""
    mean, error = mean_and_error([each.score.mean for each in scores])
    return float(np.mean([each.num_train_cases for each in scores])), mean, math.nan if error is None else error


def _short(name: str) -> str:
    """Return a dataset's name without its number."""
    return name.split("_", 1)[-1]
