"""Which sample comes when: a stateless order, and the random numbers that belong to it.

Everything is a function of (seed, counters). So a run that resumes at step 1000 needs no saved state, and
neither the number of workers nor that of ranks changes what is drawn.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np


class Purpose(IntEnum):
    """What random numbers are for; never renumbered, or old runs could not be repeated."""

    ORDER = 1
    PATCHES = 2
    VIEWS = 3
    MASKS = 4


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample of one step."""

    step: int
    #: in the batch of all ranks and micro-batches together
    position: int
    #: how often every sample was drawn before
    epoch: int
    #: of the sample, 0 to num_samples - 1
    index: int


def generator(purpose: Purpose, seed: int, *counters: int) -> np.random.Generator:
    """Return the generator of one thing that is random.

    The purpose stands first, since numpy takes a missing last counter for a zero: without it, the order of
    epoch 3 and the augmentation of sample 0 in epoch 3 would be made of the same numbers.
    """
    return np.random.default_rng((purpose, seed, *counters))


def sample_order(num_samples: int, batch_size: int, seed: int, step: int) -> list[Draw]:
    """Return the samples of one step.

    Batches run through one permutation of all samples an epoch, and across the border of two epochs.
    """
    first = step * batch_size
    return [
        Draw(step, number - first, number // num_samples, _sample(num_samples, seed, number))
        for number in range(first, first + batch_size)
    ]


def _sample(num_samples: int, seed: int, number: int) -> int:
    return int(_permutation(num_samples, seed, number // num_samples)[number % num_samples])


@lru_cache(maxsize=4)
def _permutation(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """Return (num_samples,) uint32, kept for the steps that follow: 8 MB for two million samples."""
    order = generator(Purpose.ORDER, seed, epoch).permutation(num_samples).astype(np.uint32)
    order.setflags(write=False)
    return order
