"""Block masks: counts, strata, shapes."""

import numpy as np
import pytest

from fmseg.imaging.masking import sample_masks

RATIO = (0.1, 0.5)


@pytest.mark.parametrize("grid", [(14, 14), (16, 16), (9, 14), (7, 7)])
def test_counts_fill_one_stratum_each(grid):
    num_patches = grid[0] * grid[1]
    edges = np.linspace(*RATIO, 33) * num_patches
    for seed in range(10):
        masks = sample_masks(np.random.default_rng(seed), 64, grid, 0.5, RATIO)
        assert masks.shape == (64, num_patches)
        assert masks.dtype == bool
        counts = np.sort(masks.sum(axis=1))
        assert (counts[:32] == 0).all()
        assert (counts[32:] >= np.floor(edges[:-1]) - 3).all()
        assert (counts[32:] <= edges[1:]).all()


def test_the_mean_share_is_that_of_the_published_masks():
    masks = [sample_masks(np.random.default_rng(seed), 64, (14, 14), 0.5, RATIO) for seed in range(30)]
    assert np.mean(masks) == pytest.approx(0.297 / 2, abs=0.002)


def test_masks_are_blocks_and_not_scattered_patches():
    masks = sample_masks(np.random.default_rng(0), 100, (14, 14), 1.0, (0.3, 0.3))
    scattered = np.random.default_rng(0).permuted(masks, axis=1)

    def edges(flat):
        maps = flat.reshape(-1, 14, 14)
        return (maps[:, 1:] != maps[:, :-1]).sum() + (maps[:, :, 1:] != maps[:, :, :-1]).sum()

    assert edges(masks) < 0.5 * edges(scattered)


def test_a_single_rectangle_lies_in_the_rows_and_columns_of_the_grid():
    masks = sample_masks(np.random.default_rng(0), 1000, (6, 20), 1.0, (4.01 / 120, 4.99 / 120))
    maps = masks.reshape(-1, 6, 20)
    whole = [m for m in maps if m.any(axis=0).sum() * m.any(axis=1).sum() == m.sum()]
    assert len(whole) > 500
    assert {(m.any(axis=1).sum(), m.any(axis=0).sum()) for m in whole} >= {(1, 4), (2, 2), (4, 1)}
    share = maps.mean(axis=0)
    assert (share > 0).all()


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (5, 1), (2, 2), (3, 4)])
def test_tiny_grids_hide_at_least_one_patch_and_never_too_many(grid):
    for seed in range(20):
        counts = sample_masks(np.random.default_rng(seed), 8, grid, 0.5, RATIO).sum(axis=1)
        assert (counts > 0).sum() == 4
        assert counts.max() <= max(1, 0.5 * grid[0] * grid[1])


def test_probability_and_order():
    rng = np.random.default_rng(0)
    assert (sample_masks(rng, 7, (7, 7), 0.5, RATIO).any(axis=1)).sum() == 3
    assert not sample_masks(rng, 4, (7, 7), 0.0, RATIO).any()
    shown = np.mean([sample_masks(rng, 4, (7, 7), 0.5, RATIO).any(axis=1) for _ in range(300)], axis=0)
    np.testing.assert_allclose(shown, 0.5, atol=0.1)


def test_one_seed_gives_one_result():
    first, second, other = (sample_masks(np.random.default_rng(s), 16, (14, 14), 0.5, RATIO) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
