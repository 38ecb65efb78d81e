import itertools

import numpy as np
import pytest
import torch

from fmseg.errors import BadData
from fmseg.imaging.metrics import background_counts, confusion, contour_distances, count_outputs, score_case
from fmseg.records.labels import LabelScheme

ONE = LabelScheme(names=("a",), values=((1,),), painted=(1,), has_regions=False, ignore=None)
TWO = LabelScheme(names=("a", "b"), values=((1,), (2,)), painted=(1, 2), has_regions=False, ignore=3)
NESTED = LabelScheme(names=("whole", "core"), values=((1, 2), (2,)), painted=(1, 2), has_regions=True, ignore=None)


def square(top, left, side=2, size=8, value=1):
    labels = np.zeros((1, size, size), np.uint8)
    labels[0, top : top + side, left : left + side] = value
    return labels


def test_dice_of_two_squares_that_share_one_pixel():
    score = score_case(square(0, 0), square(1, 1), ONE, None, None)["a"]
    assert (score.tp, score.fp, score.fn, score.tn) == (1, 3, 3, 57)
    assert score.dice == pytest.approx(2 / 8)
    assert score.iou == pytest.approx(1 / 7)


def test_empty_masks_follow_the_rule():
    empty, full = np.zeros((1, 8, 8), np.uint8), square(2, 2)
    both = score_case(empty, empty, ONE, None, 2.0)["a"]
    assert (both.dice, both.iou, both.hd95, both.assd, both.nsd) == (None,) * 5
    for pair in ((empty, full), (full, empty)):
        one = score_case(*pair, ONE, None, 2.0)["a"]
        assert (one.dice, one.iou, one.hd95, one.assd, one.nsd) == (0.0, 0.0, None, None, 0.0)


def test_identical_masks_are_perfect():
    score = score_case(square(2, 3), square(2, 3), ONE, (1.0, 0.5, 0.5), 1.0)["a"]
    assert (score.dice, score.iou, score.hd95, score.assd, score.nsd) == (1.0, 1.0, 0.0, 0.0, 1.0)


def test_ignored_pixels_count_nowhere():
    reference = square(2, 2, side=4)
    reference[0, :, 4:] = 3
    whole, cut = square(2, 2, side=4), square(2, 2, side=4)
    cut[0, :, 4:] = 0
    assert score_case(whole, reference, TWO, None, 2.0) == score_case(cut, reference, TWO, None, 2.0)
    assert score_case(whole, reference, TWO, None, 2.0)["a"].dice == 1.0
    assert background_counts(whole, reference, TWO) == (32 - 8, 0, 0)


def test_regions_are_scored_as_unions():
    prediction, reference = square(0, 0, side=4, value=1), square(0, 0, side=4, value=2)
    scores = score_case(prediction, reference, NESTED, None, None)
    assert scores["whole"].dice == 1.0
    assert scores["core"].dice == 0.0


def test_an_undeclared_value_and_another_shape_are_refused():
    with pytest.raises(BadData, match="holds the value 9"):
        confusion(square(0, 0), square(0, 0, value=9), ONE)
    with pytest.raises(BadData, match="shape"):
        confusion(square(0, 0), square(0, 0, size=9), ONE)


def test_counts_agree_with_counting_masks():
    rng = np.random.default_rng(0)
    prediction, reference = rng.integers(0, 3, (2, 1, 30, 40))
    counts = count_outputs(confusion(prediction, reference, NESTED), NESTED)
    for row, values in zip(counts, [(1, 2), (2,), (0,)], strict=True):
        p, r = np.isin(prediction, values), np.isin(reference, values)
        assert row.tolist() == [(p & r).sum(), (p & ~r).sum(), (~p & r).sum(), (~p & ~r).sum()]


def test_dice_and_iou_agree_with_monai():
    from monai.metrics import compute_dice, compute_iou

    rng = np.random.default_rng(1)
    prediction, reference = rng.integers(0, 3, (2, 1, 32, 32)).astype(np.uint8)
    ours = score_case(prediction, reference, TWO, None, None)
    one_hot = [torch.tensor(np.stack([x[0] == k for k in range(3)]))[None].float() for x in (prediction, reference)]
    dice, iou = compute_dice(*one_hot)[0], compute_iou(*one_hot)[0]
    for index, name in enumerate("ab", start=1):
        assert ours[name].dice == pytest.approx(dice[index].item(), abs=1e-6)
        assert ours[name].iou == pytest.approx(iou[index].item(), abs=1e-6)


def contour(mask):
    """Corners of pixels at which the mask changes, each with the length of contour around it."""
    padded = np.pad(mask, 1).astype(int)
    cells = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    total = sum(cells)
    diagonal = (total == 2) & (cells[0] == cells[3])
    lengths = np.select([diagonal, total == 2, (total == 1) | (total == 3)], [2**0.5, 1.0, 0.5 * 2**0.5])
    points = np.argwhere(lengths > 0)
    return points, lengths[lengths > 0]


def test_hd95_and_nsd_agree_with_brute_force():
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:24, :24]
    for _ in range(5):
        discs = [(y - rng.uniform(8, 16)) ** 2 + (x - rng.uniform(8, 16)) ** 2 < rng.uniform(4, 7) ** 2 for _ in "ab"]
        (one, lengths_one), (other, lengths_other) = map(contour, discs)
        between = np.linalg.norm(one[:, None] - other[None], axis=-1)
        expected, near = [], []
        for distances, lengths in ((between.min(1), lengths_one), (between.min(0), lengths_other)):
            order = np.argsort(distances)
            share = np.cumsum(lengths[order]) / lengths.sum()
            expected.append(distances[order][np.searchsorted(share, 0.95)])
            near.append(lengths[distances <= 1.5].sum())
        hd95, assd, nsd = contour_distances(discs[0][None], discs[1][None], None, 1.5)
        summed = (between.min(1) @ lengths_one + between.min(0) @ lengths_other) / (
            sum(lengths_one) + sum(lengths_other)
        )
        assert assd == pytest.approx(summed, abs=1e-6)
        assert hd95 == pytest.approx(max(expected))
        assert nsd == pytest.approx(sum(near) / (lengths_one.sum() + lengths_other.sum()))


def test_distances_scale_with_the_spacing_and_do_not_depend_on_the_place():
    one, other = square(1, 1, side=3), square(2, 4, side=3)
    hd95, assd, _ = contour_distances(one > 0, other > 0, None, 1.0)
    scaled, shorter, _ = contour_distances(one > 0, other > 0, (1.0, 0.25, 0.25), 1.0)
    assert (scaled, shorter) == pytest.approx((hd95 / 4, assd / 4))
    for dy, dx in itertools.product((0, 2), (0, 1)):
        moved = [np.roll(mask > 0, (dy, dx), axis=(1, 2)) for mask in (one, other)]
        assert contour_distances(*moved, None, 1.0)[0] == hd95


def test_a_volume_is_measured_in_three_dimensions():
    volume = np.zeros((6, 12, 12), bool)
    volume[1:3, 4:8, 4:8] = True
    shifted = np.roll(volume, 2, axis=0)
    assert contour_distances(volume, shifted, (3.0, 1.0, 1.0), 1.0)[0] == pytest.approx(6.0)


def test_distances_agree_with_surface_distance():
    from surface_distance import metrics as surface

    rng = np.random.default_rng(3)
    z, y, x = np.mgrid[:8, :20, :20]
    for spacing in (None, (3.0, 0.5, 0.7)):
        balls = [
            (z - 4) ** 2 + (y - rng.uniform(8, 12)) ** 2 + (x - rng.uniform(8, 12)) ** 2 < rng.uniform(3, 4) ** 2
            for _ in "ab"
        ]
        found = contour_distances(*balls, spacing, 1.0)
        theirs = surface.compute_surface_distances(balls[1], balls[0], spacing or (1.0, 1.0, 1.0))
        assert found.hd95 == pytest.approx(surface.compute_robust_hausdorff(theirs, 95), abs=1e-6)
        assert found.nsd == pytest.approx(surface.compute_surface_dice_at_tolerance(theirs, 1.0), abs=1e-6)
        # theirs is one mean for each contour, ours one over both
        means = surface.compute_average_surface_distance(theirs)
        areas = theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()
        assert found.assd == pytest.approx(np.average(means, weights=areas), abs=1e-6)
