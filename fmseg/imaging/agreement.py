"""Whether a label map and its image belong together: where they lie, and what they show."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from fmseg.imaging.case import Array, Geometry
from fmseg.records.fingerprint import Finding, Severity

#: cosines of two directions of axes that count as one may differ so much
MAX_TURN = 1e-2
#: of a voxel, and in mm, two origins that count as one may be apart
MAX_SHIFT, MIN_SHIFT_MM = 0.1, 1e-3
OFF_GRID = "The label would be drawn on the wrong place of the image."


def misplaced(path: Path, label: Geometry, image: Geometry) -> list[Finding]:
    """Compare where a label map and its image say that they lie. path: of the label map."""
    if label.spacing_mm is None or image.spacing_mm is None:
        return []
    if not np.allclose(label.spacing_mm, image.spacing_mm, rtol=1e-2):
        problem = f"the label map has the spacing {_rounded(label.spacing_mm)}, its image {_rounded(image.spacing_mm)}"
    elif not np.allclose(label.direction, image.direction, atol=MAX_TURN):
        problem = "the label map has another direction of axes than its image"
    elif not np.allclose(label.origin, image.origin, atol=max(MIN_SHIFT_MM, MAX_SHIFT * min(image.spacing_mm))):
        problem = f"the label map has the origin {_rounded(label.origin)}, its image {_rounded(image.origin)}"
        mend = "Check that they lie on each other; they are taken to, pixel by pixel."
        return [_finding("warning", path, problem, mend, OFF_GRID)]
    else:
        return []
    mend = "Export it on the image's grid. If they lie on each other all the same, fmseg doctor --fix writes a copy so."
    return [_finding("error", path, problem, mend, OFF_GRID)]


def mixed_up(path: Path, labels: Array, voxels: Array, values: Collection[int]) -> list[Finding]:
    """Find an image that shows its label map and nothing else.

    path: of the label map. labels: (Z, Y, X), values: those that occur in it, voxels: (C, Z, Y, X).
    """
    if len(voxels) > 1 or len(values) < 2:
        return []
    inside = (voxels[0][labels == value] for value in values)
    if any(part.min() != part.max() for part in inside):
        return []
    is_copy = np.array_equal(voxels[0], labels)
    problem = "its image has the same pixels" if is_copy else "its image shows nothing that it does not"
    mend = "Put the image that was drawn on into imagesTr."
    return [_finding("error" if is_copy else "warning", path, problem, mend, "There is nothing to learn from that.")]


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values)


def _finding(severity: Severity, path: Path, problem: str, mend: str, why: str) -> Finding:
    return Finding(severity=severity, where=f"{path.parent.name}/{path.name}", problem=problem, mend=mend, why=why)
