"""What several networks say together: how sure, how much at odds, and which of them to average.

Ensembles are chosen greedily with replacement [1]: from the best network on, the one that helps most is added,
again and again, until none helps.
[1] Caruana et al., Ensemble selection from libraries of models, 2004. https://doi.org/10.1145/1015330.1015432
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np

from fmseg.imaging.decode import labels_from_probabilities
from fmseg.imaging.metrics import confusion, count_outputs, dice_of_counts
from fmseg.inference.scoring import column_means, mean_over_classes
from fmseg.records.labels import LabelScheme

#: how often a network may be added; more changes the average by less than noise
MAX_PICKS = 5
#: a further network must raise the mean Dice, or F1, by this
MIN_GAIN = 1e-4

# K outputs, N cases, C classes, R candidates


def confidence(probabilities: np.ndarray, labels: np.ndarray, scheme: LabelScheme) -> float:
    """Return the mean probability of what was decided, over the predicted foreground, or everywhere if it is empty.

    probabilities: (K, ...); labels: (...), decided from them.
    """
    highest = probabilities.max(axis=0)
    if scheme.has_regions:
        highest = np.where(labels > 0, highest, 1 - highest)
    foreground = labels > 0
    return float(highest[foreground].mean() if foreground.any() else highest.mean())


def disagreement(label_maps: Sequence[np.ndarray], scheme: LabelScheme) -> float:
    """Return 1 minus the mean pairwise foreground Dice of the members' label maps; 0 for one member.

    Two maps agree fully where both are empty.
    """
    pairs = list(combinations(label_maps, 2))
    if not pairs:
        return 0.0
    return 1 - float(np.mean([mean_over_classes(dice_of_case(one, other, scheme)) for one, other in pairs]))


def dice_of_case(prediction: np.ndarray, reference: np.ndarray, scheme: LabelScheme) -> np.ndarray:
    """Return Dice per class or region, (C,), NaN where both are empty."""
    return dice_of_counts(count_outputs(confusion(prediction, reference, scheme), scheme)[:-1])


def mean_dice(table: np.ndarray) -> float:
    """Return the mean over the classes of their means over the cases. table: (N, C), NaN where undefined."""
    return float(mean_over_classes(column_means(table, ["one patient"] * len(table))))


def choose_members(
    load: Callable[[int, str], np.ndarray],
    references: Mapping[str, np.ndarray],
    scheme: LabelScheme,
    *,
    num_candidates: int,
    max_members: int,
) -> list[int]:
    """Return how often each candidate is taken: the greedy ensemble with the highest mean out-of-fold Dice.

    load: (candidate, case) -> probabilities (K, Z, h, w); references: case -> labels (Z, h, w). At most
    ``max_members`` different candidates are taken.
    """
    return pick_greedily(
        lambda picks, allowed: [
            mean_dice(table) for table in _dice_with_one_more(load, references, scheme, picks, allowed)
        ],
        num_candidates=num_candidates,
        max_members=max_members,
    )


def pick_greedily(
    scores_with_one_more: Callable[[Sequence[int], Sequence[int]], Sequence[float]],
    *,
    num_candidates: int,
    max_members: int,
) -> list[int]:
    """Return how often each candidate is taken.

    scores_with_one_more: (how often each is taken so far, which may be added) -> the score with each of those added.
    """
    picks = [0] * num_candidates
    reached = 0.0
    while sum(picks) < MAX_PICKS:
        allowed = [i for i in range(num_candidates) if picks[i] or sum(map(bool, picks)) < max_members]
        found = scores_with_one_more(picks, allowed)
        best = int(np.argmax(found))
        if sum(picks) and found[best] < reached + MIN_GAIN:
            break
        picks[allowed[best]] += 1
        reached = found[best]
        if num_candidates == 1:
            break
    return picks


def weighted_mean(maps: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Return the weighted mean of probability maps of one shape, float32."""
    total = np.zeros(maps[0].shape, dtype=np.float32)
    for each, weight in zip(maps, weights, strict=True):
        total += np.float32(weight) * each
    return total / np.float32(sum(weights))


def _dice_with_one_more(
    load: Callable[[int, str], np.ndarray],
    references: Mapping[str, np.ndarray],
    scheme: LabelScheme,
    picks: Sequence[int],
    allowed: Sequence[int],
) -> np.ndarray:
    """Return the Dice of the ensemble with each allowed candidate added: (R, N, C)."""

    def tables_of(case: str) -> list[np.ndarray]:
        maps = {index: load(index, case) for index in {*allowed, *np.flatnonzero(picks).tolist()}}
        rows = []
        for added in allowed:
            weights = {index: picks[index] + (index == added) for index in maps}
            used = [index for index in maps if weights[index]]
            mean = weighted_mean([maps[index] for index in used], [weights[index] for index in used])
            rows.append(dice_of_case(labels_from_probabilities(mean, scheme), references[case], scheme))
        return rows

    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(tables_of, references))).transpose(1, 0, 2)
