"""The crops that DINOv2's student and teacher see: draw their parameters, then make the pixels.

The distributions are those of DINOv2's augmentation [1] for PIL images: torchvision's RandomResizedCrop,
flip, brightness and contrast in random order, Gaussian blur (9 px kernel), solarisation of the second global
crop, normalisation. What differs is how it is computed, for speed:

- Everything that maps one 8-bit value to another is one table of 256 entries. A blur stands between jitter
  and solarisation, so a blurred crop has one table before it and one after it, any other a single one.
- OpenCV resizes. It has no antialiased bicubic filter, so filters near to PIL's are taken, see ``resized``.

Hue and saturation do nothing to grey images and are left out for colour as well.
[1] Oquab et al., DINOv2, 2023. https://arxiv.org/abs/2304.07193
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fmseg.records.plans import Views

BLUR_KERNEL_PX = 9
SOLARIZE_THRESHOLD = 128
CROP_TRIES = CONTENT_TRIES = 10
#: 8-bit values up to this are black: speckle and JPEG leave such traces outside the sector
BLACK = 3
#: tables from 8-bit level to level; float32, as PIL computes, until a table is applied
IDENTITY = np.arange(256, dtype=np.float32)
#: of red, green and blue in grey (ITU-R 601, as PIL)
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, slots=True)
class ViewParameters:
    """All that is random about one view."""

    #: of the crop in the image, pixels
    top: int
    left: int
    height: int
    width: int
    #: (height, width) of the view, pixels
    size: tuple[int, int]
    flip: bool
    #: factors; None for no jitter
    jitter: tuple[float, float] | None
    #: whether the brightness changes before the contrast
    brightness_first: bool
    #: None for no blur
    blur_sigma_px: float | None
    solarize: bool


def make_views(
    image: np.ndarray, views: Views, mean: Sequence[float], std: Sequence[float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the global and the local views of one image, normalised.

    image: (C, h, w) uint8, or float16 in [0, 1]. mean, std: per channel, of the images in [0, 1].
    Returns (2, C, H, W) and (L, C, h', w') float32.
    """
    pixels = to_eight_bit(image)
    drawn = sample_views(rng, pixels.shape[1:], views, content=content_of(pixels, views))
    tables = normalisation_tables(mean, std)
    channels = len(pixels)
    global_views = np.empty((2, channels, *views.global_size), np.float32)
    local_views = np.empty((views.num_locals, channels, *views.local_size), np.float32)
    for out, parameters in zip([*global_views, *local_views], drawn, strict=True):
        apply_view(pixels, parameters, flip_axis=views.flip, tables=tables, out=out)
    return global_views, local_views


def sample_views(
    rng: np.random.Generator, size_hw: tuple[int, ...], views: Views, *, content: np.ndarray | None = None
) -> list[ViewParameters]:
    """Draw the parameters of two global views, then of all local ones.

    size_hw: (height, width) of the image. content: (h, w) uint8, non-zero where the image is not black; crops
    with less than ``views.min_content`` of it are drawn anew, ten times at most. None switches this off.
    """
    blur = (*views.blur_probability[:2], *[views.blur_probability[2]] * views.num_locals)
    drawn = []
    for number, blur_probability in enumerate(blur):
        scale, size = (views.global_scale, views.global_size) if number < 2 else (views.local_scale, views.local_size)
        top, left, height, width = _crop_with_content(rng, size_hw, scale, views, content)
        drawn.append(
            ViewParameters(
                top=top,
                left=left,
                height=height,
                width=width,
                size=size,
                flip=views.flip != "none" and rng.random() < 0.5,
                jitter=_sample_jitter(rng, views),
                brightness_first=rng.random() < 0.5,
                blur_sigma_px=rng.uniform(*views.blur_sigma_px) if rng.random() < blur_probability else None,
                solarize=number == 1 and rng.random() < views.solarize_probability,
            )
        )
    return drawn


def sample_crop(
    rng: np.random.Generator, size_hw: tuple[int, ...], scale: tuple[float, float], aspect: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draw (top, left, height, width) as torchvision's RandomResizedCrop does.

    scale: range of the crop's share of the image area, uniform. aspect: range of width / height, log-uniform.
    After ten crops that do not fit, the largest central one whose aspect is allowed.
    """
    rows, columns = size_hw
    for _ in range(CROP_TRIES):
        size, shape, down, right = rng.random(4).tolist()
        area = rows * columns * (scale[0] + (scale[1] - scale[0]) * size)
        ratio = aspect[0] * (aspect[1] / aspect[0]) ** shape
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < height <= rows and 0 < width <= columns:
            return int(down * (rows - height + 1)), int(right * (columns - width + 1)), height, width
    height = min(rows, round(columns / aspect[0]))
    width = min(columns, round(rows * aspect[1]))
    return (rows - height) // 2, (columns - width) // 2, height, width


def apply_view(image: np.ndarray, view: ViewParameters, *, flip_axis: str, tables: np.ndarray, out: np.ndarray) -> None:
    """Make one view.

    image: (C, h, w) uint8. flip_axis: "horizontal" or "vertical", used if ``view.flip``.
    tables: (C, 256) from ``normalisation_tables``. out: (C, H, W) float32, filled.
    """
    rows, columns = slice(view.top, view.top + view.height), slice(view.left, view.left + view.width)
    planes = [resized(plane[rows, columns], view.size) for plane in image]
    if view.flip:
        planes = [cv2.flip(plane, 1 if flip_axis == "horizontal" else 0) for plane in planes]
    table = _jitter_table(planes, view)
    if view.blur_sigma_px is not None:
        planes = [_blurred(_mapped(plane, table), view.blur_sigma_px) for plane in planes]
        table = IDENTITY
    if view.solarize:
        table = np.where(table < SOLARIZE_THRESHOLD, table, 255 - table)
    levels = table.astype(np.uint8)
    for plane, values, target in zip(planes, tables, out, strict=True):
        cv2.LUT(plane, values[levels], dst=target)


def _blurred(plane: np.ndarray, sigma_px: float) -> np.ndarray:
    # beyond four sigma the weights of the 9 px kernel are below a tenth of a level, and small kernels are faster
    side = min(BLUR_KERNEL_PX, 2 * math.ceil(4 * sigma_px) + 1)
    return cv2.GaussianBlur(plane, (side, side), sigma_px, borderType=cv2.BORDER_REFLECT_101)


def resized(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a crop (h, w) uint8 in ``size`` (height, width), as PIL's antialiased bicubic filter would give it.

    PIL widens its cubic kernel with the shrinking factor; OpenCV's filters stay 4 px (cubic) or 2 px (linear)
    wide. So a crop is halved by averages of 2 x 2 while it is twice too large, and what is left is cubic below
    a factor of 1.4 and linear above. INTER_AREA alone is as near to PIL and four times as slow. On ultrasound
    the mean absolute difference to PIL is below 0.7 of 255 and the energy of the gradients, that is how sharp
    a view is, within 7 %. Halving an odd side drops its last line, which only moves a random border.
    """
    height, width = size
    while (shrink := math.sqrt(plane.shape[0] * plane.shape[1] / (height * width))) >= 2:
        rows, columns = plane.shape[0] // 2, plane.shape[1] // 2
        plane = cv2.resize(plane[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
    method = cv2.INTER_CUBIC if shrink < 1.4 else cv2.INTER_LINEAR
    return cv2.resize(plane, (width, height), interpolation=method)


def to_eight_bit(image: np.ndarray) -> np.ndarray:
    """Return a stored image as uint8; float16 in [0, 1] is rounded to 256 levels.

    Views are made on 8 bits because the recipe is (its solarisation and its tables are defined there), and
    because half a level, 0.002, is nothing beside a contrast that changes by 40 %.
    """
    if image.dtype == np.uint8:
        return image
    return (np.clip(image.astype(np.float32), 0, 1) * 255 + 0.5).astype(np.uint8)


def content_of(image: np.ndarray, views: Views) -> np.ndarray | None:
    """Return (h, w) uint8, non-zero where a (C, h, w) uint8 image is not black; None if nobody asks."""
    if views.min_content <= 0:
        return None
    content = image[0] > BLACK
    for plane in image[1:]:
        content |= plane > BLACK
    return content.view(np.uint8)


def normalisation_tables(mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return (C, 256) float32: what the network sees of each 8-bit value."""
    values = np.arange(256)[None] / 255
    return ((values - np.asarray(mean)[:, None]) / np.asarray(std)[:, None]).astype(np.float32)


def _crop_with_content(
    rng: np.random.Generator,
    size_hw: tuple[int, ...],
    scale: tuple[float, float],
    views: Views,
    content: np.ndarray | None,
) -> tuple[int, int, int, int]:
    crop = sample_crop(rng, size_hw, scale, views.aspect)
    if content is None:
        return crop
    for _ in range(CONTENT_TRIES):
        top, left, height, width = crop
        shown = cv2.countNonZero(content[top : top + height, left : left + width])
        if shown >= views.min_content * height * width:
            break
        crop = sample_crop(rng, size_hw, scale, views.aspect)
    return crop


def _sample_jitter(rng: np.random.Generator, views: Views) -> tuple[float, float] | None:
    if rng.random() >= views.jitter_probability:
        return None
    strengths = views.brightness, views.contrast
    brightness, contrast = (rng.uniform(max(0, 1 - strength), 1 + strength) for strength in strengths)
    return brightness, contrast


def _jitter_table(planes: list[np.ndarray], view: ViewParameters) -> np.ndarray:
    """Return (256,) levels: brightness, and contrast around the crop's grey mean, with PIL's roundings."""
    if view.jitter is None:
        return IDENTITY
    brightness, contrast = view.jitter
    if view.brightness_first:
        brighter = _clipped(brightness * IDENTITY)
        grey = _grey_mean(planes, brighter)
        return _clipped(grey + contrast * (brighter - grey))
    grey = _grey_mean(planes, IDENTITY)
    return _clipped(brightness * _clipped(grey + contrast * (IDENTITY - grey)))


def _mapped(plane: np.ndarray, table: np.ndarray) -> np.ndarray:
    return plane if table is IDENTITY else cv2.LUT(plane, table.astype(np.uint8))


def _clipped(values: np.ndarray) -> np.ndarray:
    """Return float32 levels, cut off as PIL does it; np.clip takes four times as long on 256 values."""
    return np.floor(np.minimum(np.maximum(values, 0), 255))


def _grey_mean(planes: list[np.ndarray], table: np.ndarray) -> int:
    """Return the mean grey of the planes after ``table``, rounded as PIL does; three planes are RGB."""
    weights = LUMA if len(planes) == 3 else np.full(len(planes), 1 / len(planes))
    means = [cv2.mean(_mapped(plane, table))[0] for plane in planes]
    return int(float(weights @ means) + 0.5)
