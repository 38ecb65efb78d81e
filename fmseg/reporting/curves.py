"""progress.png: how a run goes, at a glance, drawn from metrics.jsonl, and the speed from timing.jsonl.

Values are sorted into panels by their names: losses, scores of a validation, probes and dimensions of frozen features,
what tells a collapse, learning rate, speed. ``random_x`` is the reference of ``x``, a dashed line of its colour.
"""

import json
import math
from collections.abc import Callable
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from fmseg.files import read_lines, write_bytes

#: steps and values of one quantity
Curve = tuple[np.ndarray, np.ndarray]

INK, FAINT = "#333333", "#d9d9d9"
# Okabe and Ito's colours, which colour-blind people tell apart; without the yellow, too pale for lines
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#7f7f7f")
SMOOTHED_POINTS = 40

RATES = {"lr", "learning_rate"}
#: logged, but no news in a picture
UNDRAWN = {"step", "skipped", "weight_decay", "momentum", "teacher_momentum", "teacher_temperature"}
HEALTH_TITLE = "features and gradients, as shares of their highest values"
HEALTH = ("entropy", "std", "norm", "similarity", "prototype")
SPEED = {"images_per_s"}
REFERENCE = "random_"


def draw_progress(metrics: Path, out: Path, timing: Path | None = None) -> None:
    """Draw the curves of metrics.jsonl, and the speed of timing.jsonl, into ``out`` (PNG), atomically.

    Draws nothing before the first step is logged.
    """
    curves = read_curves(metrics)
    if all(len(steps) == 1 and steps[0] == 0 for steps, _ in curves.values()):
        return
    if timing is not None:
        curves |= {name: curve for name, curve in read_curves(timing).items() if name in SPEED}
    panels = [(title, found) for title, belongs in PANELS if (found := _select(curves, belongs))]
    references = {name.removeprefix(REFERENCE): y[0] for name, (_, y) in curves.items() if name.startswith(REFERENCE)}
    write_bytes(out, _draw(panels, references))


def read_curves(metrics: Path) -> dict[str, Curve]:
    """Return steps and values of each quantity in a metrics.jsonl, without what is not finite."""
    points: dict[str, list[tuple[int, float]]] = {}
    for line in map(json.loads, read_lines(metrics)):
        for name, value in line.items():
            if name not in UNDRAWN and isinstance(value, int | float) and math.isfinite(value):
                points.setdefault(name, []).append((line["step"], value))
    columns = {name: np.array(found, dtype=float).T for name, found in points.items()}
    return {name: (steps, values) for name, (steps, values) in columns.items()}


def smoothed(values: np.ndarray) -> np.ndarray:
    """Return the mean of each value and its neighbours, over a twentieth of the curve."""
    width = len(values) // SMOOTHED_POINTS
    kernel = np.ones(2 * width + 1)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def _is_probe(name: str) -> bool:
    return name.startswith("probe_")


def _is_dimension(name: str) -> bool:
    return name.startswith("rankme")


def _is_score(name: str) -> bool:
    return name.startswith("val_") or name in ("dice", "accuracy", "auroc")


def _is_health(name: str) -> bool:
    return any(word in name for word in HEALTH) and not any(map(name.startswith, ("probe_", "rankme", "random_")))


def _is_loss(name: str) -> bool:
    others = (_is_score, _is_health, _is_probe, _is_dimension, RATES.__contains__, SPEED.__contains__)
    return not any(belongs(name) for belongs in others) and not name.startswith(REFERENCE)


PANELS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("loss", _is_loss),
    ("score", _is_score),
    ("probes of frozen features (dashed: random weights)", _is_probe),
    ("effective dimensions, RankMe (dashed: random weights)", _is_dimension),
    (HEALTH_TITLE, _is_health),
    ("learning rate", RATES.__contains__),
    ("images a second", SPEED.__contains__),
)


#: number of panels -> rows of places
LAYOUTS = {1: "a", 2: "ab", 3: "aa;bc", 4: "ab;cd", 5: "aa;bc;de", 6: "ab;cd;ef", 7: "aa;bc;de;fg"}


def _select(curves: dict[str, Curve], belongs: Callable[[str], bool]) -> dict[str, Curve]:
    found = {name: curve for name, curve in curves.items() if belongs(name)}
    # what sums up the others comes first, and so gets the first colour
    return dict(sorted(found.items(), key=lambda item: item[0] not in ("loss", "val_dice", "val_macro_f1")))


def _draw(panels: list[tuple[str, dict[str, Curve]]], references: dict[str, float]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = LAYOUTS[len(panels)]
    figure = Figure(figsize=(11, 3.2 * (1 + layout.count(";"))), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplot_mosaic(layout)
    last = max(steps[-1] for _, curves in panels for steps, _ in curves.values())
    for place, (title, curves) in zip("abcdefg", panels, strict=False):
        _draw_panel(places[place], title, curves, references)
        places[place].set_xlim(0, last * 1.02)
    buffer = BytesIO()
    # without matplotlib's version in it, equal curves are equal bytes
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_panel(axes: Any, title: str, curves: dict[str, Curve], references: dict[str, float]) -> None:
    for (name, (steps, values)), colour in zip(curves.items(), cycle(COLOURS), strict=False):
        is_noisy = len(values) >= SMOOTHED_POINTS and name not in RATES
        line = smoothed(values) if is_noisy else values
        # quantities of different kinds share a panel: each is shown as a share of its highest value
        scale = np.abs(line).max() or 1.0 if title == HEALTH_TITLE else 1.0
        if is_noisy:
            axes.plot(steps, values / scale, color=colour, alpha=0.2, linewidth=0.8)
        marker = "o" if len(values) < SMOOTHED_POINTS else None
        style = {"color": colour, "linewidth": 1.8, "marker": marker, "markersize": 3.5}
        axes.plot(steps, line / scale, label=f"{name.replace('_', ' ')}  {line[-1]:.3g}", **style)
        if name in references:
            axes.axhline(references[name], color=colour, linestyle="--", linewidth=1.2)
    if title == HEALTH_TITLE:
        axes.set_ylim(min(axes.get_ylim()[0], 0), 1.1)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel("step", fontsize=9, color=INK)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.locator_params(nbins=5)
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor=INK)
