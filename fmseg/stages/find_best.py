"""Choose what predicts: the recipe, the ensemble and the clean-up with the best out-of-fold Dice.

The search runs at prepared resolution; every figure that is reported is of label maps on the images' own grid.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmseg.errors import BadData, NotReady
from fmseg.imaging.decode import labels_from_probabilities
from fmseg.imaging.prepare import prepare_label
from fmseg.imaging.readers import read_label
from fmseg.inference.ensemble import choose_members, weighted_mean
from fmseg.inference.members import scheme_of
from fmseg.inference.out_of_fold import Shape, restored_labels, save_scores, score_cases
from fmseg.inference.postprocess import apply_clean_up, choose_clean_up
from fmseg.inference.probabilities import ENDING, load_probabilities
from fmseg.inference.scoring import score, share_of_draws_better
from fmseg.inference.trained import SELECTION, finished_folds, trained_recipes, training_command
from fmseg.planning.folds import load_folds
from fmseg.records.dataset import CaseFiles, Dataset
from fmseg.records.plans import Fold
from fmseg.records.run import RunConfig
from fmseg.records.scores import CaseScore, Scores
from fmseg.records.selection import Candidate, CleanUp, Member, Selection
from fmseg.workspace import Workspace, dataset_id

logger = logging.getLogger(__name__)

#: an ensemble costs its members' time, so it must win in this share of the resamplings of the patients
SURE = 0.95


@dataclass(frozen=True, slots=True)
class _Trained:
    """A recipe whose folds are all finished, and its out-of-fold predictions."""

    name: str
    config: RunConfig
    #: case -> probabilities on disk
    files: Mapping[str, Path]
    scores: Scores


def find_best(workspace: Workspace, name: str, *, max_models: int = 3) -> Selection:
    """Score all finished recipes, their greedy ensemble and its clean-up; write selection.json.

    An ensemble of at most ``max_models`` recipes is kept if it beats the best recipe in 95 % of 1000 resamplings
    of the patients, a clean-up rule if the mean Dice rises and no class falls.
    Raises NotReady naming the fold to train if no recipe is complete.
    """
    folds = load_folds(workspace.need(workspace.prepared(name) / "splits_final.json", f"fmseg plan {dataset_id(name)}"))
    trained = _complete_recipes(workspace, name, folds)
    best = trained[0]
    candidates = [Candidate(name=each.name, dice=each.scores.foreground_dice) for each in trained]
    cases = _labelled_cases(workspace, name, best)
    references = _prepared_labels(cases, best.config)
    mates = [each for each in trained if each.config.plans.digest() == best.config.plans.digest()]
    picks, scores, because = {best.name: 1}, best.scores, f"{best.name} has the highest out-of-fold Dice"
    if len(mates) > 1:
        together = _greedy(mates, references, max_models)
        if len(together) > 1:
            found = _score(cases, mates, together, [])
            candidates.append(Candidate(name=_title(together), dice=found.foreground_dice))
            share = share_of_draws_better(found.cases, best.scores.cases)
            verb = "kept" if share >= SURE else "not kept"
            because += f"; {_title(together)} beats it in {share:.0%} of 1000 resamplings of the patients: {verb}"
            if share >= SURE:
                picks, scores = together, found
    clean_up, scores, reason = _clean_up(cases, mates, picks, references, scores)
    selection = Selection(
        dataset=name,
        plans_digest=best.config.plans.digest(),
        members=tuple(Member(runs=runs, folds=tuple(range(len(folds))), weight=n) for runs, n in picks.items()),
        clean_up=tuple(clean_up),
        candidates=tuple(sorted(candidates, key=lambda each: -each.dice.mean)),
        dice=scores.foreground_dice,
        because=f"{because}; {reason}",
    )
    save_scores(scores, workspace.results_of(name) / "out_of_fold")
    selection.save(workspace.results_of(name) / SELECTION)
    return selection


def _complete_recipes(workspace: Workspace, name: str, folds: Sequence[Fold]) -> list[_Trained]:
    """Return the recipes whose folds are all finished, best first; the others are named."""
    results = workspace.results_of(name)
    complete, lacking = [], []
    for runs in trained_recipes(results):
        missing = [fold for fold in range(len(folds)) if fold not in finished_folds(runs)]
        try:
            if missing:
                command = training_command(runs, missing[0])
                raise NotReady(f"fold {', '.join(map(str, missing))} is not finished. Go on with: {command}")
            complete.append(_read_recipe(runs, folds))
        except (NotReady, BadData) as error:
            logger.warning("%s is left out: %s", runs.name, error)
            lacking.append(f"{runs.name}: {error}")
    if not complete:
        found = " ".join(lacking) or f"Train them with: fmseg train {dataset_id(name)}"
        raise NotReady(f"No recipe of {name} has all of its {len(folds)} folds finished. {found}")
    return sorted(complete, key=lambda each: (-each.scores.foreground_dice.mean, each.name))


def _read_recipe(runs: Path, folds: Sequence[Fold]) -> _Trained:
    configs: list[RunConfig] = []
    files: dict[str, Path] = {}
    found: dict[str, CaseScore] = {}
    unit = ""
    for number, fold in enumerate(folds):
        folder = runs / f"fold_{number}"
        config = RunConfig.load(folder / "run.json")
        if set(config.cases.val) != set(fold.val) or (configs and config.plans != configs[0].plans):
            raise BadData(
                f"{folder}: trained on other folds or under another plan than now. Train it again with: "
                f"{training_command(runs, number)} --fresh"
            )
        scores = Scores.load(folder / "validation" / "scores.json")
        unit = scores.distance_unit
        configs.append(config)
        for case in scores.cases:
            # a case that several folds validate counts once
            found.setdefault(case.case, case)
            files.setdefault(case.case, folder / "validation" / f"{case.case}{ENDING}")
    return _Trained(runs.name, configs[0], files, score(_in_order(found), distance_unit=unit))


def _in_order(cases: Mapping[str, CaseScore]) -> list[CaseScore]:
    return [cases[name] for name in sorted(cases)]


def _labelled_cases(workspace: Workspace, name: str, trained: _Trained) -> list[CaseFiles]:
    raw = workspace.need(workspace.raw_dataset(name), f"the raw dataset {name}: put it back")
    labelled = {case.name: case for case in Dataset.load(raw).training_cases() if case.label is not None}
    missing = [case for case in trained.files if case not in labelled]
    if missing:
        raise BadData(f"{raw}: the label map of '{missing[0]}' is gone ({len(missing)} in all). Put it back.")
    return [labelled[case] for case in sorted(trained.files)]


def _prepared_labels(cases: Sequence[CaseFiles], config: RunConfig) -> dict[str, np.ndarray]:
    labels = {}
    for case in cases:
        assert case.label is not None
        values, geometry = read_label(case.label)
        labels[case.name] = prepare_label(values, geometry, config.plans.preprocessing)
    return labels


def _greedy(mates: Sequence[_Trained], references: Mapping[str, np.ndarray], max_models: int) -> dict[str, int]:
    """Return recipe -> weight of the best ensemble, the best recipe alone if none is better."""
    picks = choose_members(
        lambda index, case: load_probabilities(mates[index].files[case]),
        references,
        scheme_of(mates[0].config),
        num_candidates=len(mates),
        max_members=max_models,
    )
    return {mate.name: count for mate, count in zip(mates, picks, strict=True) if count}


def _clean_up(
    cases: Sequence[CaseFiles],
    mates: Sequence[_Trained],
    picks: Mapping[str, int],
    references: Mapping[str, np.ndarray],
    before: Scores,
) -> tuple[list[CleanUp], Scores, str]:
    """Return the rules that help, the scores with them, and a sentence."""
    scheme = scheme_of(mates[0].config)
    maps = {case.name: labels_from_probabilities(_mean(case.name, mates, picks), scheme) for case in cases}
    rules = choose_clean_up(maps, references, scheme)
    if not rules:
        return [], before, "no clean-up helps"
    after = _score(cases, mates, picks, rules)
    if after.foreground_dice.mean <= before.foreground_dice.mean:
        return [], before, "no clean-up helps at full resolution"
    names = ", ".join(f"{rule.rule} of {rule.output}" for rule in rules)
    return rules, after, f"clean-up ({names}) raises it to {after.foreground_dice.mean:.4f}"


def _score(
    cases: Sequence[CaseFiles],
    mates: Sequence[_Trained],
    picks: Mapping[str, int],
    rules: Sequence[CleanUp],
) -> Scores:
    """Score an ensemble with its clean-up on the images' own grids."""
    config = mates[0].config
    patients = {case.case: case.patient for case in mates[0].scores.cases}

    def predict(case: CaseFiles, shape: Shape) -> np.ndarray:
        labels = restored_labels(_mean(case.name, mates, picks), shape, config)
        return apply_clean_up(labels, rules, scheme_of(config))

    return score_cases(cases, predict, scheme_of(config), patients=patients)


def _mean(case: str, mates: Sequence[_Trained], picks: Mapping[str, int]) -> np.ndarray:
    used = [mate for mate in mates if mate.name in picks]
    return weighted_mean([load_probabilities(mate.files[case]) for mate in used], [picks[mate.name] for mate in used])


def _title(picks: Mapping[str, int]) -> str:
    return " + ".join(f"{count} x {name}" if count > 1 else name for name, count in picks.items())
