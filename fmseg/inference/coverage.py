"""Which few images stand for many: k centres in feature space, one after the other the farthest from those chosen.

Greedy choice comes within a factor of two of the smallest radius that so many centres can have [1]; as active learning
it needs nothing but features [2]. A step is one product of all features with one of them: two million images of 384
numbers take 3 GB and, for each centre, one pass over them.
[1] Gonzalez, Clustering to minimize the maximum intercluster distance, 1985. doi.org/10.1016/0304-3975(85)90224-5
[2] Sener and Savarese, Active learning for convolutional neural networks: a core-set approach, 2018. arXiv:1708.00489

Legend: N images, D width, L images that are labelled already, k centres.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

#: labelled images that are compared with all others at once
BLOCK = 64
#: distances below this are of equal images, whatever rounding says
EQUAL = 1e-3


@dataclass(frozen=True, slots=True)
class Centre:
    """One image that was chosen."""

    index: int
    #: to the nearest one that is labelled or chosen before; infinite for a first one
    distance: float
    #: the largest distance of any image to its nearest centre, once this one is chosen
    radius: float


def make_unit(features: np.ndarray) -> np.ndarray:
    """Scale features (N, D) float32 to length one, in place: then the distance depends on the angle alone."""
    features /= np.maximum(np.sqrt(np.einsum("nd,nd->n", features, features))[:, None], 1e-12)
    return features


def choose_centres(features: np.ndarray, count: int, labelled: np.ndarray | None = None) -> Iterator[Centre]:
    """Yield at most ``count`` images of (N, D), each the farthest from those before it and from ``labelled`` (L, D).

    Both of unit length. Without labelled ones the first is the image nearest to the mean, the most usual one. It ends
    early where only copies of what is chosen are left.
    """
    nearest = np.full(len(features), np.inf, np.float32)  # squared distance
    given = np.empty((0, features.shape[1]), np.float32) if labelled is None else labelled
    for first in range(0, len(given), BLOCK):
        _approach(nearest, 2 - 2 * (features @ given[first : first + BLOCK].T).max(axis=1))
    for number in range(min(count, len(features))):
        is_first = number == 0 and not len(given)
        index = int(np.argmax(features @ features.mean(axis=0))) if is_first else int(np.argmax(nearest))
        distance = float(np.sqrt(nearest[index]))
        if distance < EQUAL:
            return
        _approach(nearest, 2 - 2 * (features @ features[index]))
        nearest[index] = 0.0
        yield Centre(index, distance, float(np.sqrt(nearest.max())))


def _approach(nearest: np.ndarray, squared: np.ndarray) -> None:
    np.minimum(nearest, np.maximum(squared, 0.0), out=nearest)
