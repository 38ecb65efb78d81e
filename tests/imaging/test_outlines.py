import cv2
import numpy as np
import pytest

from fmseg.errors import BadData
from fmseg.imaging.outlines import fill_outline

SIZE = 160


def draw_ellipse(rng: np.random.Generator, thickness: int) -> np.ndarray:
    """A random ellipse well inside the image; thickness -1 is a filled one."""
    centre = tuple(int(value) for value in rng.integers(65, 95, 2))
    axes = tuple(int(value) for value in rng.integers(25, 60, 2))
    image = np.zeros((SIZE, SIZE), np.uint8)
    return cv2.ellipse(image, centre, axes, int(rng.integers(0, 180)), 0, 360, 255, thickness)


@pytest.mark.parametrize("seed", range(10))
def test_a_drawn_outline_is_filled_to_its_outer_edge(seed):
    outline = draw_ellipse(np.random.default_rng(seed), 2)
    contours, _ = cv2.findContours(outline, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    reference = cv2.drawContours(np.zeros_like(outline), contours, -1, 1, -1) > 0
    np.testing.assert_array_equal(fill_outline(outline), reference)


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize("seed", range(5))
def test_a_cut_outline_is_closed_along_the_border(seed, side):
    """Cutting and filling may be swapped, as long as the centre stays in the image."""
    rng = np.random.default_rng((1, seed))
    outline = np.rot90(draw_ellipse(rng, 2), side)
    rows = np.flatnonzero(outline.any(axis=1))
    cut = slice(int(rng.integers(rows[0] + 5, rows.mean())), None)
    np.testing.assert_array_equal(fill_outline(outline[cut]), fill_outline(outline)[cut])


@pytest.mark.parametrize("side", range(4))
def test_an_outline_that_leaves_through_a_corner_is_closed_around_it(side):
    outline = np.rot90(cv2.circle(np.zeros((SIZE, SIZE), np.uint8), (80, 80), 60, 255, 2), side)
    np.testing.assert_array_equal(fill_outline(outline[75:, 75:]), fill_outline(outline)[75:, 75:])
    np.testing.assert_array_equal(fill_outline(outline[:, 30:130]), fill_outline(outline)[:, 30:130])


def test_a_small_gap_is_bridged():
    whole = cv2.circle(np.zeros((SIZE, SIZE), np.uint8), (80, 80), 60, 255, 2)
    broken = whole.copy()
    broken[15:25, 78:82] = 0
    filled, expected = fill_outline(broken), fill_outline(whole)
    assert (filled ^ expected).sum() < 20


@pytest.mark.parametrize("radius", [40, 78])
def test_an_open_line_is_refused_even_where_it_surrounds_most_of_the_image(radius):
    arc = cv2.ellipse(np.zeros((SIZE, SIZE), np.uint8), (80, 80), (radius, radius), 0, 0, 300, 255, 2)
    with pytest.raises(BadData, match="encloses no area"):
        fill_outline(arc)


def test_an_open_line_that_touches_a_border_is_refused():
    arc = cv2.ellipse(np.zeros((SIZE, SIZE), np.uint8), (80, 40), (60, 60), 0, 0, 120, 255, 2)
    arc = cv2.line(arc, (140, 40), (140, 0), 255, 2)
    with pytest.raises(BadData, match="encloses no area"):
        fill_outline(arc)


def test_an_empty_outline_is_refused():
    with pytest.raises(BadData, match="empty"):
        fill_outline(np.zeros((8, 8), np.uint8))
