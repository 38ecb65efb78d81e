"""Masks as people keep them, and how they become label maps: 0 and 255, colours, outlines, a file for each class.

What the values or colours of a set mean is found by looking at all of its masks: black, else the most frequent
one, is the background, the others are classes in rising order. Names, colours and outlines may be declared.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmseg.errors import BadData
from fmseg.imaging.case import Array, BadFile, Geometry
from fmseg.imaging.outlines import fill_outline
from fmseg.imaging.readers import read_case, read_label
from fmseg.records.cases import CaseFiles

#: more different values or colours are no classes, but what JPEG or smoothing makes of them
MAX_CLASSES = 64
#: a mask whose values lie this near to two extremes is one of two values, saved with loss
NEAR = 64
#: of the pixels of such a mask
NEAR_SHARE = 0.995
#: a pixel belongs to the nearest declared colour within this distance (of 255, in the channel that differs most)
MAX_COLOUR_DISTANCE = 64
#: drawn as lines are masks that cover less than this of what they enclose; of at most so many that are tried
LINE_SHARE, LINES_TRIED = 0.4, 25
#: of the tried ones must be lines
OUTLINE_SHARE = 0.8
FLAT = Geometry(None, is_2d=True)
LOSSY = (".jpg", ".jpeg")
RED, GREEN, BLUE = 1 << 16, 1 << 8, 1


@dataclass(frozen=True, slots=True)
class MaskScheme:
    """What the values of a set of masks mean."""

    #: of the classes, whose label is their place from 1 on
    names: tuple[str, ...]
    #: value (of colours 0xRRGGBB) -> label; the background has 0
    labels: Mapping[int, int]
    has_colours: bool
    is_outline: bool
    #: saved with loss: values are taken for the nearest ones
    is_lossy: bool

    def apply(self, path: Path) -> tuple[Array, Geometry]:
        """Return a mask as a label map (Z, Y, X) uint8. Raises BadFile naming a value that means nothing."""
        values, geometry = read_values(path)
        known = np.array(sorted(self.labels))
        if self.is_lossy:
            # JPEG mixes the colours at every border
            most = 255 if path.name.lower().endswith(LOSSY) else MAX_COLOUR_DISTANCE
            values = known[_nearest_colours(values, known, most) if self.has_colours else _nearest(values, known)]
        found = np.unique(values)
        strange = np.setdiff1d(found, known)
        if len(strange):
            mend = "Name it among the labels, or correct the mask."
            raise BadFile(path, f"the mask holds {show(int(strange[0]), self.has_colours)}, which means nothing", mend)
        kind = np.min_scalar_type(max(self.labels.values()))
        drawn = np.array([self.labels[int(value)] for value in known], kind)[np.searchsorted(known, values)]
        return (fill_lines(path, drawn) if self.is_outline else drawn), geometry


def read_values(path: Path) -> tuple[Array, Geometry]:
    """Return the values of a mask (Z, Y, X); those of a colour image as 0xRRGGBB, JPEG's as they are."""
    if not path.name.lower().endswith(LOSSY):
        try:
            return read_label(path)
        except BadFile as error:
            if "colour" not in error.problem:
                raise
    case = read_case(CaseFiles(path.stem, (path,), None))
    voxels = case.voxels.astype(np.int32)
    if len(voxels) == 1 or (np.array_equal(voxels[0], voxels[1]) and np.array_equal(voxels[0], voxels[2])):
        return voxels[0], case.geometry
    return RED * voxels[0] + GREEN * voxels[1] + BLUE * voxels[2], case.geometry


def find_scheme(
    paths: Sequence[Path],
    *,
    names: Mapping[int, str] | None = None,
    colours: Mapping[str, int] | None = None,
    is_outline: bool | None = None,
) -> MaskScheme:
    """Return what the masks of a set mean.

    names: value -> class, where someone says it. colours: class -> 0xRRGGBB, likewise. is_outline: None looks.
    Raises BadData if the masks are not painted in a few values.
    """
    if colours:
        labels = {0: 0} | {value: label for label, value in enumerate(colours.values(), start=1)}
        scheme = MaskScheme(tuple(colours), labels, has_colours=True, is_outline=False, is_lossy=True)
        return _with_outline(scheme, paths, is_outline)
    counts, has_colours = _count(paths)
    may_be_lossy = len(counts) > MAX_CLASSES or any(path.name.lower().endswith(LOSSY) for path in paths)
    is_lossy = len(counts) > 2 and may_be_lossy and not has_colours and _is_bimodal(counts)
    if is_lossy:
        counts = Counter({0: 1, 255: 1})
    if len(counts) > MAX_CLASSES:
        kind = "colours" if has_colours else "values"
        raise BadData(
            f"{paths[0].parent}: the masks hold {len(counts)} different {kind}, too many for classes. Save them "
            "without smoothing and not as JPEG, or name the colours in dataset.json (mask_colors)."
        )
    background = 0 if 0 in counts else counts.most_common(1)[0][0] if counts else 0
    values = sorted(value for value in counts if value != background)
    if names:
        values = sorted(names)
    labels = {background: 0} | {value: label for label, value in enumerate(values, start=1)}
    given = names or {}
    said = tuple(given.get(value) or _name(value, len(values), has_colours) for value in values)
    scheme = MaskScheme(said, labels, has_colours=has_colours, is_outline=False, is_lossy=is_lossy)
    return _with_outline(scheme, paths, is_outline)


def are_lines(paths: Sequence[Path], values: Iterable[int]) -> bool:
    """Return whether label maps of these values are, nearly all, lines around what is meant; some are looked at."""
    labels = {0: 0} | {value: label for label, value in enumerate(values, start=1)}
    return _are_outlines(MaskScheme((), labels, has_colours=False, is_outline=False, is_lossy=False), paths)


def show(value: int, has_colours: bool) -> str:
    """Return a value as people write it."""
    return f"the colour #{value:06x}" if has_colours else f"the value {value}"


def fill_lines(path: Path, drawn: Array) -> Array:
    """Return the areas that outlines enclose, larger ones below smaller ones. Raises BadFile for an open outline."""
    filled = np.zeros_like(drawn)
    for plane, into in zip(drawn, filled, strict=True):
        try:
            areas = {int(value): fill_outline(plane == value) for value in np.unique(plane) if value}
        except BadData as error:
            raise BadFile(path, str(error).rstrip("."), "Close the outline, or save a filled mask.") from error
        for value in sorted(areas, key=lambda value: -int(areas[value].sum())):
            into[areas[value]] = value
    return filled


def _count(paths: Iterable[Path]) -> tuple[Counter[int], bool]:
    """Return how many pixels have each value, and whether the values are colours."""
    counts: Counter[int] = Counter()
    grey: Counter[int] = Counter()
    for path in paths:
        values, _ = read_values(path)
        found, number = np.unique(values, return_counts=True)
        is_colour = int(found[-1]) > np.iinfo(np.uint16).max
        (counts if is_colour else grey).update(dict(zip(found.tolist(), number.tolist(), strict=True)))
        if len(counts) > 2**20:
            break
    if not counts:
        return grey, False
    # black masks of a coloured set are grey images, and so are white ones
    for level, total in grey.items():
        counts[level * (RED + GREEN + BLUE)] += total
    return counts, True


def _is_bimodal(counts: Counter[int]) -> bool:
    total = counts.total()
    near = sum(number for value, number in counts.items() if value < NEAR or 255 - NEAR < value <= 255)
    return max(counts) <= 255 and max(counts) > 255 - NEAR and near >= NEAR_SHARE * total


def _nearest(values: Array, known: Array) -> Array:
    """Return the place in ``known`` of the value that is nearest."""
    return np.asarray(np.abs(values[..., None] - known).argmin(axis=-1))


def _nearest_colours(values: Array, known: Array, most: int) -> Array:
    """Return the place in ``known`` of the colour that is nearest; black where all are further away than ``most``."""
    found, where = np.unique(values, return_inverse=True)
    apart = np.max([np.abs((found[:, None] >> bits & 255) - (known >> bits & 255)) for bits in (16, 8, 0)], axis=0)
    nearest = apart.argmin(axis=1)
    nearest[apart.min(axis=1) > most] = int(np.searchsorted(known, 0))
    return np.asarray(nearest[where].reshape(values.shape))


def _with_outline(scheme: MaskScheme, paths: Sequence[Path], is_outline: bool | None) -> MaskScheme:
    if is_outline is None:
        is_outline = _are_outlines(scheme, paths)
    return MaskScheme(scheme.names, scheme.labels, scheme.has_colours, is_outline, scheme.is_lossy)


def _are_outlines(scheme: MaskScheme, paths: Sequence[Path]) -> bool:
    """Return whether masks are lines around what is meant: they cover little of what they enclose."""
    tried = lines = 0
    for path in paths[:: 1 + len(paths) // LINES_TRIED]:
        try:
            drawn, _ = scheme.apply(path)
        except BadFile:
            continue
        if not drawn.any():
            continue
        tried += 1
        try:
            lines += bool((drawn > 0).sum() < LINE_SHARE * (fill_lines(path, drawn) > 0).sum())
        except BadFile:
            continue
    return tried > 0 and lines >= OUTLINE_SHARE * tried


def _name(value: int, num_classes: int, has_colours: bool) -> str:
    if num_classes == 1:
        return "foreground"
    return f"colour_{value:06x}" if has_colours else f"class_{value}"
