"""What a machine or a person has drawn on an ultrasound image: text, rulers, grey bars, and calipers.

Strokes are nearly white and thin, so that an opening removes them. Which of them are marks is told by their order:
letters stand in a line, a ruler's ticks at equal distances, a caliper is a cross that looks the same after a quarter
turn. Bright tissue does none of this. Coloured strokes count where little is coloured; much colour is Doppler.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fmseg.imaging.case import Array
from fmseg.imaging.sector import Sector, brightest

#: the longer side that is looked at, at most
SIDE_PX = 1024
#: strokes are at least so bright, so much brighter than what an opening leaves, and thinner than its window
WHITE, CONTRAST, WINDOW_PX = 150, 70, 11
#: fewer pixels are noise, more pieces than this are speckle
MIN_STROKE_PX, MAX_STROKES = 4, 1500
#: letters in tissue, which has bright interfaces of its own: so bright in their middle, and so many in a line
WHITE_INSIDE, MIN_LETTERS_INSIDE = 225, 5
#: a caliper's cross, in pixels; how alike it must look after a quarter turn; how full its arms and its box are
CROSS_PX, MIN_TURNED, MIN_ARMS, MAX_FULL = (7, 33), 0.7, 0.8, 0.6
#: a measurement has two ends
MIN_CROSSES = 2
#: letters: height in pixels; so many in a line make text
LETTER_PX, MIN_LETTERS = (5, 30), 4
#: ticks: so many on one line, at distances that differ by at most this share
MIN_TICKS, MAX_UNEVEN, MAX_TICK_PX = 5, 0.15, 24
#: the brightest tick is brighter than the darkest by this at most
MAX_TICK_RANGE = 60
#: a bar: its length as share of the image, and how much longer than wide it is
MIN_BAR, BAR_ASPECT = 0.1, 4.0
#: a difference of colours that is no JPEG noise; more coloured pixels than this share are Doppler
COLOURED, MAX_COLOURED = 60, 0.005
MIN_COLOURED_PX = 12
#: around a mark that is painted over, and the radius that colours are taken from
MARGIN_PX, INPAINT_PX = 2, 4


@dataclass(frozen=True, slots=True)
class Marks:
    """What was drawn on an image."""

    #: as in "text outside", "calipers inside"
    kinds: tuple[str, ...]
    #: (Y, X) uint8, 1 on marks inside the sector
    inside: Array


@dataclass(frozen=True, slots=True)
class _Stroke:
    """A connected piece of strokes."""

    x: int
    y: int
    width: int
    height: int
    pixels: Array
    #: of its pixels, the middle one
    brightness: int

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


def find_marks(voxels: Array, sector: Sector | None) -> Marks:
    """Return the marks on an image or clip (C, Z, Y, X); of a clip, those that stay over all frames."""
    size = voxels.shape[2:]
    still = brightest(voxels[:, :1]) if voxels.shape[1] == 1 else brightest(voxels.min(axis=1, keepdims=True))
    shrink = max(1.0, max(size) / SIDE_PX)
    small = (max(1, round(size[1] / shrink)), max(1, round(size[0] / shrink)))
    plane = cv2.resize(still, small, interpolation=cv2.INTER_AREA) if shrink > 1 else still
    outline = sector.mask(size) if sector else np.zeros(size, np.uint8)
    area = cv2.resize(outline, small, interpolation=cv2.INTER_NEAREST)
    # what touches the border of the sector is tissue
    inner, outer = cv2.erode(area, np.ones((5, 5), np.uint8)), cv2.dilate(area, np.ones((9, 9), np.uint8))
    kinds: list[str] = []
    drawn = np.zeros_like(plane)
    opened = cv2.morphologyEx(plane, cv2.MORPH_OPEN, np.ones((WINDOW_PX, WINDOW_PX), np.uint8))
    thin = cv2.subtract(plane, opened) >= CONTRAST
    thin &= (outer == 0) | (inner > 0)
    # tissue beside a cross or a letter is darker
    strokes, bright = (_strokes(plane, thin, white) for white in (WHITE, WHITE_INSIDE))
    for where, canvas in (("outside", np.zeros_like(plane)), ("inside", drawn)):
        here = [[s for s in pieces if bool(inner[s.y, s.x]) == (where == "inside")] for pieces in (strokes, bright)]
        _judge(here[0], here[1], where, kinds, canvas)
    coloured = _coloured(voxels, small)
    if MIN_COLOURED_PX <= coloured.sum() <= MAX_COLOURED * coloured.size:
        if (coloured & inner).any():
            kinds.append("colour inside")
        drawn |= coloured & inner
    if shrink > 1:
        drawn = cv2.resize(drawn, size[::-1], interpolation=cv2.INTER_NEAREST)
    return Marks(tuple(kinds), drawn)


def paint_over(plane: Array, inside: Array) -> Array:
    """Return a plane (Y, X) uint8 whose marks are painted over with what is around them."""
    if not inside.any():
        return plane
    width = 2 * MARGIN_PX + 1
    wider = cv2.dilate(inside, np.ones((width, width), np.uint8))
    return np.asarray(cv2.inpaint(plane, wider, INPAINT_PX, cv2.INPAINT_TELEA))


def _strokes(plane: Array, thin: Array, white: int) -> list[_Stroke]:
    """Return the pieces of ``thin`` (Y, X) that are at least so bright."""
    chosen = ((plane >= white) & thin).view(np.uint8)
    count, parts, figures, _ = cv2.connectedComponentsWithStats(chosen, connectivity=8)
    if count > MAX_STROKES:
        return []  # coarse speckle
    found = []
    for number in (np.flatnonzero(figures[1:, cv2.CC_STAT_AREA] >= MIN_STROKE_PX) + 1).tolist():
        x, y, width, height, _ = figures[number].tolist()
        place = slice(y, y + height), slice(x, x + width)
        own = parts[place] == number
        found.append(_Stroke(x, y, width, height, own, int(plane[place][own].mean())))
    return found


def _judge(strokes: Sequence[_Stroke], bright: Sequence[_Stroke], where: str, kinds: list[str], drawn: Array) -> None:
    """Add the kinds of marks that the strokes of an area are, and draw them. bright: what is brightest of them."""
    for kind, found in (
        ("calipers", _crosses(bright)),
        ("ruler", _ticks(strokes)),
        ("text", _letters(strokes, MIN_LETTERS) if where == "outside" else _letters(bright, MIN_LETTERS_INSIDE)),
        ("bar", [stroke for stroke in strokes if _is_bar(stroke, drawn.shape)]),
    ):
        # a single line or row in tissue is tissue
        if not found or (where == "inside" and kind == "bar"):
            continue
        kinds.append(f"{kind} {where}")
        for stroke in found:
            part = drawn[stroke.y : stroke.y + stroke.height, stroke.x : stroke.x + stroke.width]
            part |= stroke.pixels.view(np.uint8)


def _crosses(strokes: Sequence[_Stroke]) -> list[_Stroke]:
    """Return the crosses, if there are two of one size at least."""
    found = [stroke for stroke in strokes if _is_cross(stroke)]
    sides = [max(stroke.width, stroke.height) for stroke in found]
    pairs = [sum(abs(side - other) <= 2 for other in sides) >= MIN_CROSSES for side in sides]
    return [stroke for stroke, is_one_of_two in zip(found, pairs, strict=True) if is_one_of_two]


def _is_cross(stroke: _Stroke) -> bool:
    """Return whether a stroke is a + or an x."""
    side = max(stroke.width, stroke.height)
    if not CROSS_PX[0] <= side <= CROSS_PX[1] or abs(stroke.width - stroke.height) > 2:
        return False
    pixels = cv2.resize(stroke.pixels.view(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST) > 0
    turned = np.rot90(pixels)
    alike = (pixels & turned).sum() / max((pixels | turned).sum(), 1)
    if alike < MIN_TURNED or pixels.mean() > MAX_FULL:
        return False
    middle, along = side // 2, np.arange(side)
    band = slice(max(middle - 1, 0), middle + 2)
    plus = pixels[band].any(axis=0), pixels[:, band].any(axis=1)
    near = cv2.dilate(pixels.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    times = near[along, along], near[along, side - 1 - along]
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    is_plus = min(arm.mean() for arm in plus) >= MIN_ARMS and not corners.any()
    is_times = min(arm.mean() for arm in times) >= MIN_ARMS and not pixels[middle, [0, -1]].any()
    return bool(is_plus or is_times)


def _ticks(strokes: Sequence[_Stroke]) -> list[_Stroke]:
    """Return the strokes that stand on one upright or level line at equal distances."""
    small = [stroke for stroke in strokes if max(stroke.width, stroke.height) <= MAX_TICK_PX]
    for along in (1, 0):
        lines: dict[int, list[_Stroke]] = {}
        for stroke in small:
            lines.setdefault(round((stroke.x, stroke.y)[1 - along] / 3), []).append(stroke)
        for line in lines.values():
            # ticks are alike, speckle is not; every fifth tick may be longer
            if len(line) < MIN_TICKS:
                continue
            width, height = np.median([(s.width, s.height) for s in line], axis=0)
            line = [s for s in line if abs(s.width - width) <= 3 and abs(s.height - height) <= 1]
            line.sort(key=lambda stroke: stroke.centre[along])
            apart = np.diff([stroke.centre[along] for stroke in line])
            brightness = [stroke.brightness for stroke in line]
            if len(line) < MIN_TICKS or np.median(apart) < 6 or np.ptp(brightness) > MAX_TICK_RANGE:
                continue
            if (np.abs(apart - np.median(apart)) <= MAX_UNEVEN * np.median(apart)).mean() >= 0.75:
                return line
    return []


def _letters(strokes: Sequence[_Stroke], least: int) -> list[_Stroke]:
    """Return the strokes that stand beside each other on one line, of about one height, at least so many."""
    low, high = LETTER_PX
    lines: dict[int, list[_Stroke]] = {}
    for stroke in strokes:
        if low <= stroke.height <= high and stroke.width <= 2 * stroke.height:
            lines.setdefault(stroke.y + stroke.height, []).append(stroke)
    found: list[_Stroke] = []
    for bottom in sorted(lines):
        near = sorted((s for by in range(-2, 3) for s in lines.get(bottom + by, ())), key=lambda stroke: stroke.x)
        height = float(np.median([stroke.height for stroke in near]))
        near = [stroke for stroke in near if abs(stroke.height - height) <= 3]
        runs: list[list[_Stroke]] = [[]]
        for stroke in near:
            if runs[-1] and stroke.x - runs[-1][-1].x - runs[-1][-1].width > 1.5 * height:
                runs.append([])
            runs[-1].append(stroke)
        found += [stroke for run in runs if len(run) >= least for stroke in run]
    return found


def _is_bar(stroke: _Stroke, size_yx: tuple[int, ...]) -> bool:
    """Return whether a stroke is a long upright or level bar."""
    length, width = max(stroke.width, stroke.height), min(stroke.width, stroke.height)
    whole = size_yx[0] if stroke.height > stroke.width else size_yx[1]
    return length >= MIN_BAR * whole and length >= BAR_ASPECT * width and bool(stroke.pixels.mean() >= 0.7)


def _coloured(voxels: Array, size_xy: tuple[int, int]) -> Array:
    """Return (y, x) uint8, 1 where an RGB image is coloured; of a clip, in all frames."""
    if len(voxels) != 3 or voxels.dtype != np.uint8:
        return np.zeros(size_xy[::-1], np.uint8)
    apart = np.full(voxels.shape[2:], 255, np.uint8)
    for frame in voxels.swapaxes(0, 1):
        red, green, blue = frame
        spread = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
        apart = np.minimum(apart, spread)
    coloured = (apart >= COLOURED).view(np.uint8)
    return np.asarray(cv2.resize(coloured, size_xy, interpolation=cv2.INTER_NEAREST))
