import math

import pytest

from fmseg.errors import BadRecord
from fmseg.records.ranges import Ranges

WHOLE = {
    "num_patients": 3,
    "sizes": {"pixel size": [0.1, 0.4]},
    "tones": {"brightness": [0.0, 0.3]},
    "planes": ["axial"],
    "colours": ["grey"],
}


def test_ranges_come_back_as_they_were_written():
    ranges = Ranges.parse(WHOLE, "run.json")
    assert Ranges.parse(ranges.model_dump(mode="json"), "run.json") == ranges


@pytest.mark.parametrize(
    "wrong",
    [
        {"sizes": {"pixel size": [0.0, 0.4]}},
        {"sizes": {"pixel size": [0.1, math.inf]}},
        {"tones": {"brightness": [math.nan, 0.3]}},
        {"planes": ["upside down"]},
        {"num_patients": 0},
    ],
)
def test_what_cannot_be_compared_is_refused_by_name_of_the_file(wrong):
    with pytest.raises(BadRecord, match=r"run\.json"):
        Ranges.parse(WHOLE | wrong, "run.json")
