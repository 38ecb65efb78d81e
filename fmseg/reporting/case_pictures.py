"""Pictures of cases for pages: an image as people see it, and where a prediction and its label differ.

Every picture is a data URI (WebP), a few kilobytes each, so a page carries them itself.
"""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

#: foreground that the prediction lacks, and foreground that the label lacks; no class is drawn in these colours
MISSED, EXTRA = (255, 82, 82), (72, 229, 214)
FILLING = 0.6
QUALITY = 78


def as_picture(channels: np.ndarray) -> np.ndarray:
    """Turn (C, Y, X) of any type into uint8: (Y, X, 3) of RGB, else (Y, X) of the first channel."""
    shown = np.moveaxis(channels, 0, -1) if len(channels) == 3 else channels[0]
    if shown.dtype == np.uint8:
        return shown
    low, high = np.percentile(shown, (0.5, 99.5))
    picture: np.ndarray = (np.clip((shown - low) / max(float(high - low), 1e-6), 0, 1) * 255).astype(np.uint8)
    return picture


def differences(picture: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return the picture with what the prediction lacks, and what the label lacks, (h, w, 3) uint8.

    picture: (h, w) or (h, w, 3). label, prediction: (h, w). Where both are foreground, but of other classes, both
    are right in part: it is drawn as missed.
    """
    drawn = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture.copy()
    for mask, colour in (((label != prediction) & (label > 0), MISSED), ((label == 0) & (prediction > 0), EXTRA)):
        drawn[mask] = np.rint((1 - FILLING) * drawn[mask] + FILLING * np.array(colour)).astype(np.uint8)
    return drawn


def telling_slice(label: np.ndarray, prediction: np.ndarray) -> int:
    """Return the number of the slice of (Z, Y, X) that shows most of both."""
    return int(((label > 0).sum(axis=(1, 2)) + (prediction > 0).sum(axis=(1, 2))).argmax())


def webp(picture: np.ndarray, longest_px: int) -> bytes:
    """Return a picture as WebP, shrunk until its longer side has ``longest_px``."""
    image = Image.fromarray(picture)
    if max(image.size) > longest_px:
        image.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()


def data_uri(picture: np.ndarray, longest_px: int) -> str:
    """Return a picture as a data URI."""
    return f"data:image/webp;base64,{b64encode(webp(picture, longest_px)).decode()}"


def file_uri(path: Path, longest_px: int) -> str:
    """Return a picture file as a data URI, shrunk if need be."""
    with Image.open(path) as image:
        return data_uri(np.asarray(image.convert("RGB")), longest_px)
