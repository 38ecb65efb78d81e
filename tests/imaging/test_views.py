"""The views' distributions and pixels agree with torchvision's on PIL images."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as pil

from fmseg.imaging.views import (
    ViewParameters,
    apply_view,
    make_views,
    normalisation_tables,
    sample_crop,
    sample_views,
    to_eight_bit,
)
from fmseg.records.plans import Views

VIEWS = Views(
    global_size=(112, 112),
    local_size=(48, 48),
    num_locals=4,
    global_scale=(0.32, 1.0),
    local_scale=(0.05, 0.32),
    aspect=(3 / 4, 4 / 3),
    flip="vertical",
    jitter_probability=0.8,
    brightness=0.4,
    contrast=0.4,
    blur_probability=(0.0, 0.9, 0.5),
    blur_sigma_px=(0.1, 2.0),
    solarize_probability=0.2,
    min_content=0.0,
)
WHOLE = ViewParameters(
    top=0,
    left=0,
    height=90,
    width=120,
    size=(90, 120),
    flip=False,
    jitter=None,
    brightness_first=True,
    blur_sigma_px=None,
    solarize=False,
)


@pytest.fixture(scope="module")
def speckle():
    """A smooth (3, 90, 120) uint8 image with a black margin; its channels differ."""
    noise = np.random.default_rng(0).rayleigh(70, (90, 120, 3))
    grain = np.array(Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).resize((120, 90), box=(0, 0, 40, 30)))
    grain[:10] = 0
    return np.ascontiguousarray(np.moveaxis(grain, -1, 0))


def levels(image, parameters, flip_axis="vertical"):
    """One view in 8-bit levels."""
    out = np.full((len(image), *parameters.size), np.nan, np.float32)
    tables = normalisation_tables([0.0] * len(image), [1 / 255] * len(image))
    apply_view(image, parameters, flip_axis=flip_axis, tables=tables, out=out)
    return out


def changed(**changes):
    fields = {name: getattr(WHOLE, name) for name in WHOLE.__slots__}
    return ViewParameters(**(fields | changes))


def as_pil(image):
    return Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1))


def as_array(image):
    array = np.asarray(image, np.float32)
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


@pytest.mark.parametrize("size_hw", [(384, 512), (120, 300)])
@pytest.mark.parametrize("scale", [(0.32, 1.0), (0.05, 0.32)])
def test_crops_are_distributed_as_torchvisions(size_hw, scale):
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    blank = torch.zeros(1, *size_hw)
    aspect = (3 / 4, 4 / 3)
    ours = np.array([sample_crop(rng, size_hw, scale, aspect) for _ in range(3000)], float)
    theirs = np.array([RandomResizedCrop.get_params(blank, list(scale), list(aspect)) for _ in range(3000)], float)

    def described(crops):
        top, left, height, width = crops.T
        share, ratio = height * width / np.prod(size_hw), np.log(width / height)
        place = (top + height / 2) / size_hw[0], (left + width / 2) / size_hw[1]
        return np.quantile([share, ratio, *place], [0.05, 0.25, 0.5, 0.75, 0.95], axis=1)

    np.testing.assert_allclose(described(ours), described(theirs), atol=0.035)


@pytest.mark.parametrize("size_hw", [(10, 1000), (1000, 10), (1, 50)])
def test_a_crop_that_cannot_fit_is_torchvisions_central_one(size_hw):
    theirs = RandomResizedCrop.get_params(torch.zeros(1, *size_hw), [0.9, 1.0], [3 / 4, 4 / 3])
    assert sample_crop(np.random.default_rng(0), size_hw, (0.9, 1.0), (3 / 4, 4 / 3)) == tuple(theirs)


def test_shares_of_flip_jitter_blur_and_solarisation_are_the_planned_ones():
    rng = np.random.default_rng(2)
    drawn = [sample_views(rng, (200, 200), VIEWS) for _ in range(1500)]
    assert {len(views) for views in drawn} == {2 + VIEWS.num_locals}

    def share(condition, numbers):
        return np.mean([condition(views[number]) for views in drawn for number in numbers])

    every, local = range(6), range(2, 6)
    assert share(lambda view: view.flip, every) == pytest.approx(0.5, abs=0.03)
    assert share(lambda view: view.jitter is not None, every) == pytest.approx(0.8, abs=0.03)
    assert share(lambda view: view.brightness_first, every) == pytest.approx(0.5, abs=0.03)
    assert share(lambda view: view.blur_sigma_px is not None, [0]) == 0
    assert share(lambda view: view.blur_sigma_px is not None, [1]) == pytest.approx(0.9, abs=0.04)
    assert share(lambda view: view.blur_sigma_px is not None, local) == pytest.approx(0.5, abs=0.03)
    assert share(lambda view: view.solarize, [1]) == pytest.approx(0.2, abs=0.04)
    assert share(lambda view: view.solarize, [0, *local]) == 0
    factors = np.array([view.jitter for views in drawn for view in views if view.jitter])
    np.testing.assert_allclose(np.quantile(factors, [0, 0.5, 1], axis=0).T, [[0.6, 1.0, 1.4]] * 2, atol=0.02)
    sigmas = [view.blur_sigma_px for views in drawn for view in views if view.blur_sigma_px is not None]
    np.testing.assert_allclose(np.quantile(sigmas, [0, 0.5, 1]), [0.1, 1.05, 2.0], atol=0.05)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("brightness_first", [True, False])
@pytest.mark.parametrize("jitter", [(0.6, 1.4), (1.35, 0.7), (1.4, 1.4)])
def test_jitter_and_solarisation_are_pils_to_the_level(speckle, channels, brightness_first, jitter):
    image = speckle[:channels]
    steps = [(pil.adjust_brightness, jitter[0]), (pil.adjust_contrast, jitter[1])]
    expected = as_pil(image)
    for change, factor in steps if brightness_first else steps[::-1]:
        expected = change(expected, factor)
    parameters = changed(jitter=jitter, brightness_first=brightness_first)
    difference = np.abs(levels(image, parameters) - as_array(expected))
    # PIL rounds every pixel's grey before it takes the mean of a colour image, which may move that by one level
    assert difference.max() <= (1e-3 if channels == 1 else 1.01)
    assert difference.mean() < 0.5
    if channels == 1:
        both = levels(image, changed(jitter=jitter, brightness_first=brightness_first, solarize=True))
        np.testing.assert_allclose(both, as_array(pil.solarize(expected, 128)), atol=1e-3)


@pytest.mark.parametrize(("axis", "flip"), [("horizontal", pil.hflip), ("vertical", pil.vflip)])
def test_flips_go_in_the_planned_direction(speckle, axis, flip):
    np.testing.assert_allclose(levels(speckle, changed(flip=True), axis), as_array(flip(as_pil(speckle))), atol=1e-3)


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.6, 1.0, 2.0])
def test_blur_is_torchvisions_to_the_level_and_lies_between_jitter_and_solarisation(speckle, sigma):
    image = speckle[:1]
    expected = pil.gaussian_blur(pil.adjust_brightness(as_pil(image), 1.3), [9, 9], [sigma, sigma])
    blurred = levels(image, changed(jitter=(1.3, 1.0), blur_sigma_px=sigma))
    assert np.abs(blurred - as_array(expected)).max() <= 1.01
    solarised = levels(image, changed(jitter=(1.3, 1.0), blur_sigma_px=sigma, solarize=True))
    np.testing.assert_allclose(solarised, np.where(blurred < 127.5, blurred, 255 - blurred), atol=1e-3)


@pytest.mark.parametrize("side", [30, 40, 60, 75, 88, 130])
def test_resizing_agrees_with_pils_antialiased_bicubic(speckle, side):
    parameters = changed(top=0, left=5, height=88, width=88, size=(side, side))
    ours = levels(speckle[:1], parameters)
    expected = as_array(pil.resized_crop(as_pil(speckle[:1]), 0, 5, 88, 88, [side, side], InterpolationMode.BICUBIC))
    assert np.abs(ours - expected).mean() < 0.1 * expected.std()
    assert ours.std() == pytest.approx(expected.std(), rel=0.05)
    assert ours.mean() == pytest.approx(expected.mean(), abs=0.6)


def test_views_are_normalised_and_of_the_planned_sizes(speckle):
    global_views, local_views = make_views(speckle, VIEWS, (0.1, 0.2, 0.3), (0.5, 0.4, 0.3), np.random.default_rng(3))
    assert global_views.shape == (2, 3, 112, 112)
    assert local_views.shape == (4, 3, 48, 48)
    assert global_views.dtype == local_views.dtype == np.float32
    for views in (global_views, local_views):
        unit = views * np.array([0.5, 0.4, 0.3])[:, None, None] + np.array([0.1, 0.2, 0.3])[:, None, None]
        np.testing.assert_allclose(unit * 255, np.round(unit * 255), atol=1e-3)
        assert unit.min() > -1e-4
        assert unit.max() < 1 + 1e-4


def test_float16_and_uint8_images_give_the_same_views(speckle):
    half = (speckle / 255).astype(np.float16)
    np.testing.assert_array_equal(to_eight_bit(half), speckle)
    made = [make_views(image, VIEWS, [0.2] * 3, [0.2] * 3, np.random.default_rng(4)) for image in (speckle, half)]
    np.testing.assert_array_equal(made[0][0], made[1][0])
    np.testing.assert_array_equal(made[0][1], made[1][1])


def test_crops_show_content_where_there_is_some():
    image = np.zeros((1, 200, 200), np.uint8)
    image[:, :, :100] = 90
    picky = VIEWS.evolve(min_content=0.3)

    def dark_views(views):
        made = [make_views(image, views, [0.0], [1.0], np.random.default_rng(seed))[1] for seed in range(40)]
        return np.mean(np.concatenate(made).reshape(-1, 48 * 48).max(axis=1) == 0)

    assert dark_views(VIEWS) > 0.1
    assert dark_views(picky) < 0.01
    assert make_views(np.zeros_like(image), picky, [0.0], [1.0], np.random.default_rng(0))[0].max() == 0
