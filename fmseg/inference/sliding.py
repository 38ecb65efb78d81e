"""From normalised images of any size to probability maps: padding, windows, mirroring, and their average.

An image smaller than the network's input is centred on black, as in training; a larger one is cut into windows
that overlap by half and are weighted by a Gaussian, so that borders count less. The windows of all images are
computed together, in batches.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

from fmseg.errors import is_out_of_memory

logger = logging.getLogger(__name__)

# C channels, K outputs, H W the network's input, h w an image

OVERLAP = 0.5
#: standard deviation of a window's weights, as share of its side
SIGMA_SHARE = 1 / 8
#: images on the device at once, in batches: a volume may have hundreds
IMAGES_PER_BATCH = 8
#: no pixel of a window counts less than this
MIN_WEIGHT = 1e-3

AXES = {"vertical": -2, "horizontal": -1}
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Sliding:
    """How the network is run over images."""

    #: (H, W) in pixels
    input_size: tuple[int, int]
    #: "horizontal", "vertical"; every combination of them is averaged
    mirror_axes: tuple[str, ...]
    #: regions are independent (sigmoid), classes exclude each other (softmax)
    has_regions: bool
    #: what black is once normalised, per channel
    black: tuple[float, ...]
    batch_size: int
    precision: Precision = "float32"


@dataclass(frozen=True, slots=True)
class _Window:
    image: int
    rows: slice
    columns: slice


@torch.inference_mode()
def predict_batch(model: nn.Module, images: Sequence[Tensor], sliding: Sliding) -> list[Tensor]:
    """Return the probabilities (K, h, w) of each image, float32 on the CPU.

    images: (C, h, w) float32, normalised, of any sizes. The model must be in evaluation mode; it maps
    (B, C, H, W) to logits (B, K, H, W).
    """
    answers: list[Tensor] = []
    group = IMAGES_PER_BATCH * sliding.batch_size
    for start in range(0, len(images), group):
        answers += _predict_group(model, images[start : start + group], sliding)
    return answers


def _predict_group(model: nn.Module, images: Sequence[Tensor], sliding: Sliding) -> list[Tensor]:
    """Predict as many images as may lie on the device at once."""
    device = next(model.parameters()).device
    images = [image.to(device, non_blocking=True) for image in images]
    totals: list[Tensor] = []
    flips = mirrorings(sliding.mirror_axes)
    for axes in flips:
        # whole images are mirrored, not windows: so a mirrored image gives the mirrored answer, windows or not
        maps = _predict_unmirrored(model, [image.flip(axes) if axes else image for image in images], sliding)
        maps = [each.flip(axes) if axes else each for each in maps]
        totals = [total.add_(each) for total, each in zip(totals, maps, strict=True)] if totals else maps
    return [(total / len(flips)).cpu() for total in totals]


def mirrorings(axes: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the axes to flip for every combination of mirrorings, none first."""
    numbers = [AXES[axis] for axis in axes]
    return [chosen for count in range(len(numbers) + 1) for chosen in combinations(numbers, count)]


def window_starts(size: int, window: int) -> list[int]:
    """Return where windows begin along one axis: every half window, the last one flush with the end."""
    return [*range(0, size - window, max(1, int(window * (1 - OVERLAP)))), size - window]


@lru_cache(maxsize=8)
def window_weights(size: tuple[int, int], device: torch.device) -> Tensor:
    """Return the weight of each pixel of a window, (H, W), highest in the middle."""
    curves = []
    for side in size:
        places = torch.arange(side, dtype=torch.float32, device=device) - (side - 1) / 2
        curves.append(torch.exp(-0.5 * (places / (SIGMA_SHARE * side)) ** 2))
    return (curves[0][:, None] * curves[1][None, :]).clamp_(min=MIN_WEIGHT)


def _predict_unmirrored(model: nn.Module, images: Sequence[Tensor], sliding: Sliding) -> list[Tensor]:
    height, width = sliding.input_size
    sums: list[Tensor] = []
    covered: list[Tensor] = []
    canvases = [centred_on_black(image, sliding) for image in images]
    windows = [
        _Window(index, slice(top, top + height), slice(left, left + width))
        for index, canvas in enumerate(canvases)
        for top in window_starts(canvas.shape[-2], height)
        for left in window_starts(canvas.shape[-1], width)
    ]
    weights = window_weights(sliding.input_size, images[0].device)
    for window, maps in _window_probabilities(model, canvases, windows, sliding):
        if len(sums) == window.image:  # its first window
            sums.append(maps.new_zeros(len(maps), *canvases[window.image].shape[-2:]))
            covered.append(maps.new_zeros(canvases[window.image].shape[-2:]))
        sums[window.image][:, window.rows, window.columns] += maps * weights
        covered[window.image][window.rows, window.columns] += weights
    maps_of_images = []
    for image, total, weight in zip(images, sums, covered, strict=True):
        top, left = _margins(image, sliding.input_size)
        rows, columns = slice(top, top + image.shape[-2]), slice(left, left + image.shape[-1])
        maps_of_images.append(total[:, rows, columns] / weight[rows, columns])
    return maps_of_images


def centred_on_black(image: Tensor, sliding: Sliding) -> Tensor:
    """Return the image (C, h, w) in the middle of a black canvas of at least the network's input size."""
    height, width = (max(have, need) for have, need in zip(image.shape[-2:], sliding.input_size, strict=True))
    if (height, width) == tuple(image.shape[-2:]):
        return image
    canvas = image.new_tensor(sliding.black)[:, None, None].repeat(1, height, width)
    top, left = _margins(image, sliding.input_size)
    canvas[:, top : top + image.shape[-2], left : left + image.shape[-1]] = image
    return canvas


def _margins(image: Tensor, input_size: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns of black before the image; the odd one lies here, as in training."""
    top, left = (max(0, need - have + 1) // 2 for have, need in zip(image.shape[-2:], input_size, strict=True))
    return top, left


def _window_probabilities(
    model: nn.Module, canvases: Sequence[Tensor], windows: Sequence[_Window], sliding: Sliding
) -> Iterator[tuple[_Window, Tensor]]:
    """Yield each window with its probabilities (K, H, W) float32, in order."""
    start, batch_size = 0, sliding.batch_size
    while start < len(windows):
        batch = windows[start : start + batch_size]
        cuts = [canvases[window.image][:, window.rows, window.columns] for window in batch]
        try:
            maps = _probabilities(model, torch.stack(cuts), sliding)
        except (RuntimeError, MemoryError) as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
            batch_size //= 2
            torch.cuda.empty_cache()
            logger.warning("Out of device memory: going on with %d images at a time.", batch_size)
            continue
        yield from zip(batch, maps, strict=True)
        start += len(batch)


def _probabilities(model: nn.Module, batch: Tensor, sliding: Sliding) -> Tensor:
    dtype = autocast_dtype(batch.device, sliding.precision)
    with torch.autocast(batch.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        logits = model(batch)
    return logits.float().sigmoid() if sliding.has_regions else logits.float().softmax(dim=1)


@lru_cache(maxsize=8)
def autocast_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """Return the type to compute in, None for float32: a run's precision where this device has it.

    A model may predict on another machine than it was trained on, so what is missing here becomes float32.
    """
    if precision == "float16" and device.type == "cuda":
        return torch.float16
    if precision == "bfloat16" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    if precision == "bfloat16" and device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return None
