"""What classification brings to choosing: out-of-fold probabilities, macro F1, the temperature."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from fmseg.imaging.decode import targets_from_classes
from fmseg.inference.calibration import calibrate, tempered
from fmseg.inference.class_scoring import macro_f1, score_classes, share_of_draws_better
from fmseg.inference.ensemble import pick_greedily
from fmseg.inference.members import classes_of
from fmseg.inference.out_of_fold_classes import (
    PROBABILITIES,
    CaseProbabilities,
    load_probabilities,
    save_class_scores,
    save_probabilities,
)
from fmseg.records.dataset import Dataset
from fmseg.records.labels import ClassScheme
from fmseg.records.scores import ClassificationScores, Interval
from fmseg.stages.find_best.contest import Contest, Recipe, Refined


@dataclass(frozen=True, slots=True)
class Pooled:
    """Out-of-fold probabilities, scored."""

    cases: tuple[str, ...]
    #: (N, K) both
    probabilities: np.ndarray
    targets: np.ndarray
    scheme: ClassScheme
    scores: ClassificationScores


Mates = Sequence[tuple[Recipe, Pooled]]


class ClassContest(Contest[Pooled]):
    """Recipes that tell classes of whole cases."""

    measure: ClassVar[str] = "macro F1"

    def read(self, recipe: Recipe) -> Pooled:
        """Return the probabilities of all folds in the order of the cases' names."""
        scheme = classes_of(recipe.config)
        rows: dict[str, np.ndarray] = {}
        patients: dict[str, str] = {}
        for folder in recipe.folders:
            found = load_probabilities(folder / "validation" / PROBABILITIES, scheme)
            scores = ClassificationScores.load(folder / "validation" / "scores.json")
            for case, row in zip(found.cases, found.probabilities, strict=True):
                # a case that several folds validate counts once
                rows.setdefault(case, row)
            patients |= {case.case: case.patient for case in scores.cases}
        cases = tuple(sorted(rows))
        dataset = Dataset.load(self.workspace.raw_dataset(self.name))
        source = dataset.folder / "labelsTr.csv"
        targets = targets_from_classes(dataset.classes_of_cases(), cases, scheme, source)
        return _scored(cases, np.array([rows[case] for case in cases]), targets, scheme, patients)

    def figure(self, pooled: Pooled) -> Interval:
        """Return the macro F1."""
        return pooled.scores.macro_f1

    def greedy(self, mates: Mates, max_models: int) -> list[int]:
        """Return how often each recipe is taken for the highest macro F1."""
        first = mates[0][1]
        each = np.stack([pooled.probabilities for _, pooled in mates])

        def with_one_more(picks: Sequence[int], allowed: Sequence[int]) -> list[float]:
            added = np.array(picks) + np.eye(len(mates), dtype=int)[list(allowed)]
            means = (np.average(each, axis=0, weights=counts) for counts in added)
            return [macro_f1(mean, first.targets, first.scheme) for mean in means]

        return pick_greedily(with_one_more, num_candidates=len(mates), max_members=max_models)

    def together(self, mates: Mates, picks: Sequence[int]) -> Pooled:
        """Return the averaged probabilities, scored."""
        mean = np.average(np.stack([pooled.probabilities for _, pooled in mates]), axis=0, weights=picks)
        return _again(mates[0][1], mean)

    def share_better(self, one: Pooled, other: Pooled) -> float:
        """Return the share of the resamplings of the patients in which ``one`` has the higher macro F1."""
        patients = [case.patient for case in one.scores.cases]
        return share_of_draws_better(one.probabilities, other.probabilities, one.targets, one.scheme, patients)

    def refine(self, mates: Mates, picks: Sequence[int], pooled: Pooled) -> Refined[Pooled]:
        """Return an ensemble with its temperature, which changes no decision."""
        patients = [case.patient for case in pooled.scores.cases]
        found = calibrate(pooled.probabilities, pooled.targets, pooled.scheme, patients)
        after = _again(pooled, tempered(pooled.probabilities, found.temperature, pooled.scheme))
        return Refined(after, temperature=found.temperature, because=found.because)

    def save(self, pooled: Pooled, folder: Path) -> None:
        """Write scores.json, summary.json and probabilities.npz."""
        save_class_scores(pooled.scores, folder)
        found = CaseProbabilities(pooled.cases, pooled.scheme.names, pooled.probabilities)
        save_probabilities(folder / PROBABILITIES, found)


def _scored(
    cases: tuple[str, ...],
    probabilities: np.ndarray,
    targets: np.ndarray,
    scheme: ClassScheme,
    patients: dict[str, str],
) -> Pooled:
    scores = score_classes(cases, probabilities, targets, scheme, patients=patients)
    return Pooled(cases, probabilities, targets, scheme, scores)


def _again(pooled: Pooled, probabilities: np.ndarray) -> Pooled:
    """Return other probabilities of the same cases, scored."""
    patients = {case.case: case.patient for case in pooled.scores.cases}
    return _scored(pooled.cases, probabilities, pooled.targets, pooled.scheme, patients)
