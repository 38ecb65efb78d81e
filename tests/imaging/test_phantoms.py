"""Phantoms: physics that must hold, labels that lie on what is drawn, the same bytes for the same seed."""

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fmseg.imaging.phantoms import (
    LABELS,
    Group,
    PhantomScan,
    make_phantom,
    render,
    sample_patient,
    sample_scan,
    write_phantoms,
)
from fmseg.imaging.scanner import DEVICES, NUM_BEAMS, Settings, Tissue, acquire, beam_points, in_sector
from fmseg.records.dataset import Dataset

QUIET = Settings(depth_mm=100, gain_db=-25, slope_db_per_mm=0, lost_contact=0, lost_db=0, seed=1)
#: shows amplitudes as they are: no sharpening, no grey curve
PLAIN = replace(DEVICES[1], gamma=1.0, sharpening=0.0, dynamic_range_db=90.0)


def scan(seed: int, index: int = 0) -> PhantomScan:
    rng = np.random.default_rng(seed)
    patient = sample_patient(rng)
    return [sample_scan(rng, patient) for _ in range(index + 1)][-1]


def uniform_tissue(echo_db: float = 0.0, loss: float = 0.0) -> Tissue:
    shape = beam_points(PLAIN, QUIET.depth_mm)[0].shape
    return Tissue(np.full(shape, echo_db, np.float32), np.full(shape, loss, np.float32))


def decibels(image: np.ndarray) -> np.ndarray:
    """Undo the log compression of PLAIN."""
    return (image / 255 - 1) * PLAIN.dynamic_range_db - QUIET.gain_db


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: f"{device.size[0]}x{device.size[1]}")
def test_images_and_labels_have_the_size_of_their_device(device):
    image, label = render(replace(scan(3), patient=replace(scan(3).patient, device=device)))
    assert image.shape == label.shape == device.size
    assert image.dtype == label.dtype == np.uint8
    assert set(np.unique(label)) <= set(LABELS.values())


def test_one_scan_always_gives_the_same_picture():
    first, second = render(scan(5)), render(scan(5))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert not np.array_equal(first[0], render(scan(6))[0])


def test_speckle_is_fully_developed():
    image = acquire(PLAIN, QUIET, uniform_tissue())
    inner = image[120:280, 110:210]
    amplitude = 10 ** (decibels(inner.astype(float)) / 20)
    # mean / standard deviation of a Rayleigh distribution is 1.91
    assert 1.75 < amplitude.mean() / amplitude.std() < 2.15
    # and the strength of 0 dB is a mean power of 1
    assert abs(10 * np.log10((amplitude**2).mean())) < 1.0


def test_nothing_is_seen_outside_the_sector():
    image = acquire(PLAIN, QUIET, uniform_tissue())
    inside = in_sector(PLAIN, QUIET.depth_mm)
    assert 0.3 < inside.mean() < 0.9
    assert not image[~inside].any()
    assert (image[inside] > 0).mean() > 0.98


def test_labels_lie_in_the_sector():
    for seed in range(8):
        each = scan(seed)
        label = render(each)[1]
        assert label.any()
        assert not label[~in_sector(each.patient.device, each.settings.depth_mm)].any()


def test_bone_casts_a_shadow_along_the_beams_and_fluid_brightens():
    for loss, darker in ((5.0, True), (-0.5, False)):
        tissue = uniform_tissue(loss=0.0)
        middle = slice(NUM_BEAMS // 2 - 15, NUM_BEAMS // 2 + 15)
        tissue.loss_db_per_mm[80:90, middle] = loss  # 4 mm of it
        with_it, without = (acquire(PLAIN, QUIET, t).astype(float) for t in (tissue, uniform_tissue()))
        height, width = PLAIN.size
        behind = (slice(int(0.6 * height), int(0.8 * height)), slice(width // 2 - 10, width // 2 + 10))
        before = (slice(int(0.15 * height), int(0.25 * height)), slice(width // 2 - 10, width // 2 + 10))
        assert (with_it[behind].mean() < without[behind].mean()) == darker
        assert np.array_equal(with_it[before], without[before])


def test_patients_look_alike_to_themselves():
    rng = np.random.default_rng(0)
    patient = sample_patient(rng)
    scans = [sample_scan(rng, patient) for _ in range(4)]
    assert {each.patient for each in scans} == {patient}
    assert len({(each.turn_deg, each.shift_mm, each.settings.gain_db) for each in scans}) == 4


def test_heads_of_a_patient_are_alike_and_those_of_others_are_not():
    sizes = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        patient = sample_patient(rng)
        scans = [sample_scan(rng, patient) for _ in range(4)]
        # on one machine with one depth, and whole, so that only the anatomy is left to differ
        aimed = [replace(each, shift_mm=(patient.head.mean_mm, 90.0), turn_deg=each.turn_deg % 90) for each in scans]
        aimed = [replace(each, settings=replace(each.settings, depth_mm=180.0)) for each in aimed]
        aimed = [replace(each, patient=replace(patient, device=PLAIN)) for each in aimed]
        sizes.append([(render(each)[1] == LABELS["head"]).sum() for each in aimed])
    within, between = np.std(sizes, axis=1).mean(), np.std(np.mean(sizes, axis=1))
    assert within < 0.2 * between


def test_the_skull_is_bright_and_the_brain_darker_than_the_abdomen():
    abdomen, brain, skull, other = [], [], [], []
    for seed in range(12):
        image, label = make_phantom(np.random.default_rng(seed))
        abdomen += image[label == LABELS["abdomen"]].tolist()
        head = (label == LABELS["head"]).astype(np.uint8)
        inner = cv2.erode(head, np.ones((25, 25), np.uint8)).astype(bool)
        brain += image[inner].tolist()
        rim = head.astype(bool) & ~(np.roll(head, 3, 0) & np.roll(head, -3, 0)).astype(bool)
        skull += image[rim].tolist()
        other += image[(label == 0) & (image > 0)].tolist()
    assert np.mean(brain) < 0.9 * np.mean(abdomen)
    assert np.mean(skull) > 1.2 * np.mean(other)


def test_grey_values_alone_do_not_find_the_labels():
    best = {"head": 0.0, "abdomen": 0.0}
    pictures = [make_phantom(np.random.default_rng(seed)) for seed in range(12)]
    image = np.concatenate([picture.ravel() for picture, _ in pictures])
    for name in best:
        label = np.concatenate([labels.ravel() == LABELS[name] for _, labels in pictures])
        in_it, everywhere = (np.bincount(values, minlength=256) for values in (image[label], image))
        # the best set of grey values: those that belong to the structure most often, one after the other
        order = np.argsort(-in_it / np.maximum(everywhere, 1))
        hits, taken = np.cumsum(in_it[order]), np.cumsum(everywhere[order])
        best[name] = float((2 * hits / (taken + label.sum())).max())
    assert best["head"] < 0.5
    assert best["abdomen"] < 0.6


def write_small(raw: Path, seed: int = 0) -> tuple[Path, Path]:
    groups = {"training": Group("P", 3, 2), "test": Group("T", 2, 1), "corpus": Group("U", 2, 2)}
    return write_phantoms(raw, **groups, seed=seed)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_datasets_are_complete_and_the_same_for_one_seed(tmp_path):
    labelled, unlabelled = write_small(tmp_path / "one")
    dataset = Dataset.load(labelled)
    cases = dataset.training_cases()
    assert len(cases) == 6
    assert all(case.label is not None for case in cases)
    patients = dataset.patients_of_cases()
    test_cases = {path.stem for path in (labelled / "labelsTs").iterdir()}
    assert {path.name for path in (labelled / "imagesTs").iterdir()} == {f"{name}_0000.png" for name in test_cases}
    assert set(patients) == {case.name for case in cases} | test_cases
    assert not {patients[case.name] for case in cases} & {patients[name] for name in test_cases}
    assert len(Dataset.load(unlabelled).training_cases()) == 4
    write_small(tmp_path / "two")
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    write_small(tmp_path / "three", seed=1)
    assert digest(tmp_path / "one") != digest(tmp_path / "three")


def test_writing_again_changes_nothing(tmp_path):
    labelled, _ = write_small(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in labelled.rglob("*")}
    write_small(tmp_path, seed=5)
    assert {path: path.stat().st_mtime_ns for path in labelled.rglob("*")} == times
