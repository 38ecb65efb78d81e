"""Scores of all trials against the samples seen and the minutes taken."""

import json
from pathlib import Path

from matplotlib.figure import Figure

from fmseg.files import read_lines

SCORES = {
    "linear_f1": "linear probe, macro F1",
    "knn_f1": "kNN, macro F1",
    "patch_dice": "linear map of patches, Dice",
    "few_shot_dice": "20 labelled images, Dice",
}


def draw(table: Path, picture: Path) -> None:
    """Draw each trial as a point, the mean of random weights as a line."""
    rows = [json.loads(line) for line in read_lines(table)]
    scores = {score: title for score, title in SCORES.items() if any(score in row for row in rows)}
    figure = Figure(figsize=(4 * len(scores), 7), layout="constrained")
    axes = figure.subplots(2, len(scores), squeeze=False)
    for column, (score, title) in enumerate(scores.items()):
        for row, (measure, label) in enumerate((("samples", "samples seen"), ("minutes", "minutes"))):
            _panel(axes[row, column], [each for each in rows if score in each], score, measure)
            axes[row, column].set(xlabel=label, ylabel=title)
            axes[row, column].set_xlim(0, 1.08 * max(each[measure] for each in rows))
    handles = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(picture, dpi=100)


def _panel(axis: object, rows: list[dict], score: str, measure: str) -> None:
    names = dict.fromkeys(row["name"] for row in rows)
    for index, name in enumerate(names):
        mine = [row for row in rows if row["name"] == name]
        if name.startswith("random"):
            axis.axhline(sum(row[score] for row in mine) / len(mine), color="grey", ls=":", label=name)  # type: ignore[attr-defined]
        else:
            x, y = [row[measure] for row in mine], [row[score] for row in mine]
            axis.plot(x, y, "os^Dv"[index % 5], label=name, alpha=0.8)  # type: ignore[attr-defined]
