"""Polygons along the edges of pixels hold the whole mask."""

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from fmseg.imaging.polygons import area_of, polygons_of


def painted(polygons, size):
    """Return the mask whose pixels have their middle inside an outline and outside its holes."""
    y, x = np.mgrid[: size[0], : size[1]]
    middles = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1)
    mask = np.zeros(size, bool)
    for outline, *holes in polygons:
        inside = Outline([*outline, outline[0]]).contains_points(middles)
        for hole in holes:
            inside &= ~Outline([*hole, hole[0]]).contains_points(middles)
        mask |= inside.reshape(size)
    return mask


@pytest.mark.parametrize("seed", range(12))
def test_polygons_hold_the_whole_mask_holes_and_touching_corners_too(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((11, 13)) < rng.uniform(0.2, 0.8)
    polygons = polygons_of(mask)
    np.testing.assert_array_equal(painted(polygons, mask.shape), mask)
    assert sum(area_of(ring) for polygon in polygons for ring in polygon) == mask.sum()
    for outline, *holes in polygons:
        assert area_of(outline) > 0 and all(area_of(hole) < 0 for hole in holes)


def test_known_shapes():
    assert polygons_of(np.zeros((3, 3))) == []
    assert polygons_of(np.ones((2, 3))) == [[[(0, 0), (3, 0), (3, 2), (0, 2)]]]
    ring = np.ones((3, 3))
    ring[1, 1] = 0
    assert polygons_of(ring) == [[[(0, 0), (3, 0), (3, 3), (0, 3)], [(1, 1), (1, 2), (2, 2), (2, 1)]]]
    assert len(polygons_of(np.eye(3))) == 3
