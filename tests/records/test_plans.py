from itertools import pairwise

import pytest

from fmseg.records.plans import spread


@pytest.mark.parametrize("count", [0, 1, 5, 19, 20, 21, 40, 108, 1000])
def test_cases_are_spread_over_the_whole_list(count):
    cases = [f"case{index:04d}" for index in range(count)]
    found = spread(cases, 20)
    assert len(found) <= 20
    assert len(found) >= min(count, 10)
    assert list(found) == sorted(set(found))
    gaps = {cases.index(after) - cases.index(before) for before, after in pairwise(found)}
    assert len(gaps) <= 1
