"""The scan sector, and what is drawn on images and beside them."""

import cv2
import numpy as np
import pytest
from test_prepare import FLAT, plan

from fmseg.imaging.cleaning import cleaned
from fmseg.imaging.marks import find_marks, paint_over
from fmseg.imaging.phantoms import render, sample_patient, sample_scan
from fmseg.imaging.prepare import prepare
from fmseg.imaging.scanner import in_sector
from fmseg.imaging.sector import find_sector
from fmseg.records.plans import Preprocessing


def scan_of(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a made image and its true sector."""
    rng = np.random.default_rng(seed)
    scan = sample_scan(rng, sample_patient(rng))
    return render(scan)[0], in_sector(scan.patient.device, scan.settings.depth_mm)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def found_in(image: np.ndarray) -> np.ndarray:
    sector = find_sector(image[None, None])
    assert sector is not None and len(sector.outline) <= 24
    return sector.mask(image.shape) > 0


def speckle(size: tuple[int, int], mean: float = 90) -> np.ndarray:
    rng = np.random.default_rng(3)
    field = cv2.GaussianBlur(rng.standard_normal((*size, 2)).astype(np.float32), (0, 0), 2.0)
    amplitude = np.hypot(field[..., 0], field[..., 1])
    return np.clip(amplitude / amplitude.mean() * mean, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(8))
def test_the_sector_of_a_curved_probe_is_found(seed):
    image, truth = scan_of(seed)
    assert overlap(found_in(image), truth) > 0.96
    flipped = found_in(np.ascontiguousarray(image[:, ::-1]))
    assert overlap(flipped[:, ::-1], found_in(image)) > 0.97
    larger = cv2.resize(image, None, fx=3, fy=3, interpolation=cv2.INTER_LINEAR)
    assert overlap(found_in(larger), np.repeat(np.repeat(truth, 3, 0), 3, 1)) > 0.95


def test_text_rulers_and_bars_beside_the_sector_do_not_move_it():
    image, truth = scan_of(1)
    marked = cv2.copyMakeBorder(image, 40, 40, 60, 60, cv2.BORDER_CONSTANT)
    wanted = cv2.copyMakeBorder(truth.view(np.uint8), 40, 40, 60, 60, cv2.BORDER_CONSTANT) > 0
    cv2.rectangle(marked, (8, 60), (16, 200), 255, -1)
    for row in range(4):
        cv2.putText(marked, f"Gn {row} MI 1.2", (5, 14 + 10 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.32, 255, 1)
    for y in range(60, 330, 15):
        marked[y : y + 2, -12:-8] = 230
    assert overlap(found_in(marked), wanted) > 0.95
    kinds = find_marks(marked[None, None], find_sector(marked[None, None])).kinds
    assert {"text outside", "ruler outside", "bar outside"} <= set(kinds)


def test_a_linear_probe_and_an_image_that_is_all_scan():
    image = np.zeros((300, 400), np.uint8)
    image[20:280, 100:330] = speckle((260, 230))
    truth = np.zeros(image.shape, bool)
    truth[20:280, 100:330] = True
    assert overlap(found_in(image), truth) > 0.97
    assert found_in(speckle((300, 400))).mean() > 0.99


def test_dark_fluid_belongs_to_the_sector_and_black_images_have_none():
    image = speckle((300, 400))
    cv2.circle(image, (390, 150), 90, 0, -1)
    assert found_in(image).mean() > 0.9
    assert find_sector(np.zeros((1, 1, 300, 400), np.uint8)) is None
    assert find_sector(np.full((1, 1, 5, 5), 90, np.uint8)) is None


def test_a_grey_background_and_a_box_of_the_file():
    image, truth = scan_of(3)
    grey = np.where(truth, image, 43).astype(np.uint8)
    assert overlap(found_in(grey), truth) > 0.95
    menu = np.vstack([image, np.full((30, image.shape[1]), 120, np.uint8)])
    sector = find_sector(menu[None, None], (0, 0, *image.shape))
    assert sector is not None and overlap(sector.mask(menu.shape)[: len(image)] > 0, truth) > 0.96


def test_a_clip_has_the_sector_of_all_its_frames():
    image, truth = scan_of(2)
    frames = np.stack([image, image])
    frames[0, :, : image.shape[1] // 2] = 0
    sector = find_sector(frames[None])
    assert sector is not None and overlap(sector.mask(image.shape) > 0, truth) > 0.96


def with_calipers(image: np.ndarray, value: int = 255) -> np.ndarray:
    marked = image.copy()
    for x, y in ((150, 150), (220, 170)):
        marked[y, x - 6 : x + 7] = value
        marked[y - 6 : y + 7, x] = value
    return marked


@pytest.mark.parametrize("seed", range(6))
def test_calipers_are_seen_and_tissue_is_none(seed):
    image, _ = scan_of(seed)
    assert find_marks(image[None, None], find_sector(image[None, None])).kinds == ()
    marked = with_calipers(image)
    marks = find_marks(marked[None, None], find_sector(marked[None, None]))
    assert marks.kinds == ("calipers inside",)
    changed = marked != image
    assert (marks.inside[changed] > 0).mean() > 0.6
    assert np.abs(paint_over(marked, marks.inside).astype(int) - image)[changed].mean() < 40


def test_coloured_calipers_are_marks_and_doppler_is_none():
    image, _ = scan_of(4)
    colour = np.stack([image] * 3)[:, None]
    crosses = with_calipers(image, 255) != image
    yellow = colour.copy()
    yellow[:2, 0, crosses], yellow[2, 0, crosses] = 255, 0
    assert "colour inside" in find_marks(yellow, find_sector(yellow)).kinds
    doppler = colour.copy()
    doppler[0, 0, 120:190, 150:240] = 255
    assert "colour inside" not in find_marks(doppler, find_sector(doppler)).kinds
    assert "colour inside" not in find_marks(colour, find_sector(colour)).kinds


def test_cleaning_is_off_by_default_and_keeps_colour_doppler():
    image, _ = scan_of(5)
    voxels = np.stack([image] * 3)[:, None]
    voxels[0, 0, 120:190, 150:240] = 250
    assert cleaned(voxels, FLAT, plan(channels=3)) is voxels
    kept = cleaned(voxels, FLAT, plan(channels=3, marks="remove"))
    np.testing.assert_array_equal(kept, voxels)


def test_what_lies_beside_the_sector_becomes_black_or_is_cut_off():
    image, truth = scan_of(6)
    marked = np.ascontiguousarray(image)
    marked[:8, :40] = 200
    black = cleaned(marked[None, None], FLAT, plan(outside="black"))[0, 0]
    assert not black[:8, :40].any() and (black[truth] == marked[truth]).mean() > 0.97
    cut = cleaned(marked[None, None], FLAT, plan(outside="crop"))
    top, left, bottom, right = find_sector(marked[None, None]).box
    assert cut.shape[2:] == (bottom - top, right - left)
    assert prepare(marked[None, None], FLAT, plan(outside="crop")).shape[1] == 1
    empty = np.zeros((1, 1, 60, 80), np.uint8)
    np.testing.assert_array_equal(cleaned(empty, FLAT, plan(outside="crop", marks="remove")), empty)


def test_plans_without_cleaning_are_written_as_before():
    assert {"outside", "marks", "neighbours"} & set(plan().model_dump(mode="json")) == set()
    assert Preprocessing.parse(plan().model_dump(mode="json"), "test") == plan()
