"""Fill outlines: annotations that draw only the line around a head or an organ.

The outlines meant here are convex, as the ellipses of biometry are. A line that leaves the image is closed along
the image's border; small gaps in it are bridged.
"""

import cv2
import numpy as np

from fmseg.errors import BadData
from fmseg.imaging.case import Array

#: widths of gap in px that are tried, one after the other; 0 leaves the line as it is
GAPS_PX = (0, 3, 7, 15)
#: a region is inside from this share in the line's convex hull on: outside it is about 0, and of a quarter of an
#: ellipse in an image's corner, the least favourable case with the centre in the image, it is 0.36
MIN_SHARE_IN_HULL = 0.2
#: of the line's convex hull must be filled
MIN_FILLED_SHARE = 0.9


def fill_outline(outline: Array) -> Array:
    """Return the outline with all that it encloses, as bool (Y, X).

    outline: (Y, X), not zero on the line. Raises BadData, which names no file, if it encloses no plausible area.
    """
    line = np.ascontiguousarray(outline != 0).astype(np.uint8)
    if not line.any():
        raise BadData("the outline is empty")
    hull = np.zeros_like(line)
    cv2.fillConvexPoly(hull, cv2.convexHull(cv2.findNonZero(line)), 1)
    for gap in GAPS_PX:
        closed = cv2.morphologyEx(line, cv2.MORPH_CLOSE, _disc(gap)) if gap else line
        filled = _with_enclosed_regions(closed, hull)
        if filled.sum() >= MIN_FILLED_SHARE * hull.sum() and _keeps_borders(filled, line):
            return filled
    raise BadData(f"the outline encloses no area: it is open by more than {GAPS_PX[-1]} px, or not convex")


def _with_enclosed_regions(line: Array, hull: Array) -> Array:
    # a line of diagonal steps separates only regions that are connected by edges
    _, regions = cv2.connectedComponents(1 - line, connectivity=4)
    sizes = np.bincount(regions.ravel())
    in_hull = np.bincount(regions.ravel(), weights=hull.ravel())
    inside = in_hull > MIN_SHARE_IN_HULL * sizes
    inside[0] = True  # the line itself
    return np.asarray(inside[regions])


def _keeps_borders(filled: Array, line: Array) -> bool:
    """Return whether only those borders of the image are reached that the line reaches; else it leaked."""
    sides = ((0, slice(None)), (-1, slice(None)), (slice(None), 0), (slice(None), -1))
    return all(line[side].any() or not filled[side].any() for side in sides)


def _disc(diameter_px: int) -> Array:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter_px, diameter_px)))
