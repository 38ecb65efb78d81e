"""Label maps, differences and doubt as transparent pictures, to be laid over an image in a browser."""

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from PIL import Image

from fmseg.reporting.case_pictures import EXTRA, MISSED
from fmseg.reporting.overlays import colour_of, contour

#: name -> what it is made from
LAYERS: dict[str, set[str]] = {
    "label": {"label"},
    "prediction": {"prediction"},
    "difference": {"label", "prediction"},
    "doubt": {"doubt"},
}
FILLED, OUTLINED = 120, 255
DOUBT = (255, 255, 255)
MOST_PX = 1600


def layer_png(name: str, slices: Mapping[str, np.ndarray]) -> bytes:
    """Return one layer of one slice as PNG with transparency. slices: (h, w) of what it is made from."""
    if name == "doubt":
        drawn = np.zeros((*slices["doubt"].shape, 4), np.uint8)
        drawn[..., :3], drawn[..., 3] = DOUBT, slices["doubt"]
    elif name == "difference":
        drawn = _differences(slices["label"], slices["prediction"])
    else:
        drawn = _labels(slices[name])
    image = Image.fromarray(drawn)
    if max(image.size) > MOST_PX:
        image.thumbnail((MOST_PX, MOST_PX), Image.Resampling.NEAREST)
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _labels(labels: np.ndarray) -> np.ndarray:
    """Return (h, w, 4) uint8: each label filled translucently and outlined."""
    drawn = np.zeros((*labels.shape, 4), np.uint8)
    thickness = max(1, round(min(labels.shape) / 300))
    for value in np.unique(labels[labels != 0]).tolist():
        inside = labels == value
        drawn[inside] = (*colour_of(value), FILLED)
        drawn[contour(inside, thickness)] = (*colour_of(value), OUTLINED)
    return drawn


def _differences(label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    drawn = np.zeros((*label.shape, 4), np.uint8)
    drawn[(label != prediction) & (label > 0)] = (*MISSED, 200)
    drawn[(label == 0) & (prediction > 0)] = (*EXTRA, 200)
    return drawn
