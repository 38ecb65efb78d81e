"""NumPy's .npy: arrays of numbers, without a geometry. Pickled objects are never loaded."""

from pathlib import Path

import numpy as np

from fmseg.files import writing
from fmseg.imaging.case import Array, BadFile, Geometry
from fmseg.imaging.wholeness import check_raw

#: larger arrays are refused from the header, before memory is asked for
MAX_VALUES = 2**31
COLOURS = 3


class ArrayReader:
    """Reader of (Y, X), (Y, X, 3), (Z, Y, X), (Z, Y, X, 3) and (C, Z, Y, X)."""

    endings: tuple[str, ...] = (".npy",)

    def read(self, path: Path) -> tuple[Array, Geometry, tuple[str, ...]]:
        """Return voxels (C, Z, Y, X); a last axis of 3 is colours, three axes are slices, four begin with channels."""
        values = _load(path)
        if values.dtype == bool:
            values = values.astype(np.uint8) * np.uint8(255)
        is_colour = values.ndim in (3, 4) and values.shape[-1] == COLOURS
        planes = np.moveaxis(values, -1, 0) if is_colour else values if values.ndim == 4 else values[None]
        is_2d = planes.ndim == 3
        voxels = planes[:, None] if is_2d else planes
        return np.ascontiguousarray(voxels), Geometry(None, is_2d=is_2d), ()

    def read_label(self, path: Path) -> tuple[Array, Geometry]:
        """Return (Z, Y, X) of an array with two or three axes."""
        values = _load(path)
        if values.ndim == 4:
            raise BadFile(path, f"the label map has 4 axes, {values.shape}", "Save one number per voxel.")
        is_2d = values.ndim == 2
        return np.ascontiguousarray(values[None] if is_2d else values), Geometry(None, is_2d=is_2d)

    def write_label(self, labels: Array, geometry: Geometry, path: Path) -> None:
        """Write (Y, X) of a 2D image, else (Z, Y, X)."""
        values = labels.astype(np.uint16 if labels.max(initial=0) > 255 else np.uint8)
        with writing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, values[0] if geometry.is_2d else values, allow_pickle=False)


def _load(path: Path) -> Array:
    """Return numbers in the machine's byte order, at most 32 bits of a float. Raises BadFile for anything else."""
    # mapped, so that a header cannot ask for more memory than the file has bytes
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif":
        kind = getattr(values, "dtype", type(values).__name__)
        raise BadFile(path, f"it holds {kind}, no plain numbers", "Save one array of numbers with np.save.")
    if values.ndim not in (2, 3, 4) or not 1 <= values.size <= MAX_VALUES:
        mend = "Save (Y, X), (Z, Y, X) or (C, Z, Y, X)."
        raise BadFile(path, f"its shape is {values.shape}", mend)
    if isinstance(values, np.memmap):
        check_raw(path, path.stat().st_size - values.offset, values.shape, values.itemsize)
    if values.dtype.kind == "f" and values.dtype.itemsize != 4:
        return values.astype(np.float32)
    return np.array(values, values.dtype.newbyteorder("="))
