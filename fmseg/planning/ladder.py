"""How large a network, how large its views, how many samples: one ladder for every amount of data and time.

A rung is a ViT with its views. Time goes into length first: a rung is run until the next one, which costs up to four
times as much a sample, could see as many samples in the same time. So more time never means fewer samples. How many
samples can be of use is bounded by the images: 40 passes over a million of them, as in [1], more over fewer.
[1] Ambsdorf et al., General Methods Make Great Domain-specific Foundation Models, 2025.
    https://arxiv.org/abs/2506.19552
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from fmseg.records.plans import Hardware

#: time of a pretraining if none is given
DEFAULT_BUDGET_S = {"cpu": 30 * 60.0, "mps": 2 * 3600.0, "cuda": 24 * 3600.0}

#: passes over a set of a million images or more
PASSES = 40
PASSES_IMAGES = 1_000_000
#: never more passes than this over a small set
MAX_PASSES = 2000
#: a rung is for sets that can give at least this share of the samples that it is meant for
MIN_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Rung:
    """A ViT and its views, meant for runs of at least ``samples`` samples."""

    name: str
    width: int
    depth: int
    num_heads: int
    num_registers: int
    global_px: int
    local_px: int
    samples: int


#: a fifth to a half of a sample seen per weight (the paper: one, with 85 million weights); assumed, not tried
RUNGS = (
    Rung("vit_tiny_d6", 192, 6, 3, 0, 112, 48, 0),
    Rung("vit_tiny", 192, 12, 3, 0, 112, 48, 1_000_000),
    Rung("vit_tiny", 192, 12, 3, 0, 160, 64, 2_500_000),
    Rung("vit_small", 384, 12, 6, 4, 160, 64, 5_000_000),
    Rung("vit_small", 384, 12, 6, 4, 224, 96, 10_000_000),
    Rung("vit_base", 768, 12, 12, 4, 224, 96, 40_000_000),
)

#: rung, samples -> seconds that they take
Clock = Callable[[Rung, int], float]


@dataclass(frozen=True, slots=True)
class Climb:
    """The rung that was reached, and what stopped there."""

    rung: Rung
    samples: int
    budget_s: float
    #: at most so many samples of these images are of use
    useful_samples: int
    #: the next rung, and the time that it would need; None on the last one that these images can feed
    next_rung: Rung | None
    next_seconds: float


def useful_samples(num_images: int) -> int:
    """Return the number of samples beyond which a set of images has nothing more to give.

    The passes grow with the inverse root of the number of images, so the samples grow with the root.
    """
    passes = min(MAX_PASSES, PASSES * max(1.0, math.sqrt(PASSES_IMAGES / num_images)))
    return round(passes * num_images)


def default_budget_s(hardware: Hardware) -> float:
    """Return the time of a pretraining on this machine if none was given."""
    return DEFAULT_BUDGET_S[hardware.device]


def climb(num_images: int, budget_s: float, clock: Clock) -> Climb:
    """Return the highest rung that pays within ``budget_s``, and the samples that it sees.

    clock: must not fall with the samples.
    """
    useful = useful_samples(num_images)
    rungs = [rung for rung in RUNGS if rung.samples * MIN_SHARE <= useful]
    # the largest network only where it sees all; those below it from the samples that they are meant for
    entry = [useful if rung is RUNGS[-1] else min(rung.samples, useful) for rung in rungs]
    reached = max(i for i, rung in enumerate(rungs) if i == 0 or clock(rung, entry[i]) <= budget_s)
    is_last = reached + 1 == len(rungs)
    most = useful if is_last else entry[reached + 1]
    least = min(entry[reached], most)
    following = None if is_last else rungs[reached + 1]
    return Climb(
        rung=rungs[reached],
        samples=most_within(budget_s, least, most, lambda samples: clock(rungs[reached], samples)),
        budget_s=budget_s,
        useful_samples=useful,
        next_rung=following,
        next_seconds=clock(following, most) if following is not None else math.inf,
    )


def most_within(budget_s: float, least: int, most: int, seconds: Callable[[int], float]) -> int:
    """Return the largest number from ``least`` to ``most`` that takes at most ``budget_s``, else ``least``."""
    if seconds(most) <= budget_s:
        return most
    low, high = least, most
    while high - low > 1:
        middle = (low + high) // 2
        if seconds(middle) <= budget_s:
            low = middle
        else:
            high = middle
    return low
