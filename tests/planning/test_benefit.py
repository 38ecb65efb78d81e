from itertools import pairwise

import pytest

from fmseg.planning.benefit import (
    DICE_GAINS,
    PROBE_GAINS,
    WORTHWHILE_DICE,
    expected_benefit,
    worthwhile_samples,
)


def test_more_samples_never_promise_less():
    found = [expected_benefit(int(10**exponent)) for exponent in (0, 2, 3.5, 4, 4.7, 5, 5.5, 6, 7, 7.9, 8, 9)]
    for one, more in pairwise(found):
        assert more.dice_gain >= one.dice_gain
        assert more.probe_gain >= one.probe_gain


@pytest.mark.parametrize(("points", "gain"), [(DICE_GAINS, "dice_gain"), (PROBE_GAINS, "probe_gain")])
def test_what_was_measured_is_what_is_promised(points, gain):
    for samples, measured in points:
        assert getattr(expected_benefit(samples), gain) == pytest.approx(measured)


def test_the_samples_that_pay_are_where_the_gain_becomes_worthwhile():
    samples = worthwhile_samples()
    assert expected_benefit(samples).dice_gain == pytest.approx(WORTHWHILE_DICE, abs=0.001)
    assert not expected_benefit(int(0.9 * samples)).pays
    assert expected_benefit(int(1.1 * samples)).pays


def test_what_does_not_pay_is_said_with_the_time_that_would():
    text = expected_benefit(50_000).describe(images_per_s=worthwhile_samples() / 3600)
    assert "nothing to gain" in text
    assert "60 min here" in text or "1 h" in text
    assert "interpolated" in expected_benefit(10**6).describe(50)
    assert "interpolated" not in expected_benefit(10**8).describe(50)
