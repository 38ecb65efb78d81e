"""How much a label is at odds with what networks say that have not learned from it.

The measure is 1 minus the probability that they give to the label: near 1 where they are sure of something else, about
a half where they do not know [1]. Of a label map it is the mean over all pixels that are labelled, or predicted, to be
anything: the background around is easy, and would hide what is wrong.
[1] Northcutt et al., Confident learning: estimating uncertainty in dataset labels, 2021. arXiv:1911.00068
"""

import numpy as np

from fmseg.imaging.decode import labels_from_probabilities, targets_from_labels
from fmseg.records.labels import ClassScheme, LabelScheme


def doubt_of_map(probabilities: np.ndarray, labels: np.ndarray, scheme: LabelScheme) -> tuple[float, np.ndarray]:
    """Return the doubt about a label map, and per slice the sum of that of its pixels (Z,).

    probabilities: (K, Z, h, w); labels: (Z, h, w). 0 where nothing is labelled, nor predicted.
    """
    targets = targets_from_labels(labels, scheme).astype(bool)
    given = np.where(targets, probabilities, 0.0).sum(axis=0)
    if scheme.has_regions:
        given = np.where(targets, probabilities, 1 - probabilities).mean(axis=0)
    counts = (labels > 0) | (labels_from_probabilities(probabilities, scheme) > 0)
    if scheme.ignore is not None:
        counts &= labels != scheme.ignore
    doubts = np.where(counts, 1 - given, 0.0)
    return float(doubts.sum() / max(1, counts.sum())), doubts.sum(axis=(1, 2))


def doubt_of_classes(probabilities: np.ndarray, targets: np.ndarray, scheme: ClassScheme) -> np.ndarray:
    """Return the doubt about the classes of cases, (N,); of several classes that of the most doubtful one.

    probabilities, targets: (N, K).
    """
    if scheme.is_exclusive:
        doubts: np.ndarray = 1 - (probabilities * targets).sum(axis=1)
        return doubts
    doubts = np.abs(targets - probabilities).max(axis=1)
    return doubts
