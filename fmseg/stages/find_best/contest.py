"""What a task brings to choosing what predicts; and what is read of a recipe whatever the task."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from fmseg.errors import BadData
from fmseg.inference.trained import training_command
from fmseg.planning.targets import digest_of
from fmseg.records.plans import Fold
from fmseg.records.record import differing
from fmseg.records.run import RunConfig
from fmseg.records.scores import Interval
from fmseg.records.selection import CleanUp
from fmseg.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe whose folds are all finished."""

    #: of its folder
    name: str
    #: of its first fold
    config: RunConfig
    #: of its folds in order
    folders: tuple[Path, ...]


P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Refined(Generic[P]):
    """An ensemble with what follows it."""

    pooled: P
    clean_up: tuple[CleanUp, ...] = ()
    temperature: float = 1.0
    because: str = ""


class Contest(ABC, Generic[P]):
    """Scores recipes and ensembles on their pooled out-of-fold predictions, all that ``P`` stands for."""

    measure: ClassVar[str]

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.workspace = workspace
        self.name = name

    @abstractmethod
    def read(self, recipe: Recipe) -> P:
        """Return the out-of-fold predictions of one recipe, scored. Raises BadData if some cannot be read."""

    @abstractmethod
    def figure(self, pooled: P) -> Interval:
        """Return what ``measure`` says."""

    @abstractmethod
    def greedy(self, mates: Sequence[tuple[Recipe, P]], max_models: int) -> list[int]:
        """Return how often each recipe is taken for the best ensemble."""

    @abstractmethod
    def together(self, mates: Sequence[tuple[Recipe, P]], picks: Sequence[int]) -> P:
        """Return the predictions of an ensemble, scored."""

    @abstractmethod
    def share_better(self, one: P, other: P) -> float:
        """Return the share of the resamplings of the patients in which ``one`` is better."""

    @abstractmethod
    def refine(self, mates: Sequence[tuple[Recipe, P]], picks: Sequence[int], pooled: P) -> Refined[P]:
        """Return an ensemble with whatever makes it better after averaging."""

    @abstractmethod
    def save(self, pooled: P, folder: Path) -> None:
        """Write the scores of what was chosen."""


def read_recipe(runs: Path, folds: Sequence[Fold], targets: Mapping[str, str]) -> Recipe:
    """Return a recipe from the folder of its runs.

    targets: what all cases are scored toward, as of ``read_targets``. Raises BadData if a fold was trained on other
    cases, labels or plans.
    """
    folders = tuple(runs / f"fold_{number}" for number in range(len(folds)))
    configs = [RunConfig.load(folder / "run.json") for folder in folders]
    for number, (fold, config) in enumerate(zip(folds, configs, strict=True)):
        if set(config.cases.val) != set(fold.val) or config.plans != configs[0].plans:
            raise BadData(
                f"{folders[number]}: trained on other folds or under another plan than now. Train it again with: "
                f"{training_command(runs, number)} --fresh"
            )
        if others := differing(configs[0].recipe, config.recipe):
            raise BadData(
                f"{folders[number]}: trained with other settings than {folders[0].name} ({', '.join(others)}), so they "
                f"are no folds of one recipe. Train it as the others: {training_command(runs, number)} --fresh"
            )
        if config.labels and not _is_of(config, targets):
            raise BadData(
                f"{folders[number]}: trained and scored on other labels than the dataset has now. Train it again with: "
                f"{training_command(runs, number)} --fresh"
            )
    return Recipe(runs.name, configs[0], folders)


def _is_of(config: RunConfig, targets: Mapping[str, str]) -> bool:
    """Return whether a fold learned from, and was scored on, the labels of today."""
    is_known = {*config.cases.train, *config.cases.val} <= set(targets)
    return is_known and digest_of(targets, config.cases) == config.labels


def title(picks: Mapping[str, int]) -> str:
    """Return the name of an ensemble. picks: recipe -> how often it is taken."""
    return " + ".join(f"{count} x {name}" if count > 1 else name for name, count in picks.items())
