import numpy as np
import pytest

from fmseg.imaging.decode import decide
from fmseg.inference.calibration import calibration_error, cross_entropy, fit_temperature, tempered
from fmseg.records.labels import ClassScheme

EXCLUSIVE = ClassScheme(names=("a", "b", "c"), is_exclusive=True)
SEVERAL = ClassScheme(names=("a", "b", "c"), is_exclusive=False)
both = pytest.mark.parametrize("scheme", [EXCLUSIVE, SEVERAL], ids=["exclusive", "several"])


def probabilities_of(logits, scheme):
    if scheme.is_exclusive:
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)
    return 1 / (1 + np.exp(-logits))


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
    if scheme.is_exclusive:
        targets = np.eye(3)[(true.cumsum(1) > rng.random((len(true), 1))).argmax(1)]
    else:
        targets = (rng.random(true.shape) < true).astype(float)
    overconfident = probabilities_of(2.5 * logits, scheme)
    temperature = fit_temperature(overconfident, targets, scheme)
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
