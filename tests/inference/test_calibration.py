import numpy as np
import pytest

from fmseg.imaging.decode import decide
from fmseg.inference.calibration import (
    calibrate,
    calibration_error,
    cautious_targets,
    cross_entropy,
    fit_temperature,
    tempered,
)
from fmseg.records.labels import ClassScheme

EXCLUSIVE = ClassScheme(names=("a", "b", "c"), is_exclusive=True)
SEVERAL = ClassScheme(names=("a", "b", "c"), is_exclusive=False)
both = pytest.mark.parametrize("scheme", [EXCLUSIVE, SEVERAL], ids=["exclusive", "several"])


def probabilities_of(logits, scheme):
    if scheme.is_exclusive:
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)
    return 1 / (1 + np.exp(-logits))


def drawn_targets(true, scheme, rng):
    if scheme.is_exclusive:
        return np.eye(3)[(true.cumsum(1) > rng.random((len(true), 1))).argmax(1)]
    return (rng.random(true.shape) < true).astype(float)


def each_its_own(count):
    return [f"p{number}" for number in range(count)]


@both
def test_a_temperature_divides_the_logits(scheme):
    logits = np.random.default_rng(0).normal(0, 2, (50, 3))
    for temperature in (0.5, 1.0, 3.0):
        found = tempered(probabilities_of(logits, scheme), temperature, scheme)
        assert np.allclose(found, probabilities_of(logits / temperature, scheme))


@both
def test_a_temperature_changes_no_decision(scheme):
    probabilities = probabilities_of(np.random.default_rng(0).normal(0, 9, (200, 3)), scheme)
    for temperature in (0.05, 0.5, 20.0):
        assert np.array_equal(
            decide(tempered(probabilities, temperature, scheme), scheme), decide(probabilities, scheme)
        )


@both
def test_the_temperature_that_was_put_in_is_found(scheme):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 3))
    true = probabilities_of(logits, scheme)
    targets = drawn_targets(true, scheme, rng)
    overconfident = probabilities_of(2.5 * logits, scheme)
    temperature = fit_temperature(overconfident, targets, scheme, each_its_own(len(true)))
    assert temperature == pytest.approx(2.5, rel=0.05)
    losses = [
        cross_entropy(each, targets, scheme) for each in (tempered(overconfident, temperature, scheme), overconfident)
    ]
    assert losses[0] < losses[1]


def test_certainty_is_no_infinity():
    certain = np.eye(3)
    assert np.isfinite(tempered(certain, 0.05, EXCLUSIVE)).all()
    assert np.isfinite(cross_entropy(certain, certain[::-1], EXCLUSIVE))


def test_calibration_error_by_hand():
    # ten cases said with 0.9, of which six are right; ten with 0.5, of which five are
    confidence = np.repeat([0.9, 0.5], 10)
    right = np.array([True] * 6 + [False] * 4 + [True] * 5 + [False] * 5)
    assert calibration_error(confidence, right) == pytest.approx(0.5 * 0.3)
    assert calibration_error(np.ones(4), np.ones(4, bool)) == 0.0


@both
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 30.0])
def test_a_set_without_errors_gives_no_more_certainty_than_its_patients_or_networks_have(scheme, sharpness):
    targets = np.eye(3)[np.arange(24) % 3]
    own = probabilities_of(sharpness * (2 * targets - 1), scheme)
    found = calibrate(own, targets, scheme, each_its_own(24))
    sure = tempered(own, found.temperature, scheme).max(axis=1)
    # 8 patients of each class and 16 of others
    assert (sure <= np.maximum(own.max(axis=1), 17 / 18 + 1e-3)).all()
    assert (sure >= own.max(axis=1) - 1e-12).all(), "nothing here says that the networks are too sure"


@both
def test_wrong_answers_that_sound_sure_are_softened(scheme):
    rng = np.random.default_rng(0)
    targets = np.eye(3)[rng.integers(3, size=60)]
    sure = probabilities_of(12 * (2 * np.eye(3)[rng.integers(3, size=60)] - 1), scheme)
    found = calibrate(sure, targets, scheme, each_its_own(60))
    assert found.temperature > 5
    assert str(found.temperature) in found.because


@both
def test_a_temperature_depends_neither_on_the_order_of_cases_and_classes_nor_on_images_a_patient(scheme):
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (90, 3))
    own = probabilities_of(2 * logits, scheme)
    targets = drawn_targets(probabilities_of(logits, scheme), scheme, rng)
    patients = [f"p{number // 3}" for number in range(90)]
    found = fit_temperature(own, targets, scheme, patients)
    cases, classes = rng.permutation(90), rng.permutation(3)
    others = [patients[case] for case in cases]
    assert fit_temperature(own[cases][:, classes], targets[cases][:, classes], scheme, others) == found
    assert fit_temperature(np.tile(own, (4, 1)), np.tile(targets, (4, 1)), scheme, patients * 4) == found


@both
def test_probabilities_that_mean_what_they_say_are_left(scheme):
    rng = np.random.default_rng(1)
    own = probabilities_of(rng.normal(0, 2, (40, 3)), scheme)
    found = calibrate(own, drawn_targets(own, scheme, rng), scheme, each_its_own(40))
    assert found.temperature == 1.0
    assert found.because.startswith("temperature 1 stays")


def test_hardly_any_probability_is_not_sharpened_to_the_bound():
    targets = np.eye(3)[np.arange(6) % 3]
    own = probabilities_of(0.001 * targets, EXCLUSIVE)
    found = calibrate(own, targets, EXCLUSIVE, each_its_own(6))
    assert found.temperature == 1.0
    assert "6 patients are too few" in found.because


@both
def test_cautious_targets_are_platts(scheme):
    # three patients of class a, the third with two images, one of b, none of c
    targets = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]], float)
    found = cautious_targets(targets, scheme, ["p", "q", "r", "r", "s"])
    if scheme.is_exclusive:
        assert np.allclose(found, [[4 / 5, 1 / 10, 1 / 10]] * 4 + [[1 / 6, 2 / 3, 1 / 6]])
    else:
        assert np.allclose(found, [[4 / 5, 1 / 5, 1 / 6]] * 4 + [[1 / 3, 2 / 3, 1 / 6]])
