"""One examination in memory: its voxels and where they lie in space.

Voxels are (C, Z, Y, X) in the file's own type and units; a 2D image has Z = 1. Positions follow DICOM and
ITK: x to the patient's left, y to the back, z to the head (LPS).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fmseg.errors import BadData

Array = np.ndarray[Any, np.dtype[Any]]
#: (z, y, x) in mm; None where nobody knows it
Spacing = tuple[float, float, float] | None

#: of slices that follow each other to the left, to the back and to the head
PLANES: tuple[Literal["sagittal", "coronal", "axial"], ...] = ("sagittal", "coronal", "axial")
#: cosine of the angle from which on slices are oblique
STRAIGHT = 0.8

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a grid of voxels lies."""

    #: (z, y, x); None for formats that know no size, such as PNG
    spacing_mm: Spacing
    #: (x, y, z) of the first voxel's centre, in mm
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    #: 3 x 3, row by row; its columns are the directions of x, y and z
    direction: tuple[float, ...] = IDENTITY
    #: whether the file itself has two axes only
    is_2d: bool = False
    #: (top, left, bottom, right), the last two exclusive: where the file says that an ultrasound scan lies
    scan_box: tuple[int, int, int, int] | None = None

    @property
    def slices(self) -> Literal["", "sagittal", "coronal", "axial"]:
        """What the planes along the first axis of an array are, in a patient who lies straight; empty if oblique."""
        along = [abs(value) for value in self.direction[2::3]]
        most = max(along)
        return PLANES[along.index(most)] if most >= STRAIGHT else ""


@dataclass(frozen=True, slots=True)
class Case:
    """The image of one examination."""

    name: str
    #: (C, Z, Y, X)
    voxels: Array
    geometry: Geometry
    #: what was changed or dropped while reading, in words
    notes: tuple[str, ...] = ()


class BadFile(BadData):
    """A file that cannot be used; keeps its parts, so that a list of findings can be made of it."""

    def __init__(self, path: Path, problem: str, mend: str) -> None:
        super().__init__(path, problem, mend)  # all three, since an exception is pickled by its arguments
        self.path, self.problem, self.mend = path, problem, mend

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}. {self.mend}"


def content_hash(voxels: Array) -> str:
    """Return 32 hexadecimal digits that are equal for equal shape, type and values."""
    digest = hashlib.sha256(f"{voxels.shape} {voxels.dtype.str}".encode())
    digest.update(np.ascontiguousarray(voxels).data)
    return digest.hexdigest()[:32]


def is_grey(voxels: Array) -> bool:
    """Return whether an RGB image (3, Z, Y, X) has three equal channels; False for other numbers of channels."""
    if len(voxels) != 3:
        return False
    return np.array_equal(voxels[0], voxels[1]) and np.array_equal(voxels[0], voxels[2])
