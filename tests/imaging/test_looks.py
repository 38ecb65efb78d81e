"""Looks: small changes of an image change few bits, and alike images are counted."""

import cv2
import numpy as np
import pytest

from fmseg.imaging.alike import ImageKeys, is_repeated, is_too_alike, keys_of
from fmseg.imaging.looks import look_of, looks_of, num_alike, parse_looks
from fmseg.imaging.measure import measure_case
from fmseg.records.cases import CaseFiles


def smooth(seed: int, size: tuple[int, int] = (200, 260)) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    image = cv2.GaussianBlur(noise, (0, 0), 12)
    return np.clip(128 + 50 * image / image.std(), 0, 255).astype(np.uint8)


def bits_between(one: int, other: int) -> int:
    return (one ^ other).bit_count()


CHANGES = {
    "jpeg": lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 0),
    "brighter": lambda image: np.clip(image * 0.8 + 20, 0, 255).astype(np.uint8),
    "half": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "noise": lambda image: np.clip(image + np.random.default_rng(0).normal(0, 8, image.shape), 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_same_image_saved_otherwise_looks_alike_and_another_does_not(change):
    images = [smooth(seed) for seed in range(12)]
    looks = [look_of(image[None]) for image in images]
    assert max(bits_between(look_of(change(image)[None]), look) for image, look in zip(images, looks, strict=True)) <= 6
    others = [bits_between(looks[i], looks[j]) for i in range(12) for j in range(i)]
    assert min(others) >= 12
    assert 28 < np.mean(others) < 36


def test_looks_do_not_depend_on_type_channels_or_scale():
    image = smooth(1)
    look = look_of(image[None])
    assert look_of(np.stack([image] * 3)) == look
    assert look_of(image[None].astype(np.uint16) * 200) == look
    assert look_of(image[None].astype(np.float64) * 0.01 - 3) == look
    assert look_of(image[None].astype(np.int32) - 1000) == look


def test_a_stack_has_a_look_for_each_slice_and_they_come_back():
    stack = np.stack([smooth(seed) for seed in range(3)])[None]
    looks = looks_of(stack)
    assert parse_looks(looks).tolist() == [look_of(stack[:, z]) for z in range(3)]
    assert len(looks_of(np.full((1, 1, 9, 5), np.nan, np.float32))) == 16


def with_flipped_bits(rng: np.random.Generator, looks: np.ndarray, count: int) -> np.ndarray:
    changed = []
    for look in looks.tolist():
        for bit in rng.choice(64, count, replace=False).tolist():
            look ^= 1 << bit
        changed.append(look)
    return np.array(changed, np.uint64)


def test_alike_images_are_counted_without_comparing_all_pairs():
    rng = np.random.default_rng(0)
    looks = rng.integers(0, 2**64, 20_000, dtype=np.uint64)
    assert num_alike(looks, 3) == 0
    near = with_flipped_bits(rng, looks[:500], 2)
    far = with_flipped_bits(rng, looks[500:900], 9)
    twice = looks[1000:1100]
    together = rng.permutation(np.concatenate([looks, near, far, twice]))
    assert num_alike(together, 2) == 500 + 100
    assert num_alike(together, 1) == 100
    assert num_alike(looks[:1], 2) == num_alike(looks[:0], 2) == 0


def test_equal_images_are_used_once():
    assert is_repeated(np.array([7, 3, 7, 7, 4], np.uint64)).tolist() == [False, False, True, True, False]


def keys(looks, patients) -> ImageKeys:
    columns = [np.array(column, np.uint64) for column in (range(len(looks)), looks, patients, range(len(looks)))]
    return ImageKeys(*columns)


def test_where_no_patient_is_known_a_folder_stands_for_one(tmp_path):
    facts = []
    for case, patient in {"clip/1": "clip/1", "clip/2": "clip/2", "other/1": "other/1", "p1": "Eve"}.items():
        cv2.imwrite(str(tmp_path / "image.png"), smooth(1))
        facts.append(measure_case(CaseFiles(case, (tmp_path / "image.png",), None), None, patient))
    assert is_too_alike(keys_of(facts), 8).tolist() == [False, True, False, False]


def test_frames_of_one_patient_are_thinned_and_other_patients_left_alone():
    frames = [1 << bit for bit in range(8)]  # two bits between any two
    looks = [0b1111 << 60, *frames, 0b1111 << 60, 1]
    patients = [1, *[2] * 8, 1, 3]
    assert is_too_alike(keys(looks, patients), 2).tolist() == [False] * 9 + [True, False]
    assert is_too_alike(keys(looks, patients), 3).tolist() == [False, False, *[True] * 7, True, False]
    assert not is_too_alike(keys([0, 0, 0], [1, 1, 1]), 8).any()  # looks that were never measured
