"""What has been trained on a dataset, as it lies on disk, and which of it predicts.

A dataset's results hold one folder per recipe, ``<recipe>__<plans>``, with one folder per fold in it.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fmseg.errors import BadData, NotReady, UsageError
from fmseg.records.run import RunConfig, RunFolder
from fmseg.records.selection import CleanUp, Selection
from fmseg.workspace import Workspace, dataset_id

logger = logging.getLogger(__name__)

SELECTION = "selection.json"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The runs that predict together, each with its share, and the clean-up that follows."""

    runs: tuple[tuple[Path, float], ...]
    clean_up: tuple[CleanUp, ...]
    #: see ``Selection``
    temperature: float
    #: of the plans that ``find_best`` saw; None without a selection
    plans_digest: str | None
    because: str


def finished_folds(runs: Path) -> dict[int, Path]:
    """Return the finished folds of one recipe: number -> folder; that of all cases is not among them."""
    folders = {int(match[1]): path for path in runs.glob("fold_*") if (match := re.fullmatch(r"fold_(\d+)", path.name))}
    return {number: path for number, path in sorted(folders.items()) if RunFolder(path).is_finished}


def trained_recipes(results: Path) -> list[Path]:
    """Return the folders of recipes that have at least one finished run, sorted."""
    found = {path.parent.parent for path in results.glob("*__*/fold_*/finished.json")}
    return sorted(found)


def chosen_runs(results: Path) -> Chosen:
    """Return what ``find_best`` selected, or, where there is no choice, what is finished of the one recipe.

    results: of one dataset. Raises NotReady naming the command that is missing.
    """
    path = results / SELECTION
    if path.exists():
        selection = Selection.load(path)
        runs = tuple(
            (results / member.runs / f"fold_{fold}", member.weight / len(member.folds))
            for member in selection.members
            for fold in member.folds
        )
        return Chosen(runs, selection.clean_up, selection.temperature, selection.plans_digest, selection.because)
    number = dataset_id(results.name)
    recipes = trained_recipes(results)
    if not recipes:
        raise NotReady(f"{results.name} has no finished run. Train one with: fmseg train {number}")
    if len(recipes) > 1:
        names = ", ".join(recipe.name for recipe in recipes)
        raise NotReady(
            f"{results.name} has several recipes ({names}). Choose among them with: fmseg find_best {number}"
        )
    folds = list(finished_folds(recipes[0]).values())
    if (recipes[0] / "fold_all" / "finished.json").exists():
        folds = [recipes[0] / "fold_all"]  # has seen every case that the others have
    because = f"there is no {SELECTION}, so the finished runs of {recipes[0].name}: {', '.join(f.name for f in folds)}"
    return Chosen(tuple((folder, 1.0) for folder in folds), (), 1.0, None, because)


def trained_results(workspace: Workspace, dataset: str | None) -> Path:
    """Return the results of a dataset (number, name or part of it), or of the only one that has any.

    Raises NotReady if nothing is trained, UsageError if several are.
    """
    if dataset is not None:
        # an imported model has results but no data, so names are looked up among the results too
        known = {*workspace.dataset_names(), *workspace.trained_names()}
        return workspace.results_of(workspace.dataset_name(dataset, sorted(known)))
    trained = workspace.trained_names()
    if not trained:
        first = next(iter(workspace.dataset_names()), "501")
        raise NotReady(f"{workspace.results} holds no trained model yet. Train one with: fmseg train {first}")
    if len(trained) > 1:
        raise UsageError(
            f"Several datasets are trained ({', '.join(trained)}). Say whose models are meant, as in -d 501."
        )
    return workspace.results_of(trained[0])


def check_chosen(chosen: Chosen, configs: Sequence[RunConfig]) -> None:
    """Check that the runs are those that ``find_best`` saw, under one plan. Raises NotReady, BadData."""
    if chosen.plans_digest is not None and {config.plans.digest() for config in configs} != {chosen.plans_digest}:
        folder = chosen.runs[0][0].parents[1]
        raise NotReady(
            f"{folder}: models were trained again under another plan since find_best chose. "
            f"Choose anew with: fmseg find_best {folder.name}"
        )
    need_one_plan(configs)


def training_command(runs: Path, fold: int) -> str:
    """Return what to type to train one fold of a recipe: ``<recipe>__<plans>`` or ``<recipe>-<start>__<plans>``."""
    recipe, start = runs.name.split("__")[0], ""
    for path in sorted(runs.glob("fold_*/run.json")):
        init = RunConfig.load(path).init.name
        if recipe.endswith(f"-{init}"):
            recipe, start = recipe.removesuffix(f"-{init}"), f" --init {init}"
        break
    return f"fmseg train {dataset_id(runs.parent.name)} fold{fold} -r {recipe}{start}"


def need_one_plan(configs: Sequence[RunConfig]) -> None:
    """Check that all runs see the same prepared images and give the same outputs. Raises BadData if not."""
    first = configs[0]
    for config in configs[1:]:
        for name, one, other in (
            ("preprocessing", first.plans.preprocessing, config.plans.preprocessing),
            ("labels", first.plans.labels, config.plans.labels),
        ):
            if one != other:
                raise BadData(
                    f"The models {first.recipe.name} and {config.recipe.name} of {first.plans.dataset} were "
                    f"trained under different plans ({name}), so they cannot be averaged. Train one of them again."
                )
