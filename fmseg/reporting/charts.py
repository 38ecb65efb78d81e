"""Small charts as SVG text, for pages that open without a network: each says one thing.

Colours are CSS variables of the page (``--accent``, ``--ink``, ``--faint`` ...), so a chart follows light, dark and
print. Texts are drawn for a width of 440 units, which stay legible on a telephone. Every chart is one image to a
screen reader, described by its ``alt``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import escape

WIDTH = 440.0
#: room for the labels of the value axis, above, at the right and below
LEFT, TOP, RIGHT, BOTTOM = 44.0, 14.0, 14.0, 40.0
ROW = 30.0
#: points of a line at most: more than a screen has pixels for
MOST_POINTS = 300
#: how wide characters are at most, in units, in the widest of the fonts that the page may get (DejaVu Sans); those
#: that no line names are as wide as a capital, and what is not ASCII as a Chinese character
CHARACTERS = {"'|!ijlIJ ,.:;/\\": 4.9, '-()[]ftr"': 5.6, "cksvxyz?_*`LF": 7.2, "abdeghnopqu0123456789$PSTYE": 7.7,
              "mwMW@%#+<=>~^": 12.0}  # fmt: skip
CAPITAL, OTHER = 9.5, 12.0


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: a name at its end, steps and values."""

    name: str
    x: np.ndarray
    y: np.ndarray
    #: "accent" for what matters, "quiet" for what it is compared with, "dashed" for a reference
    kind: str = "accent"


@dataclass(frozen=True, slots=True)
class Span:
    """A value with an interval around it."""

    name: str
    middle: float
    low: float
    high: float
    is_strong: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to places on the paper."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def histogram(values: Sequence[float], *, alt: str, unit: str, num_bins: int = 24) -> str:
    """Return how often values occur; ``unit`` names them."""
    found = np.asarray(values, dtype=float)
    low, high = _range(float(found.min()), float(found.max()))
    counts, edges = np.histogram(found, bins=num_bins, range=(low, high))
    height = 200.0
    x, y = Scale(low, high, LEFT, WIDTH - RIGHT), Scale(0, max(int(counts.max()), 1), height - BOTTOM, TOP)
    parts = [_value_axis(y, ticks(0, max(int(counts.max()), 1), 3, whole=True)), _foot_axis(x, height, unit)]
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            top, width = y(count), max(x(right) - x(left) - 1.5, 1)
            parts.append(f'<rect class="bar" x="{x(left):.1f}" y="{top:.1f}" width="{width:.1f}" '
                         f'height="{y(0) - top:.1f}" rx="1.5"/>')  # fmt: skip
    return _svg(height, alt, parts)


def bars(names: Sequence[str], values: Sequence[float], *, alt: str) -> str:
    """Return a horizontal bar for each name, its value at its end."""
    room, highest = _name_room(names), max([*values, 1e-12])
    height = ROW * len(names) + 8
    x = Scale(0, highest, room, WIDTH - 64)
    parts = []
    for row, (name, value) in enumerate(zip(names, values, strict=True)):
        middle = 4 + ROW * (row + 0.5)
        parts.append(_name(name, room, middle))
        parts.append(f'<rect class="bar" x="{room:.1f}" y="{middle - 7:.1f}" width="{max(x(value) - room, 1):.1f}" '
                     f'height="14" rx="2"/>')  # fmt: skip
        parts.append(_text(x(value) + 8, middle + 4, number(value), "value"))
    return _svg(height, alt, parts)


def spans(rows: Sequence[Span], *, alt: str, unit: str) -> str:
    """Return a dot with its interval for each row, on one axis: scores that may be compared by eye."""
    room = _name_room([row.name for row in rows])
    low, high = _range(min(row.low for row in rows), max(row.high for row in rows))
    height = ROW * len(rows) + TOP + BOTTOM
    x = Scale(low, high, room + 6, WIDTH - 58)
    parts = [_foot_axis(x, height, unit, top=TOP, left=room)]
    for number_of, row in enumerate(rows):
        middle, kind = TOP + ROW * (number_of + 0.5), "strong" if row.is_strong else "weak"
        parts += [
            _name(row.name, room, middle),
            f'<line class="span {kind}" x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{middle:.1f}" '
            f'y2="{middle:.1f}"/>',
            f'<circle class="dot {kind}" cx="{x(row.middle):.1f}" cy="{middle:.1f}" r="5"/>',
            _text(WIDTH - 50, middle + 4, number(row.middle), "value"),
        ]
    return _svg(height, alt, parts)


def spreads(names: Sequence[str], values: Sequence[np.ndarray], *, alt: str, unit: str) -> str:
    """Return how cases are spread, a row each name: middle half, 5 to 95 %, the median, and each of the rest."""
    room = _name_room(names)
    everything = np.concatenate([np.asarray(each, dtype=float) for each in values])
    low, high = _range(float(everything.min()), float(everything.max()))
    height = ROW * len(names) + TOP + BOTTOM
    x = Scale(low, high, room + 6, WIDTH - 58)
    parts = [_foot_axis(x, height, unit, top=TOP, left=room)]
    for row, (name, found) in enumerate(zip(names, values, strict=True)):
        middle = TOP + ROW * (row + 0.5)
        p5, p25, median, p75, p95 = np.percentile(found, (5, 25, 50, 75, 95)).tolist()
        rest = np.unique(found[(found < p5) | (found > p95)])[:MOST_POINTS].tolist()
        parts.append(_name(name, room, middle))
        parts += [f'<circle class="rest" cx="{x(each):.1f}" cy="{middle:.1f}" r="2"/>' for each in rest]
        parts += [
            f'<line class="whisker" x1="{x(p5):.1f}" x2="{x(p95):.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>',
            f'<rect class="box" x="{x(p25):.1f}" y="{middle - 7:.1f}" width="{max(x(p75) - x(p25), 2):.1f}" '
            f'height="14" rx="3"/>',
            f'<line class="median" x1="{x(median):.1f}" x2="{x(median):.1f}" y1="{middle - 9:.1f}" '
            f'y2="{middle + 9:.1f}"/>',
            _text(WIDTH - 50, middle + 4, number(median), "value"),
        ]
    return _svg(height, alt, parts)


def lines(curves: Sequence[Line], *, alt: str, x_unit: str = "step") -> str:
    """Return curves over steps, each named at its end."""
    shown = [_thinned(curve) for curve in curves if len(curve.x)]
    names = [curve for curve in shown if curve.name]
    room = min(max((text_width(curve.name) for curve in names), default=0.0) + 14, 150)
    values = np.concatenate([curve.y for curve in shown])
    low, high = _range(float(values.min()), float(values.max()))
    steps = np.concatenate([curve.x for curve in shown])
    height = 230.0
    x = Scale(float(steps.min()), max(float(steps.max()), float(steps.min()) + 1), LEFT, WIDTH - RIGHT - room)
    y = Scale(low, high, height - BOTTOM, TOP)
    parts = [_value_axis(y, ticks(low, high, 4), right=WIDTH - RIGHT - room), _foot_axis(x, height, x_unit)]
    for curve in shown:
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(curve.x.tolist(), curve.y.tolist(), strict=True))
        parts.append(f'<polyline class="line {curve.kind}" points="{points}"/>')
        if len(curve.x) == 1:
            parts.append(f'<circle class="dot strong" cx="{x(float(curve.x[0])):.1f}" '
                         f'cy="{y(float(curve.y[0])):.1f}" r="3.5"/>')  # fmt: skip
    places = _apart([y(float(curve.y[-1])) for curve in names])
    for curve, place in zip(names, places, strict=True):
        parts.append(_text(x(float(curve.x[-1])) + 7, place + 4, curve.name, f"end {curve.kind}"))
    return _svg(height, alt, parts)


def reliability(confidence: Sequence[float], accuracy: Sequence[float], counts: Sequence[int], *, alt: str) -> str:
    """Return how often cases are right against how sure the models were; on the diagonal both agree."""
    size, most = 300.0, max([*counts, 1])
    x, y = Scale(0, 1, LEFT, WIDTH - RIGHT - 30), Scale(0, 1, size - BOTTOM, TOP)
    parts = [
        _value_axis(y, [0, 0.25, 0.5, 0.75, 1], right=WIDTH - RIGHT - 30),
        _foot_axis(x, size, "confidence"),
        f'<line class="line dashed" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(1):.1f}" y2="{y(1):.1f}"/>',
    ]
    for sure, right, count in zip(confidence, accuracy, counts, strict=True):
        radius = 3 + 9 * math.sqrt(count / most)
        parts.append(f'<circle class="bubble" cx="{x(sure):.1f}" cy="{y(right):.1f}" r="{radius:.1f}"/>')
    return _svg(size, alt, parts)


def text_width(text: str) -> float:
    """Return how wide a text is at most, in units."""
    narrow = {character: width for characters, width in CHARACTERS.items() for character in characters}
    return sum(narrow.get(character, CAPITAL if character.isascii() else OTHER) for character in text)


def ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """Return about ``count`` round values from ``low`` to ``high``."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= raw * 0.999)
    step = max(round(step), 1) if whole else step
    first = math.ceil(low / step - 1e-9) * step
    return [round(first + step * index, 12) for index in range(math.floor((high - first) / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Return a value in as few digits as say it."""
    if abs(value) >= 10_000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _range(low: float, high: float) -> tuple[float, float]:
    """Return ends that lie a little apart from all values; shares stay between 0 and 1."""
    margin = (high - low) * 0.06 or max(abs(high) * 0.05, 0.01)
    is_share = low >= 0 and high <= 1
    return (max(low - margin, 0) if low >= 0 else low - margin), (min(high + margin, 1) if is_share else high + margin)


def _thinned(curve: Line) -> Line:
    stride = -(-len(curve.x) // MOST_POINTS)
    if stride <= 1:
        return curve
    last = len(curve.x) - 1
    kept = np.unique([*range(0, last, stride), last])
    return Line(curve.name, curve.x[kept], curve.y[kept], curve.kind)


def _apart(places: Sequence[float], least: float = 14.0) -> list[float]:
    """Return the places pushed down until no two labels lie on each other."""
    order, found, below = np.argsort(places, kind="stable").tolist(), [0.0] * len(places), -math.inf
    for index in order:
        found[index] = below = max(places[index], below + least)
    return found


def _value_axis(y: Scale, values: Sequence[float], *, right: float = WIDTH - RIGHT) -> str:
    parts = []
    for value in values:
        place = y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right:.1f}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(_text(LEFT - 7, place + 4, f"{value:,.4g}", "tick right"))
    return "".join(parts)


def _foot_axis(x: Scale, height: float, unit: str, *, top: float | None = None, left: float = LEFT) -> str:
    """Return the ticks below, with lines up to ``top`` where it is given, and the unit under them."""
    foot, parts = height - BOTTOM, []
    for value in ticks(x.low, x.high, 4):
        place = x(value)
        if top is not None:
            parts.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{top:.1f}" y2="{foot:.1f}"/>')
        parts.append(_text(place, foot + 17, f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}", "tick middle"))
    parts.append(_text((max(x.start, left) + x.end) / 2, height - 4, unit, "unit middle"))
    return "".join(parts)


def _name_room(names: Sequence[str]) -> float:
    return min(max(map(text_width, names)) + 12, WIDTH * 0.42)


def _name(name: str, room: float, middle: float) -> str:
    start, end = name, ""
    while text_width(short := f"{start}…{end}" if end else start) > room - 10:  # something in its middle is left out
        kept = (len(start) + len(end) - 1) // 2
        start, end = name[: len(start) + len(end) - 1 - kept], name[len(name) - kept :]
    return _text(room - 8, middle + 4, short, "name right")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(height: float, alt: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>'
