from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fmseg.reporting.overlays import PALETTE, colour_of, contact_sheet, overlay

GREY = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)


def disc(shape=(60, 80)):
    y, x = np.indices(shape)
    return ((y - 30) ** 2 + (x - 40) ** 2 < 15**2).astype(np.uint8)


def test_background_keeps_its_pixels_and_the_image_is_not_changed():
    labels, before = disc(), GREY.copy()
    drawn = overlay(GREY, labels)
    assert drawn.shape == (60, 80, 3) and drawn.dtype == np.uint8
    assert (drawn[labels == 0] == GREY[labels == 0][:, None]).all()
    assert (before == GREY).all()
    rgb = np.repeat(GREY[..., None], 3, axis=2)
    np.testing.assert_array_equal(overlay(rgb, labels), drawn)
    assert (rgb == before[..., None]).all()


def test_contours_are_opaque_and_fillings_translucent():
    drawn = overlay(GREY, disc(), filling=0.0)
    is_contour = (drawn == np.array(PALETTE[0])).all(axis=2)
    assert is_contour[30, 40 - 14] and is_contour[30 - 14, 40] and not is_contour[30, 40]
    assert 70 < is_contour.sum() < 140  # the circumference is 94
    half = overlay(GREY, disc(), filling=0.5)[30, 40]
    np.testing.assert_allclose(half, (GREY[30, 40] + np.array(PALETTE[0])) / 2, atol=1)


def test_a_label_that_covers_the_image_has_no_contour():
    drawn = overlay(GREY, np.ones_like(GREY), filling=0.0)
    assert (drawn == GREY[..., None]).all()


def test_a_flip_of_the_input_flips_the_overlay():
    labels = disc() + 2 * np.roll(disc(), 31, axis=1)
    np.testing.assert_array_equal(overlay(GREY[:, ::-1], labels[:, ::-1]), overlay(GREY, labels)[:, ::-1])


def test_every_label_value_has_a_colour():
    assert [colour_of(value) for value in (1, 7, 8)] == [PALETTE[0], PALETTE[6], PALETTE[0]]
    drawn = overlay(np.zeros((20, 20), np.uint8), np.full((20, 20), 255, np.int16))
    assert drawn.any()


@pytest.mark.parametrize("legend", [None, {"head": PALETTE[0], "liver": PALETTE[1]}])
def test_a_sheet_shows_all_pictures(legend):
    red, tall = np.zeros((50, 100, 3), np.uint8), np.zeros((90, 30, 3), np.uint8)
    red[..., 0] = tall[..., 2] = 255
    rows = [("case_1", [red, red]), ("a very long name " * 20, [tall, tall])]
    png = contact_sheet(rows, ["label", "prediction"], legend=legend, tile_px=120)
    sheet = np.asarray(Image.open(BytesIO(png)).convert("RGB"))
    assert sheet.shape[1] == 2 * 120 + 3 * 8
    assert (sheet == (255, 0, 0)).all(axis=2).sum() == 2 * 120 * 60
    assert (sheet == (0, 0, 255)).all(axis=2).sum() == 2 * 40 * 120
    has_colours = (sheet == PALETTE[1]).all(axis=2).any()
    assert has_colours == (legend is not None)
