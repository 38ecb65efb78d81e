"""What one run of a benchmark came to: one small file, from which all tables are made."""

from typing import ClassVar

from fmseg.records.record import Record
from fmseg.records.scores import Interval


class BenchmarkScore(Record):
    """One network, learned in one regime on one split, tested on images of patients that it has not seen."""

    VERSION: ClassVar[int] = 1

    dataset: str
    #: ``dataset`` itself, or the cohort
    tested_on: str
    #: how the test images were chosen, see ``Study``
    test: str
    regime: str
    split: int
    recipe: str
    #: scratch, or a foundation checkpoint
    start: str
    #: whether its network is the one that foundation checkpoints are of; other ones are baselines
    takes_foundation: bool
    settings: dict[str, str]
    #: what ``score`` is, as Dice or macro F1
    measure: str
    score: Interval
    #: all other figures, by name
    measures: dict[str, float]
    num_train_cases: int
    num_train_patients: int
    num_test_cases: int
    num_test_patients: int
    #: test images that the pretraining had met, without labels; None where nobody knows
    seen_in_pretraining: int | None
    #: images left out of a cohort or an official test: trained on, unreadable, or without a label it could give
    left_out: int = 0
    #: of the images and labels of a cohort or an official test; empty for validation cases, whose labels ``run.json``
    #: has a digest of, and where it was not noted
    test_digest: str = ""
    #: of the whole run, test included
    seconds: float
    #: the same by rule of thumb, by which the time of others is told
    predicted_seconds: float
