"""Choose what predicts: the recipe or ensemble with the best out-of-fold score, and what follows it.

Here is how a choice is made whatever the task. ``segmentation.py`` and ``classification.py``, side by side, say what
is scored, and what is done after averaging: clean-up of label maps, the temperature of probabilities.
"""

import logging
from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any

from fmseg.errors import BadData, NotReady
from fmseg.files import read_json
from fmseg.inference.cost import cost_of, gflop_of
from fmseg.inference.exposure import pretraining_exposure, seen_cases, tell
from fmseg.inference.trained import SELECTION, finished_folds, trained_recipes, training_command
from fmseg.planning.folds import load_folds
from fmseg.planning.targets import read_targets
from fmseg.records.plans import Fold
from fmseg.records.run import RunConfig
from fmseg.records.seen import Seen
from fmseg.records.selection import Candidate, Cost, Member, Selection
from fmseg.stages.find_best.classification import ClassContest
from fmseg.stages.find_best.contest import Contest, Recipe, read_recipe, title
from fmseg.stages.find_best.segmentation import LabelMapContest
from fmseg.workspace import Workspace, dataset_id

logger = logging.getLogger(__name__)

#: an ensemble costs its members' time, so it must win in this share of the resamplings of the patients
SURE = 0.95

#: task -> how its recipes compete
CONTESTS: dict[str, type[Contest[Any]]] = {"segmentation": LabelMapContest, "classification": ClassContest}


def find_best(workspace: Workspace, name: str, *, max_models: int = 3) -> Selection:
    """Score all finished recipes, their greedy ensemble and what follows it; write selection.json.

    An ensemble of at most ``max_models`` recipes is kept if it beats the best recipe in 95 % of 1000 resamplings
    of the patients. Raises NotReady naming the fold to train if no recipe is complete.
    """
    folds = load_folds(workspace.need(workspace.prepared(name) / "splits_final.json", f"fmseg plan {dataset_id(name)}"))
    contest = CONTESTS[_task(workspace, name)](workspace, name)
    trained = _complete_recipes(workspace, name, folds, contest)
    best, pooled = trained[0]
    flops = {each.name: gflop_of(each.config) for each, _ in trained}
    candidates = [
        Candidate(
            name=each.name,
            score=contest.figure(found),
            folds=_by_fold(each, contest),
            cost=_cost([(each, found)], flops),
        )
        for each, found in trained
    ]
    mates = [pair for pair in trained if pair[0].config.plans.digest() == best.config.plans.digest()]
    picks = [1] + [0] * (len(mates) - 1)
    because = f"{best.name} has the highest out-of-fold {contest.measure}{_spread(candidates[0].folds)}"
    if len(mates) > 1:
        ahead = contest.share_better(pooled, mates[1][1])
        if ahead < SURE:
            because += f" (its lead over {mates[1][0].name} is within the noise: {ahead:.0%} of the resamplings)"
        together = contest.greedy(mates, max_models)
        if sum(map(bool, together)) > 1:
            ensemble, found = title(_counts(mates, together)), contest.together(mates, together)
            taken = [pair for pair, count in zip(mates, together, strict=True) if count]
            candidates.append(Candidate(name=ensemble, score=contest.figure(found), cost=_cost(taken, flops)))
            share = contest.share_better(found, pooled)
            verb = "kept" if share >= SURE else "not kept"
            because += f"; {ensemble} beats it in {share:.0%} of 1000 resamplings of the patients: {verb}"
            if share >= SURE:
                picks, pooled = together, found
    cost = _cost([pair for pair, count in zip(mates, picks, strict=True) if count], flops)
    because += f"; it takes {cost.num_networks} networks and {cost.gflop:.3g} GFLOP an image"
    if sum(map(bool, picks)) > 1:
        because += f", {cost.gflop / _cost([trained[0]], flops).gflop:.2g} times those of {best.name}"
    refined = contest.refine(mates, picks, pooled)
    numbers = tuple(range(len(folds)))
    seen = _count_seen(workspace, name, [recipe for (recipe, _), count in zip(mates, picks, strict=True) if count])
    selection = Selection(
        dataset=name,
        plans_digest=best.config.plans.digest(),
        members=tuple(Member(runs=runs, folds=numbers, weight=n) for runs, n in _counts(mates, picks).items()),
        clean_up=refined.clean_up,
        temperature=refined.temperature,
        candidates=tuple(sorted(candidates, key=lambda each: -each.score.mean)),
        measure=contest.measure,
        score=contest.figure(refined.pooled),
        because=f"{because}{_peeked(trained)}; {refined.because}",
        cost=cost,
        seen=seen,
    )
    contest.save(refined.pooled, workspace.results_of(name) / "out_of_fold")
    selection.save(workspace.results_of(name) / SELECTION)
    return selection


def _task(workspace: Workspace, name: str) -> str:
    """Return what the finished runs of a dataset have learned. Raises NotReady if there are none."""
    for path in sorted(workspace.results_of(name).glob("*__*/fold_*/finished.json")):
        return RunConfig.load(path.parent / "run.json").plans.task
    raise NotReady(f"{name} has no finished run. Train it with: fmseg train {dataset_id(name)}")


def _complete_recipes(
    workspace: Workspace, name: str, folds: Sequence[Fold], contest: Contest[Any]
) -> list[tuple[Recipe, Any]]:
    """Return the recipes whose folds are all finished, with their predictions, best first; the others are named."""
    complete, lacking = [], []
    targets = _targets(workspace, name, folds)
    for runs in trained_recipes(workspace.results_of(name)):
        missing = [fold for fold in range(len(folds)) if fold not in finished_folds(runs)]
        try:
            if missing:
                command = training_command(runs, missing[0])
                raise NotReady(f"fold {', '.join(map(str, missing))} is not finished. Go on with: {command}")
            recipe = read_recipe(runs, folds, targets)
            complete.append((recipe, contest.read(recipe)))
        except (NotReady, BadData) as error:
            logger.warning("%s is left out: %s", runs.name, error)
            lacking.append(f"{runs.name}: {error}")
    if not complete:
        found = " ".join(lacking)
        raise NotReady(
            f"No recipe of {name} has all {len(folds)} folds finished under this plan and these labels. {found}"
        )
    return sorted(complete, key=lambda pair: (-contest.figure(pair[1]).mean, pair[0].name))


def _targets(workspace: Workspace, name: str, folds: Sequence[Fold]) -> dict[str, str]:
    """Return what all cases are scored toward; nothing where no run has noted what it was."""
    for path in sorted(workspace.results_of(name).glob("*__*/fold_*/run.json")):
        config = RunConfig.load(path)
        if config.labels:
            return read_targets(workspace, config.plans, {case for fold in folds for case in (*fold.train, *fold.val)})
    return {}


def _by_fold(recipe: Recipe, contest: Contest[Any]) -> tuple[float, ...]:
    """Return the score of each fold alone, as its run noted it; of those that noted one."""
    key = contest.measure.lower().replace(" ", "_")
    noted = (read_json(folder / "finished.json").get(key) for folder in recipe.folders)
    return tuple(float(value) for value in noted if value is not None)


def _spread(folds: Sequence[float]) -> str:
    """Return how far single folds are apart, in words; nothing for one fold."""
    if len(folds) < 2:
        return ""
    return f" (folds {min(folds):.3f} to {max(folds):.3f}, standard deviation {stdev(folds):.3f})"


def _peeked(trained: Sequence[tuple[Recipe, Any]]) -> str:
    """Return and log which recipes chose their weights by the cases they are scored on, as ``patience`` did once."""
    configs = {each.name: each.config for each, _ in trained if each.config.recipe.learned_by == "steps"}
    names = [name for name, config in configs.items() if config.recipe.patience and not config.watched]
    if not names:
        return ""
    told = f"the score of {', '.join(names)} is too high, since its weights were chosen by the cases that it is of"
    logger.warning("%s. Train it anew with: fmseg train --fresh", told)
    return f"; {told}"


def _count_seen(workspace: Workspace, name: str, picked: Sequence[Recipe]) -> Seen:
    """Return how many out-of-fold cases the members have met in pretraining, without labels, and say so."""
    configs = [RunConfig.load(folder / "run.json") for recipe in picked for folder in recipe.folders]
    exposure = pretraining_exposure(workspace, [config.init for config in configs])
    cases = sorted({case for config in configs for case in config.cases.val})
    seen = seen_cases(workspace, name, cases, exposure)
    tell(seen, exposure)
    return seen


def _cost(taken: Sequence[tuple[Recipe, Any]], flops: Mapping[str, float]) -> Cost:
    """Return what recipes take that are averaged; how often one is taken is a matter of weights alone."""
    return cost_of([(len(recipe.folders), flops[recipe.name]) for recipe, _ in taken], taken[0][0].config)


def _counts(mates: Sequence[tuple[Recipe, Any]], picks: Sequence[int]) -> dict[str, int]:
    return {recipe.name: count for (recipe, _), count in zip(mates, picks, strict=True) if count}
