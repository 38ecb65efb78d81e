"""Random changes of training images and their labels: one warp, then intensities.

Geometry is a single ``cv2.warpAffine`` that rotates, scales, shifts, flips and places the image on the
canvas, so pixels are interpolated once. Intensities are what an ultrasound machine's knobs and physics vary:
gain, dynamic range (contrast, gamma), electronic noise (additive), speckle (multiplicative, some pixels wide),
sharpness, and acoustic shadows: behind bone or gas, beams bring back less, from some depth on downwards. Only pixels
that show something are changed: black outside the sector stays exactly black.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from fmseg.records.recipe import Augmentation

#: width of the speckle's grain; found on B-mode images of about 1 Mpx scaled to some hundred pixels
SPECKLE_SIGMA_PX = 1.0
#: how far above the image its beams meet, in heights of the image: of a strongly curved probe, and of a straight one,
#: whose beams are parallel. Images do not say which theirs is, so it is drawn
APEX_HEIGHTS = (0.2, 20.0)
#: shadows begin in this upper share of the canvas, with edges that are so soft, as share of its shorter side
SHADOW_START, SHADOW_BLUR = 0.7, 0.04


@dataclass(frozen=True, slots=True)
class Shadow:
    """A sector between two beams that is darker from some depth on."""

    #: (y, x) of the middle of its upper end, pixels of the canvas
    start_px: tuple[float, float]
    #: at its upper end, as share of the image's width
    width: float
    #: share of the intensity that is lost
    darkness: float
    #: how far above the image the beams meet, in heights of the image
    apex: float


@dataclass(frozen=True, slots=True)
class AugmentationParameters:
    """All that is random about one training image; the defaults change nothing."""

    rotation_deg: float = 0.0
    scale: float = 1.0
    #: (y, x), pixels of the canvas
    shift_px: tuple[float, float] = (0.0, 0.0)
    flip_horizontal: bool = False
    flip_vertical: bool = False
    #: (row, column) of the canvas's upper left pixel in the image; None centres the image on the canvas
    origin: tuple[int, int] | None = None
    #: factors
    brightness: float = 1.0
    contrast: float = 1.0
    gamma: float = 1.0
    #: standard deviations, in units of the intensity range
    noise_std: float = 0.0
    speckle_std: float = 0.0
    blur_sigma_px: float = 0.0
    #: of the noise and the speckle
    noise_seed: int = 0
    shadow: Shadow | None = None


def sample_augmentation(
    rng: np.random.Generator, augmentation: Augmentation, size: tuple[int, int]
) -> AugmentationParameters:
    """Draw the parameters for a canvas of ``size`` (height, width) pixels; ``origin`` is left to the caller."""
    plan = augmentation
    is_warped = rng.random() < plan.warp_probability

    def sometimes(value: float, neutral: float) -> float:
        return value if rng.random() < plan.intensity_probability else neutral

    return AugmentationParameters(
        rotation_deg=rng.uniform(-plan.rotation_deg, plan.rotation_deg) if is_warped else 0.0,
        scale=_log_uniform(rng, plan.scale) if is_warped else 1.0,
        shift_px=(_shift(rng, size[0], plan), _shift(rng, size[1], plan)) if is_warped else (0.0, 0.0),
        flip_horizontal=plan.flip_horizontal and rng.random() < 0.5,
        flip_vertical=plan.flip_vertical and rng.random() < 0.5,
        brightness=sometimes(_factor(rng, plan.brightness), 1.0),
        contrast=sometimes(_factor(rng, plan.contrast), 1.0),
        gamma=sometimes(_log_uniform(rng, plan.gamma), 1.0),
        noise_std=sometimes(rng.uniform(0, plan.noise_std), 0.0),
        speckle_std=sometimes(rng.uniform(0, plan.speckle_std), 0.0),
        blur_sigma_px=sometimes(rng.uniform(0, plan.blur_sigma_px), 0.0),
        noise_seed=int(rng.integers(2**32)),
        shadow=_sample_shadow(rng, plan, size),  # last, and nothing is drawn for it where there are none
    )


def _sample_shadow(rng: np.random.Generator, plan: Augmentation, size: tuple[int, int]) -> Shadow | None:
    if not plan.shadow_probability or rng.random() >= plan.shadow_probability:
        return None
    return Shadow(
        start_px=(rng.uniform(0, SHADOW_START * size[0]), rng.uniform(0, size[1])),
        width=rng.uniform(*plan.shadow_width),
        darkness=rng.uniform(*plan.shadow_darkness),
        apex=_log_uniform(rng, APEX_HEIGHTS),
    )


def apply_augmentation(
    image: np.ndarray,
    label: np.ndarray | None,
    parameters: AugmentationParameters,
    size: tuple[int, int],
    border_label: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Place an image on a canvas of ``size`` (height, width) pixels and change it.

    image: (C, h, w) float32 in [0, 1]. label: (h, w) integers of 16 bits at most; None stands for zeros.
    Returns (C, H, W) float32 in [0, 1] and (H, W) int64. Where the image does not reach, the canvas is black
    and its label is ``border_label``.
    """
    matrix, width_height = _canvas_to_image(parameters, image.shape[1:], size), size[::-1]
    flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    canvas = np.stack([cv2.warpAffine(plane, matrix, width_height, flags=flags, borderValue=0) for plane in image])
    if label is None:
        label = np.zeros(image.shape[1:], np.uint8)
    flags = cv2.WARP_INVERSE_MAP | cv2.INTER_NEAREST
    labels = cv2.warpAffine(label.astype(np.int16), matrix, width_height, flags=flags, borderValue=border_label)
    kept = None
    if parameters.shadow is not None:
        kept = 1 - parameters.shadow.darkness * shadow_cover(parameters.shadow, matrix, image.shape[1:], size)
    return _change_intensities(canvas, parameters, kept), labels.astype(np.int64)


def shadow_cover(shadow: Shadow, matrix: np.ndarray, image_hw: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """Return how much of a shadow lies on each pixel of the canvas, (H, W) float32 in [0, 1].

    matrix: (2, 3), from canvas to image coordinates (x, y). The beams run in the image, from a point above its middle,
    and turn with it.
    """
    height, width = image_hw
    apex = np.array([(width - 1) / 2, -shadow.apex * height])
    start = np.clip(matrix @ [*shadow.start_px[::-1], 1], 0, (width - 1, height - 1)) - apex
    depth = np.hypot(*start)
    across = np.array([start[1], -start[0]]) / depth * shadow.width * width / 2
    edges = [start - across, start + across]
    # far beyond the canvas, whatever of the image that shows
    far = 1 + 2 * (sum(size) * np.abs(matrix[:, :2]).max() + sum(image_hw)) / depth
    corners = np.array([edges[0], edges[1], far * edges[1], far * edges[0]]) + apex
    corners = cv2.transform(corners[None], cv2.invertAffineTransform(matrix))
    cover = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(cover, np.rint(corners * 16).astype(np.int32), 255, shift=4)  # sixteenths of a pixel
    soft = (1 + round(SHADOW_BLUR * min(size)),) * 2
    # two boxes of bytes: a tenth of a Gaussian's time, and exactly nothing beyond them
    return cv2.blur(cv2.blur(cover, soft), soft) / np.float32(255)


def _canvas_to_image(
    parameters: AugmentationParameters, image_hw: tuple[int, ...], size: tuple[int, int]
) -> np.ndarray:
    """Return the (2, 3) matrix from canvas to image coordinates (x, y); it turns about the canvas's centre."""
    origin = parameters.origin
    if origin is None:
        origin = ((image_hw[0] - size[0]) // 2, (image_hw[1] - size[1]) // 2)
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    angle = math.radians(parameters.rotation_deg)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    flip = np.array([-1.0 if parameters.flip_horizontal else 1.0, -1.0 if parameters.flip_vertical else 1.0])
    linear = rotation * flip / parameters.scale
    offset = centre + origin[::-1] - linear @ (centre + parameters.shift_px[::-1])
    return np.column_stack([linear, offset])


def _change_intensities(
    canvas: np.ndarray, parameters: AugmentationParameters, kept: np.ndarray | None = None
) -> np.ndarray:
    """Return the (C, H, W) canvas with its non-black pixels changed. kept: (H, W), what shadows leave of them."""
    from batchgenerators.augmentations.color_augmentations import augment_contrast
    from batchgenerators.augmentations.noise_augmentations import augment_gaussian_noise

    shown = np.flatnonzero(canvas.max(axis=0))
    if not len(shown):
        return canvas
    sigma = parameters.blur_sigma_px
    planes = [cv2.GaussianBlur(plane, (0, 0), sigma) for plane in canvas] if sigma > 0 else canvas
    values = np.stack([plane.ravel()[shown] for plane in planes])  # (C, pixels)
    if parameters.speckle_std > 0:
        values *= 1 + parameters.speckle_std * _speckle(canvas.shape[1:], parameters.noise_seed).ravel()[shown]
    if kept is not None:
        values *= kept.ravel()[shown]
    values *= parameters.brightness
    with _numpy_seeded(parameters.noise_seed):
        if parameters.contrast != 1:  # around the mean of what is shown, within its range
            values = augment_contrast(values, lambda: parameters.contrast, per_channel=False)
        values = np.clip(values, 0, 1)
        if parameters.gamma != 1:
            values **= np.float32(parameters.gamma)
        if parameters.noise_std > 0:  # what batchgenerators calls variance is the standard deviation
            values = augment_gaussian_noise(values, (parameters.noise_std, parameters.noise_std))
    changed = np.zeros_like(canvas)
    changed.reshape(len(canvas), -1)[:, shown] = np.clip(values, 0, 1)
    return changed


def _speckle(size: tuple[int, ...], seed: int) -> np.ndarray:
    """Return (H, W) float32: noise of mean 0 and standard deviation 1 whose grain is some pixels wide."""
    white = np.random.default_rng(seed).standard_normal(size, np.float32)
    field = cv2.GaussianBlur(white, (0, 0), SPECKLE_SIGMA_PX)
    return (field - field.mean()) / field.std()


def _shift(rng: np.random.Generator, side_px: int, plan: Augmentation) -> float:
    return side_px * rng.uniform(-plan.shift, plan.shift)


def _factor(rng: np.random.Generator, strength: float) -> float:
    return rng.uniform(max(0, 1 - strength), 1 + strength)


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return math.exp(rng.uniform(math.log(limits[0]), math.log(limits[1])))


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, which batchgenerators draws from, and put its state back afterwards."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
