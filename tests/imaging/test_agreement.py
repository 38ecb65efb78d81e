"""A label map and its image: the same thing twice is told, and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from fmseg.imaging.agreement import misplaced, mixed_up
from fmseg.imaging.case import Geometry

PATH = Path("labelsTr/a.png")
LABELS = np.random.default_rng(0).integers(0, 3, (1, 20, 30)).astype(np.uint8)


def told(image):
    return [each.severity for each in mixed_up(PATH, LABELS, image, (0, 1, 2))]


@pytest.mark.parametrize(("scale", "severity"), [(1, "error"), (80, "warning"), (0, "warning")])
def test_an_image_that_follows_from_its_label_map_is_told(scale, severity):
    image = (LABELS * np.uint8(scale))[None]
    assert told(image) == [severity]
    # one pixel of each class that is otherwise
    for value in range(3):
        image[0][tuple(axis[0] for axis in np.nonzero(value == LABELS))] += 1
    assert told(image) == []


def test_colours_and_empty_label_maps_are_not_compared():
    assert told(np.stack([LABELS, LABELS])) == []
    assert mixed_up(PATH, np.zeros_like(LABELS), np.zeros_like(LABELS)[None], (0,)) == []


def test_a_label_map_lies_where_its_image_does_up_to_a_tenth_of_a_pixel():
    image = Geometry(spacing_mm=(1.0, 0.5, 0.5))
    for shift, count in ((0.0, 0), (0.04, 0), (0.2, 1)):
        label = Geometry(spacing_mm=(1.0, 0.5, 0.5), origin=(shift, 0.0, 0.0))
        assert len(misplaced(PATH, label, image)) == count
    assert misplaced(PATH, Geometry(spacing_mm=None), image) == []
