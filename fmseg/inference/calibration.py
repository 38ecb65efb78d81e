"""Probabilities that mean what they say: how far they are off, and the temperature that mends it [1].

[1] Guo et al., On calibration of modern neural networks, 2017. https://arxiv.org/abs/1706.04599
"""

import numpy as np

from fmseg.records.labels import ClassScheme

#: of equal width, from 0 to 1
NUM_BINS = 15
#: probabilities are kept so far from 0 and 1 before their logarithm is taken
TINY = 1e-12
#: a temperature outside says that there were too few cases to fit it
COLDEST, HOTTEST = 0.05, 20.0

# N cases, K classes


def tempered(probabilities: np.ndarray, temperature: float, scheme: ClassScheme) -> np.ndarray:
    """Return probabilities (N, K) as if the logits had been divided by ``temperature``."""
    if temperature == 1.0:
        return probabilities
    clipped = np.clip(probabilities, TINY, 1 - TINY)
    if not scheme.is_exclusive:
        return 1 / (1 + ((1 - clipped) / clipped) ** (1 / temperature))
    powers = (clipped / clipped.max(axis=1, keepdims=True)) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, targets: np.ndarray, scheme: ClassScheme) -> float:
    """Return the temperature with the lowest cross-entropy, rounded to three digits.

    probabilities, targets: (N, K), of cases that the networks were not trained on.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return cross_entropy(tempered(probabilities, float(np.exp(log_temperature)), scheme), targets, scheme)

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(f"{np.exp(found.x):.3g}")


def cross_entropy(probabilities: np.ndarray, targets: np.ndarray, scheme: ClassScheme) -> float:
    """Return the mean negative log-likelihood of the targets (N, K), summed over the classes."""
    clipped = np.clip(probabilities, TINY, 1 - TINY)
    likely = targets * np.log(clipped)
    if not scheme.is_exclusive:
        likely = likely + (1 - targets) * np.log(1 - clipped)
    return float(-likely.sum(axis=1).mean())


def calibration_error(confidence: np.ndarray, is_right: np.ndarray) -> float:
    """Return the expected calibration error: the mean gap of confidence and accuracy over ``NUM_BINS`` bins.

    confidence: (N,) in [0, 1]; is_right: (N,) bool. Each bin counts by its cases.
    """
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - is_right, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(confidence))
