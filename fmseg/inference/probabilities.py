"""Probabilities on disk: 8 bits per value, packed; the error is at most half a step of 1/255.

A file is a magic word, the shape as four little-endian integers, and one zstd chunk of blosc2. Nothing in it
can be anything but numbers.
"""

import struct
from pathlib import Path

import numpy as np

from fmseg.errors import BadData
from fmseg.files import write_bytes

ENDING = ".prob"
_HEADER = struct.Struct("<8s4I")
_MAGIC = b"fmsegp01"


def save_probabilities(path: Path, probabilities: np.ndarray) -> None:
    """Write probabilities (K, Z, h, w) in [0, 1], atomically."""
    import blosc2

    if probabilities.ndim != 4:
        raise ValueError(f"probabilities are (K, Z, h, w), not {probabilities.shape}")
    values = np.rint(np.clip(probabilities, 0, 1) * 255).astype(np.uint8)
    # one thread, no shuffling: the same bytes on every machine, and shuffling gains nothing for single bytes
    packed = blosc2.compress2(
        values, typesize=1, clevel=3, codec=blosc2.Codec.ZSTD, filters=[blosc2.Filter.NOFILTER], nthreads=1
    )
    write_bytes(path, _HEADER.pack(_MAGIC, *values.shape) + packed)


def load_probabilities(path: Path) -> np.ndarray:
    """Return the probabilities (K, Z, h, w) float32. Raises BadData for a damaged or missing file."""
    return load_levels(path).astype(np.float32) / np.float32(255)


def stored_shape(path: Path) -> tuple[int, int, int, int]:
    """Return the shape (K, Z, h, w) of stored probabilities, without unpacking them.

    Raises BadData for a damaged or missing file.
    """
    try:
        with open(path, "rb") as file:
            magic, outputs, slices, height, width = _HEADER.unpack(file.read(_HEADER.size))
    except (OSError, struct.error) as error:
        raise _unreadable(path) from error
    if magic != _MAGIC:
        raise _unreadable(path)
    return outputs, slices, height, width


def load_levels(path: Path) -> np.ndarray:
    """Return the stored 8-bit levels (K, Z, h, w). Raises BadData for a damaged or missing file."""
    import blosc2

    shape = stored_shape(path)
    try:
        content = path.read_bytes()
        values = blosc2.decompress2(content[_HEADER.size :], nthreads=1)
        return np.frombuffer(values, dtype=np.uint8).reshape(shape)
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> BadData:
    return BadData(f"{path}: there are no readable probabilities in it. Remove it and train that fold again.")
