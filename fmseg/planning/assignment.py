"""What one finetuning learns from, and is scored on."""

from dataclasses import dataclass

from fmseg.records.plans import Fold, Plans
from fmseg.records.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Assignment:
    """The cases of one run."""

    plans: Plans
    cases: Fold
    #: of the fold or split
    number: int
    #: the numbers common to all recipes, where they are others than the plan's
    planned: Recipe | None = None
