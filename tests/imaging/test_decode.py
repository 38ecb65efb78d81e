import numpy as np
import pytest

from fmseg.imaging.decode import labels_from_probabilities, targets_from_labels
from fmseg.records.labels import LabelScheme

CLASSES = LabelScheme(names=("b", "a"), values=((2,), (1,)), painted=(2, 1), has_regions=False, ignore=3)
REGIONS = LabelScheme(names=("whole", "core"), values=((1, 2), (2,)), painted=(1, 2), has_regions=True, ignore=3)


@pytest.mark.parametrize("scheme", [CLASSES, REGIONS])
def test_labels_come_back_from_their_targets(scheme):
    labels = np.random.default_rng(0).integers(0, 3, (3, 20, 30)).astype(np.uint8)
    targets = targets_from_labels(labels, scheme)
    assert targets.shape == (scheme.num_outputs, 3, 20, 30)
    assert targets.dtype == np.uint8
    restored = labels_from_probabilities(targets.astype(np.float32), scheme)
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, labels)


def test_classes_are_the_argmax_with_the_first_of_equals():
    rng = np.random.default_rng(0)
    probabilities = rng.integers(0, 4, (3, 50, 60)).astype(np.float32)  # many ties
    expected = np.array([0, 2, 1], np.uint8)[probabilities.argmax(0)]
    np.testing.assert_array_equal(labels_from_probabilities(probabilities, CLASSES), expected)


def test_deciding_leaves_the_probabilities_alone():
    probabilities = np.random.default_rng(0).random((3, 5, 6), np.float32)
    before = probabilities.copy()
    labels_from_probabilities(probabilities, CLASSES)
    np.testing.assert_array_equal(probabilities, before)


def test_later_regions_are_painted_over_earlier_ones_above_one_half_only():
    probabilities = np.array([[0.9, 0.9, 0.2, 0.5], [0.1, 0.6, 0.7, 0.5]], np.float32)
    assert labels_from_probabilities(probabilities, REGIONS).tolist() == [1, 2, 2, 0]


def test_pixels_to_be_ignored_belong_to_no_output():
    labels = np.array([0, 1, 2, 3])
    assert targets_from_labels(labels, CLASSES).T.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert targets_from_labels(labels, REGIONS).T.tolist() == [[0, 0], [1, 0], [1, 1], [0, 0]]


def test_outputs_must_be_as_many_as_the_scheme_has():
    with pytest.raises(ValueError, match="3 outputs"):
        labels_from_probabilities(np.zeros((4, 5, 5), np.float32), CLASSES)
