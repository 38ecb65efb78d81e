"""Augmentation: what must not change, and that image and label move together."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fmseg.imaging.augment import AugmentationParameters, Shadow, apply_augmentation, sample_augmentation
from fmseg.records.recipe import Augmentation

PLAN = Augmentation(
    warp_probability=0.5,
    rotation_deg=20.0,
    scale=(0.8, 1.25),
    shift=0.1,
    flip_horizontal=True,
    flip_vertical=False,
    intensity_probability=0.3,
    brightness=0.3,
    contrast=0.3,
    gamma=(0.7, 1.5),
    noise_std=0.05,
    speckle_std=0.2,
    blur_sigma_px=1.5,
)
SIZE = (48, 64)
IDENTITY = AugmentationParameters()


@pytest.fixture
def sector():
    """A (1, 48, 64) float32 image that is black outside a sector, with its label map of 0, 1, 2."""
    rows, columns = np.mgrid[:48, :64]
    shown = (np.abs(columns - 31.5) < 0.6 * rows + 4) & (rows > 4)
    values = np.random.default_rng(0).uniform(0.2, 0.8, SIZE).astype(np.float32)
    label = (shown * (1 + (columns > 30))).astype(np.uint8)
    return (values * shown)[None], label


@pytest.mark.parametrize("size_hw", [(48, 64), (31, 50), (48, 20)])
@pytest.mark.parametrize("channels", [1, 3])
def test_no_change_is_the_image_centred_on_black(size_hw, channels):
    rng = np.random.default_rng(1)
    image, label = rng.random((channels, *size_hw), np.float32), rng.integers(0, 5, size_hw).astype(np.uint8)
    canvas, labels = apply_augmentation(image, label, IDENTITY, SIZE, border_label=9)
    assert canvas.dtype == np.float32
    assert labels.dtype == np.int64
    top, left = -((size_hw[0] - 48) // 2), -((size_hw[1] - 64) // 2)
    inside = np.s_[top : top + size_hw[0], left : left + size_hw[1]]
    np.testing.assert_array_equal(canvas[:, *inside], image)
    np.testing.assert_array_equal(labels[inside], label)
    outside = np.ones(SIZE, bool)
    outside[inside] = False
    assert (canvas[:, outside] == 0).all()
    assert (labels[outside] == 9).all()


def test_the_origin_cuts_a_window_out_of_a_larger_image():
    rng = np.random.default_rng(2)
    image, label = rng.random((2, 90, 100), np.float32), rng.integers(0, 300, (90, 100)).astype(np.int16)
    canvas, labels = apply_augmentation(image, label, AugmentationParameters(origin=(30, 7)), SIZE)
    np.testing.assert_array_equal(canvas, image[:, 30:78, 7:71])
    np.testing.assert_array_equal(labels, label[30:78, 7:71])


@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", -1), ("flip_vertical", -2)])
def test_flips_are_exact(sector, name, axis):
    image, label = sector
    canvas, labels = apply_augmentation(image, label, AugmentationParameters(**{name: True}), SIZE)
    np.testing.assert_array_equal(canvas, np.flip(image, axis))
    np.testing.assert_array_equal(labels, np.flip(label, axis))


def test_a_shift_moves_the_content_down_and_right(sector):
    canvas, _ = apply_augmentation(*sector, AugmentationParameters(shift_px=(3.0, 5.0)), SIZE)
    np.testing.assert_allclose(canvas[:, 3:, 5:], sector[0][:, :-3, :-5], atol=1e-6)
    assert (canvas[:, :3] == 0).all()


def test_scale_magnifies():
    image = np.zeros((1, 40, 40), np.float32)
    image[:, 15:25, 15:25] = 1
    canvas, _ = apply_augmentation(image, None, AugmentationParameters(scale=2.0), (40, 40))
    assert canvas.sum() == pytest.approx(400, rel=0.1)


def test_image_and_label_move_together():
    rows, columns = np.mgrid[:80, :80]
    label = (((rows - 30) / 20) ** 2 + ((columns - 45) / 12) ** 2 < 1).astype(np.uint8)
    rng = np.random.default_rng(3)
    plan = PLAN.evolve(warp_probability=1.0, intensity_probability=0.0)
    for _ in range(20):
        parameters = sample_augmentation(rng, plan, (64, 64))
        canvas, labels = apply_augmentation(label[None].astype(np.float32), label, parameters, (64, 64))
        assert labels.any()
        assert ((canvas[0] > 0.5) != labels).sum() <= 0.02 * labels.sum()


def test_black_stays_black_and_values_stay_in_range(sector):
    image, label = sector
    strong = {"brightness": 1.3, "contrast": 0.6, "gamma": 0.5, "noise_std": 0.3, "speckle_std": 0.5}
    changes = AugmentationParameters(**strong, blur_sigma_px=2.0)
    canvas, labels = apply_augmentation(image, label, changes, SIZE)
    assert (canvas[image == 0] == 0).all()
    assert canvas.min() >= 0
    assert canvas.max() <= 1
    assert (canvas != image)[image > 0].mean() > 0.9
    np.testing.assert_array_equal(labels, label)
    black, _ = apply_augmentation(np.zeros_like(image), None, changes, SIZE)
    assert (black == 0).all()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("brightness", 1.2, lambda v: 1.2 * v),
        ("gamma", 2.0, lambda v: v**2),
        ("contrast", 0.5, lambda v: v.mean() + 0.5 * (v - v.mean())),
        ("contrast", 1.2, lambda v: np.clip(v.mean() + 1.2 * (v - v.mean()), v.min(), v.max())),
    ],
)
def test_pointwise_changes_of_what_is_shown(sector, name, value, expected):
    image, _ = sector
    shown = image > 0
    canvas, _ = apply_augmentation(image, None, AugmentationParameters(**{name: value}), SIZE)
    np.testing.assert_allclose(canvas[shown], expected(image[shown]), atol=1e-5)


def test_noise_is_added_and_speckle_multiplied_with_a_grain():
    image = np.full((1, 200, 200), 0.5, np.float32)
    image[:, :, 100:] = 0.25
    noisy, _ = apply_augmentation(image, None, AugmentationParameters(noise_std=0.02, noise_seed=1), (200, 200))
    halves = [(noisy - image)[..., :100], (noisy - image)[..., 100:]]
    np.testing.assert_allclose([half.std() for half in halves], 0.02, rtol=0.05)
    speckled, _ = apply_augmentation(image, None, AugmentationParameters(speckle_std=0.1, noise_seed=1), (200, 200))
    factor = (speckled / image)[0] - 1
    np.testing.assert_allclose([factor[:, :100].std(), factor[:, 100:].std()], 0.1, rtol=0.1)
    neighbours = np.corrcoef(factor[:, 1:].ravel(), factor[:, :-1].ravel())[0, 1]
    assert 0.5 < neighbours < 0.95


def test_one_set_of_parameters_gives_one_result_and_leaves_numpys_generator_alone(sector):
    parameters = AugmentationParameters(contrast=1.2, noise_std=0.1, speckle_std=0.1, noise_seed=5)
    np.random.seed(0)
    expected = np.random.random(3)
    np.random.seed(0)
    first, _ = apply_augmentation(*sector, parameters, SIZE)
    np.testing.assert_array_equal(np.random.random(3), expected)
    second, _ = apply_augmentation(*sector, parameters, SIZE)
    np.testing.assert_array_equal(first, second)


def test_shares_and_ranges_are_the_planned_ones():
    rng = np.random.default_rng(4)
    drawn = [sample_augmentation(rng, PLAN, SIZE) for _ in range(3000)]

    def share(condition):
        return np.mean([condition(parameters) for parameters in drawn])

    assert share(lambda p: p.rotation_deg != 0) == pytest.approx(0.5, abs=0.03)
    assert share(lambda p: p.flip_horizontal) == pytest.approx(0.5, abs=0.03)
    assert share(lambda p: p.flip_vertical) == 0
    for name in ("brightness", "contrast", "gamma", "noise_std", "speckle_std", "blur_sigma_px"):
        assert share(lambda p, name=name: getattr(p, name) != getattr(IDENTITY, name)) == pytest.approx(0.3, abs=0.03)
    assert max(abs(p.rotation_deg) for p in drawn) == pytest.approx(20, abs=0.2)
    assert max(abs(p.shift_px[0]) for p in drawn) == pytest.approx(4.8, abs=0.05)
    assert max(abs(p.shift_px[1]) for p in drawn) == pytest.approx(6.4, abs=0.05)
    zooms = [p.scale for p in drawn if p.rotation_deg != 0]
    np.testing.assert_allclose(np.quantile(zooms, [0, 0.5, 1]), [0.8, 1.0, 1.25], atol=0.02)


def test_a_plan_that_changes_nothing_draws_no_change():
    still = PLAN.evolve(warp_probability=0.0, intensity_probability=0.0, flip_horizontal=False)
    drawn = sample_augmentation(np.random.default_rng(5), still, SIZE)
    assert drawn == AugmentationParameters(noise_seed=drawn.noise_seed)


SHADOW = Shadow(start_px=(16.0, 30.0), width=0.2, darkness=0.6, apex=1.0)
SHADOWED = PLAN.evolve(shadow_probability=1.0)


def lost(size=SIZE, label=None, **changes):
    """Return the share of each pixel of a uniform image that a shadow takes, and the label map."""
    shadow = Shadow(**({name: getattr(SHADOW, name) for name in SHADOW.__slots__} | changes.pop("shadow", {})))
    image = np.full((1, *size), 0.5, np.float32)
    plain, _ = apply_augmentation(image, label, AugmentationParameters(**changes), size)
    canvas, labels = apply_augmentation(image, label, AugmentationParameters(**changes, shadow=shadow), size)
    return np.divide(plain - canvas, plain, out=np.zeros_like(plain), where=plain > 0)[0], labels


def test_a_shadow_never_brightens_and_leaves_the_label_and_all_beside_it():
    label = np.random.default_rng(0).integers(0, 5, (96, 128)).astype(np.uint8)
    rng = np.random.default_rng(1)
    for _ in range(50):
        drawn = sample_augmentation(rng, SHADOWED, (96, 128)).shadow
        found, labels = lost((96, 128), label, shadow={name: getattr(drawn, name) for name in drawn.__slots__})
        np.testing.assert_array_equal(labels, label)
        assert found.min() == 0 and found.max() <= drawn.darkness + 1e-6
        assert (found == 0).mean() > 0.4
        above = math.floor(drawn.start_px[0]) - 10
        assert not found[: max(0, above)].any()


def test_a_shadow_runs_down_to_the_end_of_the_image_as_dark_as_planned():
    found, _ = lost((200, 200), shadow={"start_px": (60.0, 99.5), "width": 0.1})
    np.testing.assert_allclose(found[80:, 99], 0.6, atol=0.01)
    assert not found[:50].any()
    widths = (found > 0.3).sum(axis=1)[[80, 120, 190]]
    # the beams meet 200 pixels above the image, and are 20 pixels apart 260 pixels below that; pixels they touch count
    np.testing.assert_allclose(widths, [20 * (200 + row) / 260 for row in (80, 120, 190)], atol=2.5)


@pytest.mark.parametrize("apex", [0.2, 1.0, 20.0])
def test_a_shadow_follows_the_beams_from_a_curved_probe_to_a_straight_one(apex):
    found, _ = lost((200, 200), shadow={"start_px": (20.0, 150.0), "width": 0.06, "apex": apex})
    rows, columns = np.arange(200)[:, None], np.arange(200)[None]
    middles = (found * columns).sum(axis=1)[40:100] / found.sum(axis=1)[40:100]
    expected = 99.5 + 50.5 * (rows[40:100, 0] + 200 * apex) / (20 + 200 * apex)
    inside = expected < 175
    np.testing.assert_allclose(middles[inside], expected[inside], atol=1.5)
    if apex == 20:
        assert np.ptp(expected) < 1


@pytest.mark.parametrize("change", [{"rotation_deg": 20.0}, {"scale": 0.8}, {"flip_horizontal": True}], ids=str)
def test_a_shadow_turns_with_the_image(change):
    """A straight shadow in the middle is where the image's own middle goes."""
    column = np.zeros((1, 200, 200), np.float32)
    column[..., 96:104] = 1
    placed, _ = apply_augmentation(column, None, AugmentationParameters(**change), (200, 200))
    found, _ = lost((200, 200), shadow={"start_px": (1.0, 100.0), "width": 0.04, "apex": 1000.0}, **change)
    if "rotation_deg" in change:  # where the shadow begins is of the canvas: put it on the turned middle
        start = (20.0, float((placed[0, 20] * np.arange(200)).sum() / placed[0, 20].sum()))
        found, _ = lost((200, 200), shadow={"start_px": start, "width": 0.04, "apex": 1000.0}, **change)
    covered = placed[0, 60:150] > 0.9
    assert (found[60:150][covered] > 0.25).mean() > 0.95
    assert (found[60:150] > 0.1).sum() < 3 * covered.sum()


def test_a_window_has_the_shadow_of_the_whole_image():
    origin = (40, 60)
    image = np.full((1, 200, 200), 0.5, np.float32)
    whole, _ = apply_augmentation(image, None, AugmentationParameters(shadow=SHADOW), (200, 200))
    moved = Shadow((SHADOW.start_px[0] - 40, SHADOW.start_px[1] - 60), SHADOW.width, SHADOW.darkness, SHADOW.apex)
    window, _ = apply_augmentation(image, None, AugmentationParameters(shadow=moved, origin=origin), (120, 120))
    # edges are as soft as the canvas is large
    same = np.isclose(whole[:, 40:160, 60:180], window, atol=0.02)
    assert same.mean() > 0.9 and (window < 0.3).mean() == pytest.approx(
        (whole[:, 40:160, 60:180] < 0.3).mean(), abs=0.03
    )


def test_black_stays_black_in_a_shadow_and_all_channels_are_in_it(sector):
    image, label = sector
    canvas, labels = apply_augmentation(image.repeat(3, 0), label, AugmentationParameters(shadow=SHADOW), SIZE)
    assert (canvas[:, image[0] == 0] == 0).all() and (canvas < image).any()
    np.testing.assert_array_equal(canvas, canvas[:1].repeat(3, 0))
    np.testing.assert_array_equal(labels, label)


def test_without_shadows_all_else_is_drawn_as_before_and_with_them_too():
    plans = [PLAN, PLAN.evolve(shadow_darkness=(0.1, 0.2)), SHADOWED, PLAN.evolve(shadow_probability=0.3)]
    drawn = []
    for plan in plans:
        rng = np.random.default_rng(8)
        parameters = sample_augmentation(rng, plan, SIZE)
        drawn.append((replace(parameters, shadow=None), rng.integers(2**32) if not plan.shadow_probability else None))
    assert drawn[0] == drawn[1] and drawn[0][0] == drawn[2][0] == drawn[3][0]
    rng = np.random.default_rng(9)
    shadows = [sample_augmentation(rng, plans[3], SIZE).shadow for _ in range(2000)]
    assert np.mean([shadow is not None for shadow in shadows]) == pytest.approx(0.3, abs=0.03)
    found = [shadow for shadow in shadows if shadow]
    assert min(s.darkness for s in found) >= 0.3 and max(s.darkness for s in found) <= 0.8
    assert min(s.width for s in found) >= 0.05 and max(s.width for s in found) <= 0.2


def test_equal_seeds_cast_equal_shadows(sector):
    first, second = (
        apply_augmentation(*sector, sample_augmentation(np.random.default_rng(6), SHADOWED, SIZE), SIZE)
        for _ in range(2)
    )
    assert first[0].tobytes() == second[0].tobytes() and first[1].tobytes() == second[1].tobytes()
