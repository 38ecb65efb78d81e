import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmseg.errors import BadData
from fmseg.imaging.case import Geometry
from fmseg.imaging.prepare import prepare, prepare_label, prepared_size, restore, to_network
from fmseg.records.plans import Preprocessing

FLAT = Geometry(None, is_2d=True)


def plan(**changes: object) -> Preprocessing:
    values = {
        "size_mode": "fit",
        "image_size": [32, 48],
        "spacing_mm": None,
        "channels": 1,
        "intensity": "eight_bit",
        "window": [],
        "mean": [0.5],
        "std": [0.25],
        "store_dtype": "uint8",
    }
    return Preprocessing.parse(values | changes, "test")


def discs(height: int, width: int, *, radius: float = 0.3) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    distance = np.hypot((y + 0.5) / height - 0.5, (x + 0.5) / width - 0.5)
    return (distance < radius).astype(np.uint8) + (distance < radius / 2)


sides = st.integers(1, 3000)


@given(sides, sides, st.integers(1, 600), st.integers(1, 600))
def test_fit_touches_the_limit_and_keeps_the_aspect(height, width, most_height, most_width):
    h, w = prepared_size((height, width), None, plan(image_size=[most_height, most_width]))
    assert h <= most_height and w <= most_width and (h == most_height or w == most_width)
    factor = min(most_height / height, most_width / width)
    assert abs(h - height * factor) <= 0.5 + 1e-9 or h == 1
    assert abs(w - width * factor) <= 0.5 + 1e-9 or w == 1


def test_fit_rounds_half_up_and_leaves_a_fitting_size_alone():
    assert prepared_size((2, 4), None, plan(image_size=[9, 5])) == (3, 5)  # 2.5
    assert prepared_size((32, 40), None, plan()) == (32, 40)


def test_spacing_keeps_lengths_in_mm():
    wanted = plan(size_mode="spacing", spacing_mm=[0.5, 0.25])
    assert prepared_size((100, 100), (0.25, 0.5), wanted) == (50, 200)
    with pytest.raises(BadData, match=r"pixel size.*spacings\.csv"):
        prepared_size((100, 100), None, wanted)


# round trips


@pytest.mark.parametrize("size", [(96, 144), (40, 150), (20, 30), (13, 90), (32, 48)])
def test_restore_undoes_prepare(size):
    shape = (3, *size)
    smooth = cv2.GaussianBlur(discs(*size).astype(np.float32), (0, 0), min(size) / 8) * 100
    voxels = np.broadcast_to(smooth, shape).astype(np.uint8)[None]
    prepared = prepare(voxels, FLAT, plan())
    assert prepared.shape == (3, 1, *prepared_size(size, None, plan())) and prepared.dtype == np.uint8
    again = restore(prepared.transpose(1, 0, 2, 3), shape)
    assert again.shape == (1, *shape) and again.dtype == np.float32
    assert np.abs(again - voxels).mean() < 0.02 * voxels.max()


@pytest.mark.parametrize("size", [(96, 144), (150, 60), (300, 450), (20, 30)])
def test_label_maps_survive_the_round_trip(size):
    labels = discs(*size)[None]
    prepared = prepare_label(labels, FLAT, plan())
    one_hot = np.stack([(prepared == value) for value in range(3)]).astype(np.float32)
    again = restore(one_hot, labels.shape).argmax(0)
    for value in (1, 2):
        both = (again == value) & (labels == value)
        assert 2 * both.sum() / ((again == value).sum() + (labels == value).sum()) > 0.85


def test_restore_keeps_sums_and_ranges():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 2, 16, 24))
    probabilities = np.exp(logits) / np.exp(logits).sum(0)
    for shape in ((2, 50, 30), (2, 10, 24), (2, 7, 5)):
        again = restore(probabilities, shape)
        np.testing.assert_allclose(again.sum(0), 1, atol=1e-5)
        assert again.min() >= 0 and again.max() <= 1


@pytest.mark.parametrize("axis", [1, 2])
def test_prepare_and_restore_turn_with_the_image(axis):
    voxels = np.random.default_rng(0).integers(0, 255, (1, 2, 50, 90)).astype(np.uint8)
    straight = prepare(voxels, FLAT, plan())
    flipped = prepare(np.flip(voxels, axis + 1), FLAT, plan())
    assert np.abs(np.flip(flipped, axis + 1).astype(int) - straight).max() <= 1
    label = prepare_label(np.flip(voxels[0], axis) // 100, FLAT, plan())
    np.testing.assert_array_equal(np.flip(label, axis), prepare_label(voxels[0] // 100, FLAT, plan()))


def test_spacing_mode_uses_the_pixel_size_of_the_case():
    geometry = Geometry((3.0, 0.5, 0.25))
    wanted = plan(size_mode="spacing", spacing_mm=[0.25, 0.5])
    voxels = np.zeros((1, 2, 20, 40), np.uint8)
    assert prepare(voxels, geometry, wanted).shape == (2, 1, 40, 20)
    assert prepare_label(voxels[0], geometry, wanted).shape == (2, 40, 20)
    assert restore(np.zeros((3, 2, 40, 20)), (2, 20, 40)).shape == (3, 2, 20, 40)


# label maps


def test_no_label_value_appears():
    labels = np.random.default_rng(0).choice([0, 1, 7, 9], (2, 61, 83)).astype(np.uint8)
    for size in ([32, 48], [200, 300]):
        prepared = prepare_label(labels, FLAT, plan(image_size=size))
        assert set(np.unique(prepared)) <= {0, 1, 7, 9} and prepared.dtype == np.uint8


def test_each_pixel_gets_the_value_with_the_largest_share():
    labels = np.array([[[1, 1, 5, 0, 3, 3], [1, 5, 0, 0, 3, 4]]], np.uint8)
    np.testing.assert_array_equal(prepare_label(labels, FLAT, plan(image_size=[1, 3]))[0], [[1, 0, 3]])
    halves = np.array([[[0, 2]]], np.uint8)
    assert prepare_label(halves, FLAT, plan(image_size=[1, 1])).item() == 2


def test_large_label_values_are_kept():
    labels = np.array([[[0, 300], [0, 300]]], np.int32)
    prepared = prepare_label(labels, FLAT, plan(image_size=[4, 4]))
    assert prepared.dtype == np.int16 and set(np.unique(prepared)) == {0, 300}


def test_shares_lose_less_dice_than_the_nearest_pixel():
    lost = {"shares": 0.0, "nearest": 0.0}
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = np.zeros((1, 200, 260), np.uint8)
        centre, axes = rng.integers(60, 140, 2).tolist(), rng.integers(5, 50, 2).tolist()
        cv2.ellipse(labels[0], centre, axes, rng.integers(0, 180), 0, 360, 1, -1)
        small = prepare_label(labels, FLAT, plan())
        nearest = cv2.resize(labels[0], small.shape[:0:-1], interpolation=cv2.INTER_NEAREST_EXACT)[None]
        for name, each in (("shares", small), ("nearest", nearest)):
            again = restore(each[None].astype(np.float32), labels.shape)[0] > 0.5
            lost[name] += 1 - 2 * (again & (labels > 0)).sum() / (again.sum() + labels.sum())
    assert lost["shares"] < lost["nearest"]


# intensities and channels


def test_8_bit_images_that_fit_are_stored_as_they_are():
    voxels = np.random.default_rng(0).integers(0, 255, (1, 2, 32, 40)).astype(np.uint8)
    np.testing.assert_array_equal(prepare(voxels, FLAT, plan())[:, 0], voxels[0])


def test_percentiles_map_an_image_to_0_and_1():
    voxels = np.random.default_rng(0).normal(1000, 200, (1, 2, 32, 48)).astype(np.float32)
    prepared = prepare(voxels, FLAT, plan(intensity="image_percentiles", store_dtype="float16"))
    low, high = np.percentile(voxels, [0.5, 99.5])
    assert prepared.dtype == np.float16
    np.testing.assert_allclose(prepared[:, 0], np.clip((voxels[0] - low) / (high - low), 0, 1), atol=1e-3)
    brighter = prepare(voxels * 3 + 70, FLAT, plan(intensity="image_percentiles", store_dtype="float16"))
    np.testing.assert_allclose(brighter, prepared, atol=1e-3)


def test_a_fixed_window_is_the_same_for_all_images():
    voxels = np.array([-2000, -100, 50, 200, 3000], np.int16).reshape(1, 1, 1, 5)
    window = plan(intensity="fixed_window", window=[[-100, 200]], store_dtype="float16", image_size=[1, 5])
    np.testing.assert_allclose(prepare(voxels, FLAT, window).ravel(), [0, 0, 0.5, 1, 1], atol=1e-3)
    stored = prepare(voxels, FLAT, window.evolve(store_dtype="uint8"))
    assert stored.dtype == np.uint8 and stored.ravel().tolist() == [0, 0, 128, 255, 255]


def test_enlarging_stays_in_the_range():
    steps = np.zeros((1, 1, 8, 8), np.float32)
    steps[..., 4:] = 1
    prepared = prepare(steps, FLAT, plan(intensity="image_percentiles", store_dtype="float16"))
    assert prepared.min() == 0 and prepared.max() == 1


def test_grey_rgb_becomes_one_channel_and_colour_its_brightness():
    grey = np.random.default_rng(0).integers(0, 255, (1, 1, 32, 48)).astype(np.uint8)
    np.testing.assert_array_equal(prepare(np.repeat(grey, 3, 0), FLAT, plan()), prepare(grey, FLAT, plan()))
    colour = np.random.default_rng(0).integers(0, 255, (3, 1, 32, 48)).astype(np.uint8)
    wanted = cv2.cvtColor(np.moveaxis(colour[:, 0], 0, -1).copy(), cv2.COLOR_RGB2GRAY)
    assert np.abs(prepare(colour, FLAT, plan())[0, 0].astype(int) - wanted).max() <= 1
    three = prepare(grey, FLAT, plan(channels=3, mean=[0.5] * 3, std=[0.25] * 3))
    np.testing.assert_array_equal(three[0], np.repeat(grey[:, 0], 3, 0))


def test_images_that_do_not_fit_the_plan_are_refused():
    with pytest.raises(BadData, match="2 channels, the plan was made for 1"):
        prepare(np.zeros((2, 1, 8, 8), np.uint8), FLAT, plan())
    with pytest.raises(BadData, match="uint16, the plan was made for 8-bit"):
        prepare(np.zeros((1, 1, 8, 8), np.uint16), FLAT, plan())


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_the_network_sees_normalised_values(dtype):
    unit = np.random.default_rng(0).random((2, 5, 6))
    stored = np.rint(unit * 255).astype(np.uint8) if dtype == np.uint8 else unit.astype(np.float16)
    seen = to_network(stored, (0.3, 0.6), (0.1, 0.2))
    assert seen.dtype == np.float32
    in_range = stored / 255 if dtype == np.uint8 else stored.astype(float)
    wanted = (in_range - np.array([0.3, 0.6])[:, None, None]) / np.array([0.1, 0.2])[:, None, None]
    np.testing.assert_allclose(seen, wanted, atol=1e-5)


def test_neighbours_are_further_channels_and_the_ends_stand_for_what_is_missing():
    voxels = np.arange(4, dtype=np.uint8)[None, :, None, None] * np.ones((1, 1, 32, 48), np.uint8)
    alone = prepare(voxels, FLAT, plan())
    together = prepare(voxels, FLAT, plan(channels=3, mean=[0.5] * 3, std=[0.25] * 3, neighbours=1))
    assert together.shape == (4, 3, 32, 48)
    assert together[:, :, 0, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    np.testing.assert_array_equal(together[:, 1:2], alone)
    colour = np.repeat(voxels, 3, axis=0)
    colour[1] += 10
    shown = prepare(colour, FLAT, plan(channels=15, mean=[0.5] * 15, std=[0.25] * 15, neighbours=2))
    np.testing.assert_array_equal(shown[:, 6:9], prepare(colour, FLAT, plan(channels=3)))


def test_a_plan_without_neighbours_is_written_as_before():
    assert "neighbours" not in plan().model_dump(mode="json") and plan(channels=3, neighbours=1).file_channels == 1
