"""A reader of one's own: portable grey maps (.pgm), in which older archives of mammograms are kept.

See docs/how-to/add-a-reader.md.
"""

from pathlib import Path

import cv2
import numpy as np

from fmseg.files import write_bytes
from fmseg.imaging.case import Array, BadFile, Geometry
from fmseg.imaging.readers import readers


class GreyMapReader:
    """Grey values of 8 or 16 bits, of one image, without a pixel size."""

    endings: tuple[str, ...] = (".pgm",)

    def read(self, path: Path) -> tuple[Array, Geometry, tuple[str, ...]]:
        """Return voxels (C, Z, Y, X), where they lie, and what was changed in reading, in words."""
        pixels, geometry = self.read_label(path)
        return pixels[None], geometry, ()

    def read_label(self, path: Path) -> tuple[Array, Geometry]:
        """Return the values (Z, Y, X)."""
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim != 2:
            raise BadFile(path, "this is no grey map", "Export it again.")
        return pixels[None], Geometry(None, is_2d=True)

    def write_label(self, labels: Array, geometry: Geometry, path: Path) -> None:
        """Write (Z, Y, X) integers; the file appears whole or not at all."""
        _, content = cv2.imencode(".pgm", labels[0].astype(np.uint8))
        write_bytes(path, content.tobytes())


readers.add("pgm", GreyMapReader())
