"""What a plan may take out of ultrasound images before they are resized: all beside the scan, and drawn marks.

The sector is found on each image anew, so that predicting needs no facts of earlier images. An image without a
sector stays as it is.
"""

import numpy as np

from fmseg.imaging.case import Array, Geometry
from fmseg.imaging.marks import find_marks, paint_over
from fmseg.imaging.sector import find_sector
from fmseg.records.plans import Preprocessing


def cleaned(voxels: Array, geometry: Geometry, preprocessing: Preprocessing) -> Array:
    """Return voxels (C, Z, Y, X) as the plan wants them; the same array where it wants nothing.

    outside "black": what lies outside the sector has the lowest value. "crop": it is also cut to the sector's box, so
    Y and X change. marks "remove": calipers, text and rulers inside the sector are painted over (8-bit images).
    """
    if preprocessing.outside == "keep" and preprocessing.marks == "keep":
        return voxels
    sector = find_sector(voxels, geometry.scan_box)
    if sector is None:
        return voxels
    voxels = voxels.copy()
    if preprocessing.marks == "remove" and voxels.dtype == np.uint8:
        inside = find_marks(voxels, sector).inside
        for channel in voxels:
            channel[:] = [paint_over(plane, inside) for plane in channel]
    if preprocessing.outside == "keep":
        return voxels
    voxels[:, :, sector.mask(voxels.shape[2:]) == 0] = voxels.min()
    top, left, bottom, right = sector.box if preprocessing.outside == "crop" else (0, 0, *voxels.shape[2:])
    return voxels[:, :, top:bottom, left:right]
