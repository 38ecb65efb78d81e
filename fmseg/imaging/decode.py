"""Between what the network says and label maps: probabilities -> labels, and labels -> targets.

K outputs: with the background as output 0 for classes, without it for regions; see ``records/labels.py``.
"""

import numpy as np

from fmseg.records.labels import LabelScheme

REGION_THRESHOLD = 0.5


def labels_from_probabilities(probabilities: np.ndarray, scheme: LabelScheme) -> np.ndarray:
    """Decide on one label value per pixel: (K, ...) -> (...) uint8.

    Classes: the most probable output, the first of equals. Regions: each is painted where its probability
    exceeds one half, in order, so that later ones lie on top.
    """
    if len(probabilities) != scheme.num_outputs:
        raise ValueError(f"The scheme has {scheme.num_outputs} outputs, the probabilities {len(probabilities)}.")
    # the number of the winner, counted from 1: since it only grows, maxima do the work of masked assignments and
    # of argmax over the first axis, 25 times as fast
    winner = np.zeros(probabilities.shape[1:], np.uint8)
    highest = None if scheme.has_regions else probabilities[0].copy()
    for number, probability in enumerate(probabilities if highest is None else probabilities[1:], start=1):
        wins = probability > (REGION_THRESHOLD if highest is None else highest)
        np.maximum(winner, wins.view(np.uint8) * np.uint8(number), out=winner)
        if highest is not None:
            np.maximum(highest, probability, out=highest)
    return np.array((0, *scheme.painted), np.uint8).take(winner)


def targets_from_labels(labels: np.ndarray, scheme: LabelScheme) -> np.ndarray:
    """Say which outputs each pixel belongs to: (...) -> (K, ...) uint8, 0 or 1; none where it is to be ignored."""
    groups = scheme.values if scheme.has_regions else ((0,), *scheme.values)
    targets = np.zeros((len(groups), *labels.shape), np.uint8)
    for target, values in zip(targets, groups, strict=True):
        for value in values:
            target |= labels == value
    return targets
