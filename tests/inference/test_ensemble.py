import numpy as np
import pytest
from tiny_run import NESTED, SCHEME, TWO

from fmseg.imaging.decode import labels_from_probabilities
from fmseg.inference.ensemble import choose_members, confidence, dice_of_case, disagreement, mean_dice, weighted_mean


def maps_of(reference, noise, rng):
    """Probabilities (2, Z, h, w) of a network that is right up to its noise."""
    foreground = np.clip(0.5 + 0.25 * (2.0 * reference - 1) + rng.normal(0, noise, reference.shape), 0, 1)
    return np.stack([1 - foreground, foreground]).astype(np.float32)


@pytest.fixture
def references():
    rng = np.random.default_rng(0)
    return {f"c{i}": (rng.random((1, 24, 24)) > 0.6).astype(np.uint8) for i in range(8)}


def chosen(references, noises, max_members=3):
    maps = {}
    for index, noise in enumerate(noises):
        rng = np.random.default_rng(index)
        for case, reference in references.items():
            maps[index, case] = maps_of(reference, noise, rng)
    pick = choose_members(
        lambda index, case: maps[index, case], references, SCHEME, num_candidates=len(noises), max_members=max_members
    )
    return pick, maps


def dice_with(picks, maps, references):
    used = [index for index, count in enumerate(picks) if count]
    rows = []
    for case, reference in references.items():
        mean = weighted_mean([maps[index, case] for index in used], [picks[index] for index in used])
        rows.append(dice_of_case(labels_from_probabilities(mean, SCHEME), reference, SCHEME))
    return mean_dice(np.array(rows))


def test_equally_noisy_networks_are_averaged_and_are_better_together(references):
    picks, maps = chosen(references, [0.4, 0.4, 0.4])
    assert sum(map(bool, picks)) > 1
    singles = [dice_with(np.eye(3, dtype=int)[i], maps, references) for i in range(3)]
    assert dice_with(picks, maps, references) > max(singles) + 0.01


def test_a_useless_network_is_left_out_and_the_best_comes_first(references):
    picks, _ = chosen(references, [3.0, 0.05])
    assert picks[0] == 0 and picks[1] >= 1


def test_no_more_members_than_allowed(references):
    picks, _ = chosen(references, [0.4] * 5, max_members=2)
    assert sum(map(bool, picks)) == 2


def test_one_candidate_is_taken_once(references):
    assert chosen(references, [0.4])[0] == [1]


def test_weighted_mean_by_hand():
    mean = weighted_mean([np.zeros((1, 1, 1, 1)), np.ones((1, 1, 1, 1))], [1, 3])
    assert mean.item() == 0.75 and mean.dtype == np.float32


def test_confidence_is_that_of_the_foreground_and_of_everything_where_there_is_none():
    probabilities = np.array([[0.9, 0.2], [0.1, 0.8]])
    assert confidence(probabilities, np.array([0, 1]), SCHEME) == pytest.approx(0.8)
    assert confidence(probabilities[:, :1], np.array([0]), SCHEME) == pytest.approx(0.9)
    assert confidence(np.array([[0.3], [0.1]]), np.array([0]), NESTED) == pytest.approx(0.7)


def test_disagreement():
    one, other = np.zeros((2, 1, 4, 4), np.uint8)
    one[0, :2], other[0, 1:3] = 1, 1
    assert disagreement([one], SCHEME) == 0.0
    assert disagreement([one, one, one], TWO) == 0.0
    assert disagreement([one, other], SCHEME) == pytest.approx(0.5)
    assert disagreement([one, other, one], SCHEME) == pytest.approx(1 / 3)
    assert disagreement([np.zeros_like(one)] * 2, SCHEME) == 0.0
    assert disagreement([np.zeros_like(one), one], SCHEME) == 1.0
