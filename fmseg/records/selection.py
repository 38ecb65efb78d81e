"""What find_best chose: which runs to average, and which clean-up helps."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import Field

from fmseg.records.record import Part, Record
from fmseg.records.scores import Interval
from fmseg.records.seen import Seen


class Member(Part):
    """One recipe of the ensemble: all its folds are averaged."""

    #: folder of the runs, relative to the dataset's results, as ``upernet__fmsegPlans``
    runs: str = Field(pattern=r"^[^/\\]*[^/\\.][^/\\]*$")
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
    score: Interval
    #: of each fold alone; empty for an ensemble, and in files that are older than this
    folds: tuple[float, ...] = ()


def _named_dice(value: dict[str, Any]) -> dict[str, Any]:
    """Return version 2 of version 1, in which every score was Dice."""
    candidates = [{"name": each["name"], "score": each["dice"]} for each in value["candidates"]]
    score = value.pop("dice")
    return value | {"measure": "Dice", "score": score, "candidates": candidates}


class Selection(Record):
    """The outcome of ``find_best`` (selection.json)."""

    VERSION: ClassVar[int] = 2
    MIGRATIONS: ClassVar[dict[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {1: _named_dice}

    dataset: str
    plans_digest: str
    members: tuple[Member, ...]
    clean_up: tuple[CleanUp, ...]
    #: every single recipe and the ensemble, best first
    candidates: tuple[Candidate, ...]
    #: divides the logits of classes, so that probabilities mean what they say; fitted out of fold
    temperature: float = 1.0
    #: what the scores are of, as Dice or macro F1
    measure: str
    #: out of fold, ensemble and clean-up included
    score: Interval
    because: str
    #: what the members had met of the out-of-fold cases in their pretraining, without labels; None where nobody looked
    seen: Seen | None = None
