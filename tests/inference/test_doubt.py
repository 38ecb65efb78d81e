"""Doubt: none where networks agree, about a half where they do not know, near one where they are sure of else."""

import numpy as np
import pytest
import tiny_run

from fmseg.inference.doubt import doubt_of_classes, doubt_of_map
from fmseg.records.labels import ClassScheme


def maps(foreground: np.ndarray) -> np.ndarray:
    return np.stack([1 - foreground, foreground])[:, None]


def test_doubt_follows_the_probability_of_the_label():
    labels = np.zeros((1, 4, 4), np.uint8)
    labels[0, 1:3, 1:3] = 1
    right, unsure = labels[0].astype(float), np.full((4, 4), 0.4)
    missed = np.zeros((4, 4))
    assert doubt_of_map(maps(right), labels, tiny_run.SCHEME)[0] == 0
    assert doubt_of_map(maps(missed), labels, tiny_run.SCHEME)[0] == 1
    assert doubt_of_map(maps(unsure), labels, tiny_run.SCHEME)[0] == pytest.approx(0.6)
    assert doubt_of_map(maps(missed), np.zeros_like(labels), tiny_run.SCHEME)[0] == 0


def test_a_missing_part_is_doubted_by_its_share_and_found_in_its_slice():
    labels = np.zeros((2, 4, 4), np.uint8)
    labels[:, :2] = 1
    drawn = labels.astype(float)
    drawn[1, 2] = 1  # 4 pixels more than were labelled, beside 16
    doubt, slices = doubt_of_map(np.stack([1 - drawn, drawn]), labels, tiny_run.SCHEME)
    assert doubt == pytest.approx(4 / 20) and slices.tolist() == [0, 4]


def test_regions_are_judged_one_by_one_and_ignored_pixels_not_at_all():
    labels = np.full((1, 1, 4), 2, np.uint8)
    labels[0, 0, 3] = 3  # to be ignored
    probabilities = np.array([[1.0, 1, 1, 0], [1, 1, 0, 0]])[:, None, None]
    doubt, _ = doubt_of_map(probabilities, labels, tiny_run.NESTED)
    assert doubt == pytest.approx(0.5 / 3)


def test_classes():
    one = ClassScheme(names=("a", "b"), is_exclusive=True)
    several = ClassScheme(names=("a", "b"), is_exclusive=False)
    targets = np.array([[1.0, 0], [1, 0]])
    found = doubt_of_classes(np.array([[0.9, 0.1], [0.2, 0.8]]), targets, one)
    np.testing.assert_allclose(found, [0.1, 0.8])
    np.testing.assert_allclose(doubt_of_classes(np.array([[0.9, 0.7], [1, 0]]), targets, several), [0.7, 0])
