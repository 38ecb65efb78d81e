"""What find_best chose: which runs to average, and which clean-up helps."""

from typing import ClassVar, Literal

from fmseg.records.record import Part, Record
from fmseg.records.scores import Interval


class Member(Part):
    """One recipe of the ensemble: all its folds are averaged."""

    #: folder of the runs, relative to the dataset's results, as ``upernet__fmsegPlans``
    runs: str
    folds: tuple[int, ...]
    weight: int


class CleanUp(Part):
    """One rule for one class or region, kept because it helped out of fold."""

    output: str
    rule: Literal["largest_component", "fill_holes", "remove_small"]
    #: smallest component kept, as share of the image; 0 for the other rules
    min_share: float


class Candidate(Part):
    """One recipe or ensemble that was scored."""

    name: str
    dice: Interval


class Selection(Record):
    """The outcome of ``find_best`` (selection.json)."""

    VERSION: ClassVar[int] = 1

    dataset: str
    plans_digest: str
    members: tuple[Member, ...]
    clean_up: tuple[CleanUp, ...]
    #: every single recipe and the ensemble, best first
    candidates: tuple[Candidate, ...]
    #: out of fold, ensemble and clean-up included
    dice: Interval
    because: str
