"""Between what the network says and labels: probabilities -> labels, and labels -> targets, of pixels and of cases.

K outputs: with the background as output 0 for classes, without it for regions; see ``records/labels.py``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fmseg.errors import BadData
from fmseg.records.labels import ClassScheme, LabelScheme, split_classes

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


def decide(probabilities: np.ndarray, scheme: ClassScheme) -> np.ndarray:
    """Return which classes are decided: (N, K) bool; the likeliest one, or all above one half."""
    if not scheme.is_exclusive:
        return probabilities > 0.5
    return np.arange(probabilities.shape[1]) == probabilities.argmax(axis=1)[:, None]


def shown_classes(decided: np.ndarray, scheme: ClassScheme) -> tuple[str, ...]:
    """Return the names of the decided classes of one case. decided: (K,) bool."""
    return tuple(name for name, is_shown in zip(scheme.names, decided, strict=True) if is_shown)


def targets_from_classes(
    labels: Mapping[str, str], cases: Sequence[str], scheme: ClassScheme, source: Path
) -> np.ndarray:
    """Return (N, K) float32, 1 where a case is of a class. labels: of ``source``, which is named in errors.

    Raises BadData for a case without a label, or with another class, or number of classes, than the scheme has.
    """
    targets = np.zeros((len(cases), len(scheme.names)), np.float32)
    column = {name: index for index, name in enumerate(scheme.names)}
    for row, case in enumerate(cases):
        if case not in labels:
            raise BadData(f"{source}: the case '{case}' is not in it. Add its row: case,label.")
        shown = split_classes(labels[case])
        unknown = [name for name in shown if name not in column]
        if unknown:
            raise BadData(
                f"{source}: the case '{case}' is labelled '{unknown[0]}', and the plan knows "
                f"{', '.join(scheme.names)}. Correct the label, or plan anew: fmseg plan_and_preprocess"
            )
        if scheme.is_exclusive and len(shown) != 1:
            raise BadData(f"{source}: the case '{case}' must have one class and has '{labels[case]}'. Correct its row.")
        targets[row, [column[name] for name in shown]] = 1
    return targets
