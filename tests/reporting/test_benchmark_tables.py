"""What is said below a table, beside its figures."""

import pytest

from fmseg.records.benchmark import BenchmarkScore
from fmseg.records.fingerprint import Fingerprint
from fmseg.records.scores import Interval
from fmseg.reporting.benchmark_tables import summarise

NAME = "Dataset501_Heads"
SCORE = BenchmarkScore(
    dataset=NAME,
    tested_on=NAME,
    test="folds",
    regime="full",
    split=0,
    recipe="linear",
    start="scratch",
    takes_foundation=True,
    settings={},
    measure="Dice",
    score=Interval(mean=0.9, low=0.8, high=0.95),
    measures={},
    num_train_cases=4,
    num_train_patients=2,
    num_test_cases=2,
    num_test_patients=1,
    seen_in_pretraining=0,
    seconds=1.0,
    predicted_seconds=1.0,
)


@pytest.mark.parametrize(
    ("source", "declared", "unit", "says", "never"),
    [
        ("patients.csv", True, "patient", "Heads: no patient is trained and tested on, by patients.csv", "may be"),
        ("patients.csv", True, "video", "Heads: no video is trained and tested on, by patients.csv", "no patient"),
        ("guessed: each case counts as one", False, "patient", "a patient may be trained and tested on", "no patient"),
    ],
)
def test_who_is_kept_apart_is_told_with_what_it_is_known_from(source, declared, unit, says, never):
    known = Fingerprint.model_construct(patient_source=source, patients_declared=declared, patient_unit=unit)
    said = " ".join(summarise([SCORE], {}, {NAME: known}).notes)
    assert says in said and source in said and never not in said
