"""Plan the U-Net that others are compared with: nnU-Net's rules for an image of this size [1].

Its depth, kernels and strides follow from the prepared image alone; its width and the way it learns also from the
machine and the length of the run, since nnU-Net's own 250,000 steps are out of reach for most of ours.
[1] Isensee et al., nnU-Net, 2021. https://doi.org/10.1038/s41592-020-01008-z
"""

import math
from collections.abc import Sequence

from fmseg.planning.reasons import Decision, Reasons
from fmseg.records.plans import Hardware, Preprocessing, Reason
from fmseg.records.recipe import Optimisation, UNetShape

#: shortest side of the deepest maps
MIN_SIDE = 4
#: DynUNet needs an encoder of at least so many stages
MIN_STAGES = 3
#: an axis this much coarser than the finest is left alone until the finest has become as coarse
ANISOTROPY = 2.0
#: the widest stage, in units of the first one's width
MOST_DOUBLINGS = 4
BASE_FEATURES = {"cuda": 32, "mps": 16, "cpu": 16}
#: from so many steps on, SGD with nnU-Net's long memory has the time that it needs; found by trial: LOG.md
SGD_ITERATIONS = 1000

Pair = tuple[int, int]


def plan_unet(
    size: Pair, preprocessing: Preprocessing, hardware: Hardware, iterations: int, learning_rate: float
) -> tuple[UNetShape, Optimisation, tuple[Reason, ...]]:
    """Return the shape of the U-Net for an input of ``size`` (height, width) in pixels, and how it learns.

    learning_rate: planned for random weights under AdamW.
    """
    reasons = Reasons("finetuning")
    kernels, strides = stages_of(size, preprocessing.spacing_mm or (1.0, 1.0))
    because = (
        f"nnU-Net's: {size[0]}x{size[1]} pixels are halved until a side would fall below {MIN_SIDE}; kernels of 3, "
        f"of 1 along an axis whose pixels are {ANISOTROPY:g} times as coarse"
    )
    reasons.share(("unet.kernels", "unet.strides"), because)
    base = BASE_FEATURES[hardware.device]
    features = tuple(base * 2 ** min(stage, MOST_DOUBLINGS) for stage in range(len(strides)))
    because = f"{base} at full resolution, twice as many a stage, {features[-1]} at most"
    because += (
        ", as in nnU-Net" if hardware.device == "cuda" else "; half of nnU-Net's without a GPU: a quarter of its cost"
    )
    reasons.share(("unet.features",), because)
    reasons.share(("unet.supervision",), "nnU-Net's: halved with each resolution, none for the coarsest, 1 in all")
    supervision = supervision_of(len(strides) - 1)
    optimisation, because = optimisation_of(iterations, learning_rate)
    reasons.share(tuple(f"unet_optimisation.{name}" for name in Optimisation.model_fields), because)
    shape = UNetShape(features=features, kernels=kernels, strides=strides, supervision=supervision)
    return shape, optimisation, reasons.all()


def stages_of(size: Pair, spacing: tuple[float, float]) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Return kernels and strides (y, x) of each stage, the first one at full resolution."""
    sides, pixels = list(size), list(spacing)
    kernels, strides = [_kernel(pixels)], [(1, 1)]
    while any(halved := _halved(sides, pixels)) or len(strides) < MIN_STAGES:
        # a tiny image is filled up to what three stages need
        stride = (1 + halved[0], 1 + halved[1]) if any(halved) else (2, 2)
        sides = [math.ceil(side / factor) for side, factor in zip(sides, stride, strict=True)]
        pixels = [pixel * factor for pixel, factor in zip(pixels, stride, strict=True)]
        kernels.append(_kernel(pixels))
        strides.append(stride)
    return tuple(kernels), tuple(strides)


def _halved(sides: Sequence[int], pixels: Sequence[float]) -> tuple[bool, bool]:
    """Return which axes the next stage halves."""
    long = [side >= 2 * MIN_SIDE for side in sides]
    finest = min((pixel for pixel, is_long in zip(pixels, long, strict=True) if is_long), default=0.0)
    first, second = (is_long and pixel < ANISOTROPY * finest for pixel, is_long in zip(pixels, long, strict=True))
    if first != second and max(side for side, halves in zip(sides, (first, second), strict=True) if halves) < (
        3 * MIN_SIDE
    ):
        return False, False  # one side alone, and hardly long enough
    return first, second


def _kernel(pixels: Sequence[float]) -> Pair:
    first, second = (3 if pixel < ANISOTROPY * min(pixels) else 1 for pixel in pixels)
    return first, second


def supervision_of(num_resolutions: int) -> tuple[float, ...]:
    """Return the shares of the loss at each resolution of the decoder but the coarsest; they add up to 1."""
    weights = [2.0**-index for index in range(max(1, num_resolutions - 1))]
    return tuple(round(weight / sum(weights), 4) for weight in weights)


def unet_gflop(shape: UNetShape, size: Pair) -> float:
    """Return the operations of a forward pass per image of ``size`` (height, width), in units of 10^9."""
    (height, width), inputs, products = size, 1, 0
    deeper = [*shape.features[1:], 0]  # the bottleneck has no stage below it, and no way up
    for features, below, kernel, stride in zip(shape.features, deeper, shape.kernels, shape.strides, strict=True):
        height, width = math.ceil(height / stride[0]), math.ceil(width / stride[1])
        down = (inputs + features) * features
        up = 3 * features**2 if below else 0
        products += height * width * (math.prod(kernel) * (down + up) + below * features)
        inputs = features
    return 2 * products / 1e9


def optimisation_of(iterations: int, learning_rate: float) -> Decision[Optimisation]:
    """Return how a U-Net learns in so many steps. learning_rate: planned for random weights under AdamW."""
    if iterations >= SGD_ITERATIONS:
        return Optimisation(
            optimizer="sgd", learning_rate=0.01, momentum=0.99, weight_decay=3e-5, schedule_power=0.9, clip_norm=12.0
        ), f"nnU-Net's own, in a run of {iterations:,} steps"
    return Optimisation(
        optimizer="adamw",
        learning_rate=learning_rate,
        momentum=0.0,
        weight_decay=0.01,
        schedule_power=1.0,
        clip_norm=1.0,
    ), (
        f"that of random weights: nnU-Net's SGD remembers 100 steps and lags behind in short runs; {iterations:,} are "
        f"below {SGD_ITERATIONS:,}"
    )
