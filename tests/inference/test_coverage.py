"""k centres: what is chosen is farthest from what is known, and few images cover many."""

import numpy as np
import pytest

from fmseg.inference.coverage import choose_centres, make_unit


def points(angles_deg) -> np.ndarray:
    angles = np.radians(np.asarray(angles_deg, dtype=float))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_first_is_the_most_usual_and_each_next_one_the_farthest():
    features = points([0, 2, -2, 50, -40, 1])
    found = list(choose_centres(features, 3))
    assert [each.index for each in found] == [5, 3, 4]
    assert np.isinf(found[0].distance)
    assert found[1].distance == pytest.approx(np.linalg.norm(features[5] - features[3]), abs=1e-3)
    assert [each.radius for each in found] == sorted((each.radius for each in found), reverse=True)


def test_what_is_labelled_is_not_asked_for_again():
    features = points([0, 5, 90, 92, 180])
    found = list(choose_centres(features, 10, labelled=features[[0, 4]]))
    assert found[0].index in (2, 3)
    assert {each.index for each in found} == {1, 2, 3}, "copies of labelled images are never chosen"
    assert found[-1].radius == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_the_radius_is_that_of_a_brute_force_and_within_twice_the_best(seed):
    rng = np.random.default_rng(seed)
    features = make_unit(rng.normal(size=(60, 4)).astype(np.float32))
    found = list(choose_centres(features, 7))
    chosen = features[[each.index for each in found]]
    nearest = np.linalg.norm(features[:, None] - chosen[None], axis=2).min(axis=1)
    assert found[-1].radius == pytest.approx(nearest.max(), abs=1e-3)
    # any 7 centres leave two of these 8 points to one of them, so no radius is below half their least distance
    eight = [each.index for each in choose_centres(features, 8)]
    apart = np.linalg.norm(features[eight][:, None] - features[eight][None], axis=2)
    best = apart[~np.eye(8, dtype=bool)].min() / 2
    assert found[-1].radius <= 2 * best + 1e-3


def test_rows_become_of_length_one_and_nothing_stays_nothing():
    features = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    assert make_unit(features) is features
    np.testing.assert_allclose(features, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
