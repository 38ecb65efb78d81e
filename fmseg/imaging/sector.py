"""Where an ultrasound image shows tissue: the scan sector of a curved, phased or linear probe, or a box of it.

The picture is what is left when thin things are taken away (text, rulers, grey bars); the sector is its convex hull,
since dark fluid and shadows belong to it and its sides are straight. A curved probe's surface is the one border that
bends inwards: a circle through the upper edge tells it, and what lies above is cut off. Where the picture fills
the image, the image is the sector. Everything happens on a small copy, 256 px long.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from fmseg.imaging.case import Array

#: of the longer side that is looked at
SIDE_PX = 256
#: of 255: brighter is not black, once neighbours are averaged; JPEG leaves less around edges
BLACK = 5.0
#: a background is flat if so much of the border has one value, give or take this
MIN_FLAT_BORDER, FLAT = 0.5, 2
#: widths of text and bars that are taken away, as share of the longer side
THIN = 0.03
#: white strokes on black: so wide at most, in an image at most so long
STROKES_PX, STROKES_SIDE_PX, WHITE = 9, 1024, 110
#: of the pixels around such strokes are black
MIN_BLACK_AROUND = 0.4
#: parts of the picture that are smaller than this share of the largest one are no tissue
MIN_PART = 0.03
#: of the image; less than this is no sector
MIN_AREA = 0.04
#: a probe's surface: as share of the sector's height how deep it bends, and how far a circle may be off it
MIN_BEND, MAX_MISFIT = 0.02, 0.012
#: its depth as share of its width: an arc of 140 degrees
MAX_BEND = 0.35
#: of the pixels above the surface are black
MIN_BLACK_ABOVE = 0.9
#: corners of the outline that is kept, at most
MAX_CORNERS = 24
TINY = 8


@dataclass(frozen=True, slots=True)
class Sector:
    """The outline of the scan on an image."""

    #: (y, x) of the corners in pixels of the file, clockwise or not
    outline: tuple[tuple[int, int], ...]

    def mask(self, size_yx: tuple[int, ...]) -> Array:
        """Return (Y, X) uint8, 1 inside."""
        filled = np.zeros((size_yx[0], size_yx[1]), np.uint8)
        cv2.fillPoly(filled, [np.array(self.outline, np.int32)[:, ::-1]], 1)
        return filled

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Return (top, left, bottom, right), the last two exclusive."""
        rows, columns = np.array(self.outline).T
        return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1


def find_sector(voxels: Array, scan_box: tuple[int, int, int, int] | None = None) -> Sector | None:
    """Return the sector of an image (C, Z, Y, X), of a clip that of all frames; None where nothing is shown.

    scan_box: (top, left, bottom, right) where the file says that the scan lies; the sector does not leave it.
    """
    plane = _on_black(brightest(voxels))
    if scan_box is not None:
        top, left, bottom, right = scan_box
        inside = np.zeros_like(plane)
        inside[top:bottom, left:right] = plane[top:bottom, left:right]
        plane = inside
    small, scale = _small(plane)
    tissue = _tissue(small, _writing(plane, small.shape))
    if tissue is None:
        return None
    contours, _ = cv2.findContours(tissue, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(contours))
    mask = np.zeros_like(tissue)
    cv2.fillConvexPoly(mask, hull, 1)
    mask &= ~_above_the_probe(mask, tissue, small)
    outline = _outline(mask)
    height, width = voxels.shape[2:]
    corners = np.rint((outline[:, ::-1] + 0.5) * scale - 0.5).astype(int)
    # what reaches the border of the small copy reaches that of the image
    at_end = outline[:, ::-1] >= np.array(mask.shape) - 1
    corners = np.where(at_end, [height - 1, width - 1], np.where(outline[:, ::-1] == 0, 0, corners))
    corners = np.clip(corners, 0, [height - 1, width - 1])
    return Sector(tuple((int(y), int(x)) for y, x in corners))


def brightest(voxels: Array) -> Array:
    """Return (Y, X) uint8, the brightest value of each place over channels and frames, stretched to 8 bits."""
    plane = voxels[0, 0]
    for other in voxels.reshape(-1, *plane.shape)[1:]:
        plane = np.maximum(plane, other)
    if plane.dtype == np.uint8:
        return plane
    plane = np.nan_to_num(plane.astype(np.float32))
    low, high = float(plane.min()), float(np.percentile(plane, 99.9))
    return (np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)


def _on_black(plane: Array) -> Array:
    """Return the image with a flat grey background, as some machines draw it, made black."""
    border = np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
    level = int(np.bincount(border, minlength=256).argmax())
    if level <= BLACK or (np.abs(border.astype(int) - level) <= FLAT).mean() < MIN_FLAT_BORDER:
        return plane
    return np.where(np.abs(plane.astype(int) - level) <= FLAT, 0, plane).astype(np.uint8)


def _small(plane: Array) -> tuple[Array, Array]:
    """Return the image at most SIDE_PX long, and (y, x) by which it is smaller."""
    shrink = max(1.0, max(plane.shape) / SIDE_PX)
    size = tuple(max(1, round(length / shrink)) for length in plane.shape)
    small = cv2.resize(plane, size[::-1], interpolation=cv2.INTER_AREA) if size != plane.shape else plane
    return small, np.array(plane.shape) / np.array(size)


def _writing(plane: Array, size_yx: tuple[int, ...]) -> Array:
    """Return (y, x) uint8, 1 where white strokes stand on black: text, rulers, and the border of bright tissue."""
    shrink = max(1.0, max(plane.shape) / STROKES_SIDE_PX)
    if shrink > 1:
        plane = cv2.resize(plane, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    window = np.ones((STROKES_PX, STROKES_PX), np.uint8)
    black = (plane <= BLACK).view(np.uint8) * np.uint8(255)
    # speckle has black and white too, but far less black
    is_mostly_black = cv2.blur(black, (2 * STROKES_PX - 1, 2 * STROKES_PX - 1)) >= 255 * MIN_BLACK_AROUND
    found = (is_mostly_black & (cv2.dilate(plane, window) >= WHITE)).view(np.uint8) * np.uint8(255)
    return (cv2.resize(found, size_yx[::-1], interpolation=cv2.INTER_AREA) > 127).view(np.uint8)


def _tissue(small: Array, writing: Array) -> Array | None:
    """Return (Y, X) uint8, 1 where the picture is, without anything thin; None if there is none."""
    # averages reach beyond the border of what is bright, medians do not
    shown = ((cv2.blur(small, (5, 5)) > BLACK) & (cv2.medianBlur(small, 5) > BLACK / 2)).view(np.uint8)
    width = max(3, round(THIN * max(small.shape))) | 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    # what lies at the image's border goes on behind it
    framed = cv2.copyMakeBorder(shown & ~writing, width, width, width, width, borderType=cv2.BORDER_REPLICATE)
    opened = cv2.morphologyEx(framed, cv2.MORPH_OPEN, disc)[width:-width, width:-width]
    _, parts, figures, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    areas = figures[1:, cv2.CC_STAT_AREA]
    if not len(areas) or areas.max() < MIN_AREA * small.size or min(small.shape) < TINY:
        return None
    kept = np.flatnonzero(areas >= MIN_PART * areas.max()) + 1
    tissue = np.isin(parts, kept).astype(np.uint8)
    # the border of bright tissue was taken for writing
    again = cv2.dilate(tissue, disc) & shown
    return np.asarray(cv2.morphologyEx(again, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) | tissue)


def _above_the_probe(mask: Array, tissue: Array, small: Array) -> Array:
    """Return (Y, X) uint8, 1 for what the hull has above the curved surface of a probe; all 0 without one."""
    none = np.zeros_like(mask)
    columns = np.flatnonzero(mask.any(axis=0))
    hull_top = mask[:, columns].argmax(axis=0)
    has_tissue = tissue[:, columns].any(axis=0)
    tissue_top = np.where(has_tissue, tissue[:, columns].argmax(axis=0), hull_top)
    height = int(np.flatnonzero(mask.any(axis=1)).size)
    gap = tissue_top - hull_top
    if gap.max() < max(2, MIN_BEND * height):
        return none
    # from one end of the surface to the other, where it meets the hull; its sides flare out beyond both
    ends = np.flatnonzero(gap <= 1)
    left, right = ends[ends < gap.argmax()], ends[ends > gap.argmax()]
    if not len(left) or not len(right) or left[-1] == 0 or right[0] == len(gap) - 1:
        return none
    first, last = int(left[-1]), int(right[0])
    if gap.max() > MAX_BEND * (last - first):
        return none
    circle = _circle(columns[first : last + 1], tissue_top[first : last + 1])
    if circle is None:
        return none
    x, y, radius = circle
    surface = y + np.sqrt(np.maximum(radius**2 - (columns - x) ** 2, 0))
    off = np.abs(surface - tissue_top)[first : last + 1]
    if np.median(off) > max(1.0, MAX_MISFIT * height):
        return none
    rows = np.arange(len(mask))[:, None]
    above = none.copy()
    above[:, columns] = (rows < surface - 0.5) & (np.arange(len(columns)) >= first) & (np.arange(len(columns)) <= last)
    above &= mask
    inside = cv2.erode(above, np.ones((3, 3), np.uint8))
    is_black = small[inside > 0] <= BLACK
    return above if len(is_black) and is_black.mean() >= MIN_BLACK_ABOVE else none


def _circle(x: Array, y: Array) -> tuple[float, float, float] | None:
    """Return (x, y, radius) of the circle through an arc whose middle lies lowest, None if it bends the other way."""
    chosen = np.ones(len(x), bool)
    for _ in range(3):  # ribs, hair and shadows leave dents in the edge
        if chosen.sum() < TINY:
            return None
        system = np.stack([x[chosen], y[chosen], np.ones(chosen.sum())], axis=1).astype(float)
        (a, b, c), *_ = np.linalg.lstsq(system, -(x[chosen] ** 2.0 + y[chosen] ** 2.0), rcond=None)
        centre_x, centre_y, square = -a / 2, -b / 2, a * a / 4 + b * b / 4 - c
        if square <= 0 or centre_y > y.mean():
            return None
        off = np.abs(np.hypot(x - centre_x, y - centre_y) - np.sqrt(square))
        chosen = off <= max(1.0, 2 * float(np.median(off)))
    return float(centre_x), float(centre_y), float(np.sqrt(square))


def _outline(mask: Array) -> Array:
    """Return the corners (N, 2) as (x, y) of the largest part of a mask."""
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    line = max(found, key=cv2.contourArea)
    tolerance = 0.75
    while len(corners := cv2.approxPolyDP(line, tolerance, closed=True)) > MAX_CORNERS:
        tolerance *= 1.3
    return np.asarray(corners[:, 0])
