"""Masks as polygons along the edges of their pixels, so that nothing of their shape or area is lost.

A pixel (y, x) is the square from (x, y) to (x + 1, y + 1), with y downwards, as in QuPath and COCO.
"""

from collections.abc import Iterator

import numpy as np

from fmseg.imaging.case import Array

Point = tuple[int, int]
#: corners (x, y), the first one not repeated
Ring = list[Point]

#: directions (x, y) in the order of a turn to the right, y downwards
_TURNS: tuple[Point, ...] = ((1, 0), (0, 1), (-1, 0), (0, -1))


def polygons_of(mask: Array) -> list[list[Ring]]:
    """Return a polygon for each connected part of a mask (Y, X): its outline, clockwise, then its holes.

    Pixels that touch at a corner only belong to different parts, and corners that touch belong to different holes or
    to none. Clockwise is meant as seen with y downwards.
    """
    from scipy import ndimage

    parts, _ = ndimage.label(mask)
    found = []
    for number, place in enumerate(ndimage.find_objects(parts), start=1):
        part = np.pad(parts[place] == number, 1)
        offset = (place[1].start - 1, place[0].start - 1)
        rings = sorted(_rings(part), key=area_of, reverse=True)
        found.append([[(x + offset[0], y + offset[1]) for x, y in ring] for ring in rings])
    return found


def area_of(ring: Ring) -> float:
    """Return the area of a ring, above 0 where it runs clockwise (y downwards)."""
    x, y = np.array(ring, dtype=np.int64).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def _rings(part: Array) -> Iterator[Ring]:
    """Yield the corners of every closed line between a part and its surroundings, the part on the right."""
    # edges of the grid: where one begins -> the directions in which it runs
    ahead: dict[Point, list[int]] = {}
    inside = part.astype(bool)
    below, beside = np.diff(inside.astype(np.int8), axis=0), np.diff(inside.astype(np.int8), axis=1)
    for direction, (rows, columns), (down, right) in (
        (0, np.nonzero(below == 1), (1, 0)),  # the part lies below: to the right along its upper side
        (2, np.nonzero(below == -1), (1, 1)),
        (3, np.nonzero(beside == 1), (1, 1)),  # the part lies on the right: upwards along its left side
        (1, np.nonzero(beside == -1), (0, 1)),
    ):
        for y, x in zip((rows + down).tolist(), (columns + right).tolist(), strict=True):
            ahead.setdefault((x, y), []).append(direction)
    while ahead:
        yield _follow(ahead)


def _follow(ahead: dict[Point, list[int]]) -> Ring:
    """Take the edges of one closed line out of all; return its corners."""
    # the uppermost point, of these the leftmost: a corner, and no place where two of the lines that are left meet
    start = point = min(ahead, key=lambda each: (each[1], each[0]))
    direction = ahead[point][0]
    ring: Ring = []
    while True:
        choices = ahead[point]
        # where two lines meet, turn right: so the parts that touch there stay apart
        if len(choices) > 1:
            new = next(turn for turn in ((direction + 1) % 4, direction, (direction + 3) % 4) if turn in choices)
        else:
            new = choices[0]
        if not ring or new != direction:
            ring.append(point)
        choices.remove(new)
        if not choices:
            del ahead[point]
        direction = new
        point = (point[0] + _TURNS[direction][0], point[1] + _TURNS[direction][1])
        if point == start:
            return ring
