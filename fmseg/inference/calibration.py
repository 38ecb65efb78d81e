"""Probabilities that mean what they say: how far they are off, and the temperature that mends it [1].

Cases without an error would be fitted by more and more certainty. So it is fitted on targets that are themselves only
as certain as so many patients allow [2].

[1] Guo et al., On calibration of modern neural networks, 2017. https://arxiv.org/abs/1706.04599
[2] Platt, Probabilistic outputs for support vector machines, 1999.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fmseg.inference.scoring import column_means, draw_patients
from fmseg.records.labels import ClassScheme

#: of equal width, from 0 to 1
NUM_BINS = 15
#: probabilities are kept so far from 0 and 1 before their logarithm is taken
TINY = 1e-12
#: a colder one is more certainty than cases can support; at the hottest nearly nothing of it is left
COLDEST, HOTTEST = 0.05, 20.0
#: a temperature must lower the cross-entropy in this share of the resamplings of the patients
SURE = 0.95

# N cases, K classes, P patients


class Calibration(NamedTuple):
    """A temperature, and why it is this one."""

    temperature: float
    because: str


def tempered(probabilities: np.ndarray, temperature: float, scheme: ClassScheme) -> np.ndarray:
    """Return probabilities (N, K) as if the logits had been divided by ``temperature``."""
    if temperature == 1.0:
        return probabilities
    clipped = np.clip(probabilities, TINY, 1 - TINY)
    if not scheme.is_exclusive:
        return 1 / (1 + ((1 - clipped) / clipped) ** (1 / temperature))
    powers = (clipped / clipped.max(axis=1, keepdims=True)) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def calibrate(
    probabilities: np.ndarray, targets: np.ndarray, scheme: ClassScheme, patients: Sequence[str]
) -> Calibration:
    """Return the fitted temperature where it is surely better than none, else 1.

    probabilities, targets: (N, K), of cases that the networks were not trained on; patients: (N,), of the cases.
    """
    temperature = fit_temperature(probabilities, targets, scheme, patients)
    count = len(set(patients))
    if temperature < 1.01 * COLDEST:
        return Calibration(1.0, f"temperature 1 stays: {count} patients are too few to fit another")
    losses = np.stack(
        [case_losses(each, targets, scheme) for each in (probabilities, tempered(probabilities, temperature, scheme))],
        axis=1,
    )  # (N, 2)
    without, with_it = column_means(losses, patients, draw_patients(patients)).T
    share, (before, after) = float(np.mean(with_it < without)), losses.mean(axis=0)
    draws = f"{share:.0%} of the resamplings of {count} patients"
    if share < SURE:
        because = f"temperature 1 stays: {temperature} would lower the cross-entropy in {draws}, not {SURE:.0%}"
        return Calibration(1.0, because)
    because = f"temperature {temperature} takes the cross-entropy from {before:.3f} to {after:.3f}, lower in {draws}"
    if temperature > 0.99 * HOTTEST:
        because += "; there is none hotter, and the probabilities tell hardly anything about the classes"
    return Calibration(temperature, because)


def fit_temperature(
    probabilities: np.ndarray, targets: np.ndarray, scheme: ClassScheme, patients: Sequence[str]
) -> float:
    """Return the temperature with the lowest cross-entropy to ``cautious_targets``, rounded to three digits."""
    from scipy.optimize import minimize_scalar

    cautious = cautious_targets(targets, scheme, patients)

    def loss(log_temperature: float) -> float:
        return cross_entropy(tempered(probabilities, float(np.exp(log_temperature)), scheme), cautious, scheme)

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(f"{np.exp(found.x):.3g}")


def cautious_targets(targets: np.ndarray, scheme: ClassScheme, patients: Sequence[str]) -> np.ndarray:
    """Return targets (N, K) that are as certain as the patients allow: of n with a class, (n + 1) / (n + 2).

    As if one patient more had been right and one wrong. Patients count, not cases: a hundred images of one patient
    tell little about the next. Where classes exclude each other, the others share what is left.
    """
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    is_of = targets > 0.5

    def patients_with(which: np.ndarray) -> np.ndarray:
        found = np.zeros((len(names), which.shape[1]), bool)
        np.logical_or.at(found, owner, which)
        return found.sum(axis=0)

    doubt = 1 / (patients_with(is_of) + 2)  # (K,)
    if scheme.is_exclusive:
        of_case = (is_of @ doubt)[:, None]  # (N, 1)
        return np.where(is_of, 1 - of_case, of_case / max(targets.shape[1] - 1, 1))
    return np.where(is_of, 1 - doubt, 1 / (patients_with(~is_of) + 2))


def cross_entropy(probabilities: np.ndarray, targets: np.ndarray, scheme: ClassScheme) -> float:
    """Return the mean over the cases of ``case_losses``."""
    return float(case_losses(probabilities, targets, scheme).mean())


def case_losses(probabilities: np.ndarray, targets: np.ndarray, scheme: ClassScheme) -> np.ndarray:
    """Return the negative log-likelihood of the targets (N, K) of each case, summed over the classes: (N,)."""
    clipped = np.clip(probabilities, TINY, 1 - TINY)
    likely = targets * np.log(clipped)
    if not scheme.is_exclusive:
        likely = likely + (1 - targets) * np.log(1 - clipped)
    losses: np.ndarray = -likely.sum(axis=1)
    return losses


def calibration_error(confidence: np.ndarray, is_right: np.ndarray) -> float:
    """Return the expected calibration error: the mean gap of confidence and accuracy over ``NUM_BINS`` bins.

    confidence: (N,) in [0, 1]; is_right: (N,) bool. Each bin counts by its cases.
    """
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - is_right, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(confidence))
