"""What the training of a dataset has come to, read from its folder: runs, choice, scores, out-of-fold label maps.

For whoever shows results: nothing here needs torch, and half-done work is shown as far as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fmseg.errors import BadData
from fmseg.imaging.decode import labels_from_probabilities
from fmseg.imaging.prepare import restore
from fmseg.inference.ensemble import weighted_mean
from fmseg.inference.postprocess import apply_clean_up
from fmseg.inference.probabilities import ENDING, load_probabilities
from fmseg.inference.scoring import score
from fmseg.inference.trained import SELECTION, finished_folds, trained_recipes
from fmseg.records.labels import LabelScheme
from fmseg.records.run import RunConfig, RunFolder
from fmseg.records.scores import ClassificationScores, Scores
from fmseg.records.selection import Selection

#: (Z, Y, X)
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class FoldOutcome:
    """One finished fold."""

    #: folder of its recipe, as ``upernet__fmsegPlans``
    runs: str
    number: int
    run: RunFolder
    config: RunConfig
    #: of its validation cases
    scores: Scores | ClassificationScores


@dataclass(frozen=True)
class Outcome:
    """Everything that is finished of one dataset."""

    results: Path
    #: of all recipes, sorted by recipe and number
    folds: tuple[FoldOutcome, ...]
    #: what find_best chose; None before it has
    selection: Selection | None

    @classmethod
    def load(cls, results: Path) -> "Outcome":
        """Read a dataset's results; where nothing is finished, there are no folds. Raises BadRecord."""
        path = results / SELECTION
        folds = tuple(
            _read_fold(runs.name, number, folder)
            for runs in trained_recipes(results)
            for number, folder in finished_folds(runs).items()
            if (folder / "validation" / "scores.json").exists()
        )
        return cls(results, folds, Selection.load(path) if path.exists() else None)

    @cached_property
    def chosen(self) -> tuple[FoldOutcome, ...]:
        """The folds that predict: of the chosen recipes, or, without a choice, of the one with most folds."""
        if self.selection is not None:
            names = {member.runs for member in self.selection.members}
            return tuple(fold for fold in self.folds if fold.runs in names)
        counts = {fold.runs: 0 for fold in self.folds}
        for fold in self.folds:
            counts[fold.runs] += 1
        most = max(counts, key=lambda name: counts[name], default="")
        return tuple(fold for fold in self.folds if fold.runs == most)

    @cached_property
    def pooled(self) -> Scores | ClassificationScores | None:
        """The scores of the choice over all folds; those of the folds together where nothing is chosen yet.

        None where nothing is finished, and for classes before find_best has put the folds together.
        """
        path = self.results / "out_of_fold" / "scores.json"
        if self.selection is not None and path.exists():
            kind = Scores if self.selection.measure == "Dice" else ClassificationScores
            return kind.load(path)
        found = [fold.scores for fold in self.chosen if isinstance(fold.scores, Scores)]
        if not found:
            return None
        # a case that several folds validate counts once
        cases = {case.case: case for scores in reversed(found) for case in scores.cases}
        return score([cases[name] for name in sorted(cases)], distance_unit=found[0].distance_unit)

    @cached_property
    def fold_of(self) -> Mapping[str, int]:
        """Case -> the fold that validated it."""
        return {case: fold.number for fold in reversed(self.chosen) for case in fold.config.cases.val}

    @property
    def scheme(self) -> LabelScheme:
        """What label values mean. Raises BadData where classes of whole cases were learned."""
        labels = self.chosen[0].config.plans.labels
        if not isinstance(labels, LabelScheme):
            raise BadData(f"{self.results}: its models tell classes of whole cases, and draw no label maps.")
        return labels

    def probabilities(self, case: str) -> np.ndarray:
        """Return what the chosen models say of a case that they were not trained on, (K, Z, h, w).

        Raises BadData where the file of a fold is gone.
        """
        weights = {member.runs: member.weight for member in self.selection.members} if self.selection else {}
        parts: dict[str, FoldOutcome] = {}
        for fold in self.chosen:
            if case in fold.config.cases.val:
                parts.setdefault(fold.runs, fold)
        if not parts:
            raise BadData(f"{self.results}: no finished fold has validated the case '{case}'.")
        files = [fold.run.validation / f"{case}{ENDING}" for fold in parts.values()]
        return weighted_mean([load_probabilities(file) for file in files], [weights.get(name, 1) for name in parts])

    def label_map(self, probabilities: np.ndarray, shape: Shape) -> np.ndarray:
        """Return the label map (Z, Y, X) on a case's own grid, cleaned up as ``predict`` does it."""
        labels = labels_from_probabilities(restore(probabilities, shape), self.scheme)
        return apply_clean_up(labels, self.selection.clean_up if self.selection else (), self.scheme)


def worst_first(cases: Sequence[tuple[str, float]]) -> list[str]:
    """Return the names of cases, the lowest score first."""
    return [name for name, _ in sorted(cases, key=lambda pair: (pair[1], pair[0]))]


def _read_fold(runs: str, number: int, folder: Path) -> FoldOutcome:
    config = RunConfig.load(folder / "run.json")
    kind = Scores if config.plans.task == "segmentation" else ClassificationScores
    return FoldOutcome(runs, number, RunFolder(folder), config, kind.load(folder / "validation" / "scores.json"))
