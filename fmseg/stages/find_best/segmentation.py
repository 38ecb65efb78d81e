"""What segmentation brings to choosing: out-of-fold label maps, Dice, clean-up.

The search runs at prepared resolution; every figure that is reported is of label maps on the images' own grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from fmseg.errors import BadData
from fmseg.imaging.decode import labels_from_probabilities
from fmseg.imaging.prepare import scale_label
from fmseg.imaging.readers import read_label
from fmseg.inference.ensemble import choose_members, weighted_mean
from fmseg.inference.members import scheme_of
from fmseg.inference.out_of_fold import Shape, restored_labels, save_scores, score_cases
from fmseg.inference.postprocess import apply_clean_up, choose_clean_up
from fmseg.inference.probabilities import ENDING, load_probabilities, stored_shape
from fmseg.inference.scoring import score, share_of_draws_better
from fmseg.records.dataset import CaseFiles, Dataset
from fmseg.records.labels import LabelScheme
from fmseg.records.scores import CaseScore, Interval, Scores
from fmseg.records.selection import CleanUp
from fmseg.stages.find_best.contest import Contest, Recipe, Refined


@dataclass(frozen=True, slots=True)
class Pooled:
    """Out-of-fold label maps, scored."""

    #: case -> probabilities on disk; none of an ensemble, which is averaged anew
    files: Mapping[str, Path]
    scores: Scores
    #: what the label maps are of
    scheme: LabelScheme


Mates = Sequence[tuple[Recipe, Pooled]]


class LabelMapContest(Contest[Pooled]):
    """Recipes that draw label maps."""

    measure: ClassVar[str] = "Dice"

    def read(self, recipe: Recipe) -> Pooled:
        """Return the scores of all folds, and where their probabilities lie."""
        files: dict[str, Path] = {}
        found: dict[str, CaseScore] = {}
        unit = ""
        for folder in recipe.folders:
            scores = Scores.load(folder / "validation" / "scores.json")
            unit = scores.distance_unit
            for case in scores.cases:
                # a case that several folds validate counts once
                found.setdefault(case.case, case)
                files.setdefault(case.case, folder / "validation" / f"{case.case}{ENDING}")
        scores = score([found[name] for name in sorted(found)], distance_unit=unit)
        return Pooled(files, scores, scheme_of(recipe.config))

    def figure(self, pooled: Pooled) -> Interval:
        """Return the mean foreground Dice."""
        return pooled.scores.foreground_dice

    def greedy(self, mates: Mates, max_models: int) -> list[int]:
        """Return how often each recipe is taken for the highest Dice at prepared resolution."""
        return choose_members(
            lambda index, case: load_probabilities(mates[index][1].files[case]),
            self._references(mates),
            scheme_of(mates[0][0].config),
            num_candidates=len(mates),
            max_members=max_models,
        )

    def together(self, mates: Mates, picks: Sequence[int]) -> Pooled:
        """Return the scores of an ensemble."""
        return Pooled({}, self._score(mates, picks, []), scheme_of(mates[0][0].config))

    def share_better(self, one: Pooled, other: Pooled) -> float:
        """Return the share of the resamplings of the patients in which ``one`` has the higher Dice."""
        return share_of_draws_better(one.scores.cases, other.scores.cases)

    def refine(self, mates: Mates, picks: Sequence[int], pooled: Pooled) -> Refined[Pooled]:
        """Return an ensemble with the clean-up rules that help."""
        scheme, references = scheme_of(mates[0][0].config), self._references(mates)
        maps = {case: labels_from_probabilities(_mean(case, mates, picks), scheme) for case in references}
        rules = choose_clean_up(maps, references, scheme)
        if not rules:
            return Refined(pooled, because="no clean-up helps")
        after = self._score(mates, picks, rules)
        if after.foreground_dice.mean <= pooled.scores.foreground_dice.mean:
            return Refined(pooled, because="no clean-up helps at full resolution")
        names = ", ".join(f"{rule.rule} of {rule.output}" for rule in rules)
        because = f"clean-up ({names}) raises it to {after.foreground_dice.mean:.4f}"
        return Refined(Pooled({}, after, scheme), clean_up=tuple(rules), because=because)

    def save(self, pooled: Pooled, folder: Path) -> None:
        """Write scores.json and summary.json."""
        maps = {name: case.label for name, case in self._labelled.items() if case.label is not None}
        files = {name: (path, pooled.files.get(name, path)) for name, path in maps.items()}
        save_scores(pooled.scores, folder, pooled.scheme, files)

    def _score(self, mates: Mates, picks: Sequence[int], rules: Sequence[CleanUp]) -> Scores:
        """Score an ensemble with its clean-up on the images' own grids."""
        recipe, pooled = mates[0]
        patients = {case.case: case.patient for case in pooled.scores.cases}

        def predict(case: CaseFiles, shape: Shape) -> np.ndarray:
            labels = restored_labels(_mean(case.name, mates, picks), shape, recipe.config)
            return apply_clean_up(labels, rules, scheme_of(recipe.config))

        return score_cases(self._cases(mates), predict, scheme_of(recipe.config), patients=patients)

    def _cases(self, mates: Mates) -> list[CaseFiles]:
        files = mates[0][1].files
        missing = [case for case in files if case not in self._labelled]
        if missing:
            raw = self.workspace.raw_dataset(self.name)
            raise BadData(f"{raw}: the label map of '{missing[0]}' is gone ({len(missing)} in all). Put it back.")
        return [self._labelled[case] for case in sorted(files)]

    @cached_property
    def _labelled(self) -> dict[str, CaseFiles]:
        raw = self.workspace.need(self.workspace.raw_dataset(self.name), f"the raw dataset {self.name}: put it back")
        return {case.name: case for case in Dataset.load(raw).training_cases() if case.label is not None}

    def _references(self, mates: Mates) -> dict[str, np.ndarray]:
        """Return the label maps at the size that was predicted."""
        files = mates[0][1].files
        return {case.name: _scaled_label(case, files[case.name]) for case in self._cases(mates)}


def _scaled_label(case: CaseFiles, predicted: Path) -> np.ndarray:
    assert case.label is not None
    _, _, height, width = stored_shape(predicted)
    return scale_label(read_label(case.label)[0], (height, width))


def _mean(case: str, mates: Mates, picks: Sequence[int]) -> np.ndarray:
    used = [(pooled.files[case], count) for (_, pooled), count in zip(mates, picks, strict=True) if count]
    return weighted_mean([load_probabilities(path) for path, _ in used], [count for _, count in used])
