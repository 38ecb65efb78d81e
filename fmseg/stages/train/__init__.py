"""Train one fold: plan, store and a starting point in; weights, out-of-fold predictions and scores out.

Here is what all tasks share: the folder, the start, the order of things. ``fold.py`` holds the loop around a network,
``segmentation.py`` and ``classification.py``, side by side, what each task brings.
"""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import cast

from torch import nn

from fmseg.errors import BadData, NotReady, UnknownName, UsageError
from fmseg.files import locked
from fmseg.inference.exposure import pretraining_exposure, seen_cases, tell
from fmseg.learning.runtime import Runtime
from fmseg.planning.assignment import Assignment
from fmseg.planning.classification import careful_with_classes
from fmseg.planning.finetuning import adapt_finetuning, pretraining_strength
from fmseg.planning.folds import load_folds
from fmseg.planning.length import for_start, of_settings
from fmseg.planning.planner import DEFAULT_NAME, plans_file
from fmseg.planning.targets import digest_of_targets
from fmseg.records.bundle import MANIFEST
from fmseg.records.plans import Fold, Plans
from fmseg.records.recipe import Recipe, resolve
from fmseg.records.record import differing
from fmseg.records.run import Provenance, RunConfig, RunFolder
from fmseg.sampling.store import Store
from fmseg.stages.train import classification, segmentation
from fmseg.stages.train.fold import FoldRun, FoldScores, Lesson, keep_weights, ranges_of_cases, watched_cases
from fmseg.stages.train.start import Start, find_start
from fmseg.workspace import Workspace, dataset_id

logger = logging.getLogger(__name__)

ALL = -1

#: task -> what it brings
LESSONS: dict[str, Lesson] = {
    "segmentation": cast(Lesson, segmentation),
    "classification": cast(Lesson, classification),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What the user may choose."""

    plans: str = DEFAULT_NAME
    recipe: str
    init: str = "auto"
    settings: dict[str, str] = field(default_factory=dict)
    num_workers: int | None = None
    checkpoint_minutes: float = 10.0
    fresh: bool = False
    #: the same bytes again, or as fast as can be; None: the first on a CPU
    deterministic: bool | None = None
    plugins: tuple[str, ...] = ()

    @property
    def run_name(self) -> str:
        """The recipe's name, with the starting point where the user chose it."""
        return self.recipe if self.init == "auto" else f"{self.recipe}-{self.init.replace('/', '-')}"


def train(workspace: Workspace, name: str, fold: int, options: TrainOptions) -> FoldScores | None:
    """Train one fold (ALL: on all cases), predict its validation cases, and score them.

    Goes on where it was stopped; a finished run is only read. Returns None for ALL, which has no validation.
    """
    work, run = _assigned(workspace, name, fold, options)
    return train_on(workspace, work, run, options)


def forget(workspace: Workspace, name: str, folds: Sequence[int], options: TrainOptions) -> None:
    """Remove what has been trained of some folds, all of them at once (``--fresh``); on several ranks, call it on all.

    So whoever is stopped goes on without ``--fresh``, and no old fold is taken for a new one. Nothing is removed if
    the options are not valid: raises what ``train`` does.
    """
    found = [_assigned(workspace, name, fold, options) for fold in folds]
    for work, run in found:
        network = resolve(options.recipe, _planned(work.plans), options.settings).network
        start = find_start(workspace, work.plans, run.path.parent, network, options.init)
        _config(work, start, options, _num_training(workspace, work))
    runtime = Runtime.detect("float32")
    if runtime.is_main:
        for _, run in found:
            with locked(run.path, "this fold"):
                run.clear()
    runtime.barrier()
    runtime.close()


def _assigned(workspace: Workspace, name: str, fold: int, options: TrainOptions) -> tuple[Assignment, RunFolder]:
    """Return what a fold learns from, and where it lies."""
    plans, cases = load_prepared(workspace, name, fold, options.plans)
    if (workspace.results_of(name) / MANIFEST).exists():
        raise UsageError(f"{workspace.results_of(name)} holds imported models. Give your dataset another number.")
    run = RunFolder(workspace.results_of(name) / f"{options.run_name}__{plans.name}" / _fold_name(fold))
    return Assignment(plans, cases, fold), run


def train_on(workspace: Workspace, work: Assignment, run: RunFolder, options: TrainOptions) -> FoldScores | None:
    """Train a network on any cases of a prepared dataset, as ``train`` does; None if there is none to score it on."""
    plans = work.plans
    store = Store.of(workspace.prepared(plans.dataset), plans)
    network = resolve(options.recipe, _planned(plans), options.settings).network
    start = find_start(workspace, plans, run.path.parent, network, options.init)
    lesson = LESSONS[plans.task]
    config = _config(work, start, options, _num_training(workspace, work))
    runtime = Runtime.detect(config.recipe.precision, deterministic=options.deterministic)
    config = config.evolve(
        labels=digest_of_targets(workspace, plans, work.cases),
        watched=watched_cases(workspace, config),
        ranges=ranges_of_cases(workspace, config),
        provenance=Provenance.here(
            deterministic=runtime.deterministic, device=runtime.device.type, num_devices=runtime.num_devices
        ),
    )
    with locked(run.path, "this fold") if runtime.is_main else nullcontext():
        if runtime.is_main:
            if options.fresh:
                run.clear()
            run.claim(config)
            _warn_of_others(run, config)
        # other ranks may see late, on a network disk, what is there
        (is_finished,) = runtime.highest([runtime.is_main and run.is_finished])
        if not is_finished:
            logger.info("%s, %s: %s", run.path.parent.name, run.path.name, start.init.because)
            if start.init.terms:
                logger.warning("It is made from other people's weights, so their licence holds: %s.", start.init.terms)
            under_way = FoldRun(
                workspace=workspace,
                config=config,
                store=store,
                run=run,
                runtime=runtime,
                weights=start.weights,
                num_workers=options.num_workers,
                checkpoint_minutes=options.checkpoint_minutes,
            )
            _finish(under_way, lesson.learn(under_way), lesson)
        runtime.barrier()
    runtime.close()
    return lesson.load_scores(run.validation / "scores.json") if work.cases.val else None


def _warn_of_others(run: RunFolder, config: RunConfig) -> None:
    """Say so if a fold beside this one was trained with other settings: ``find_best`` pools folds of one recipe."""
    for path in sorted(run.path.parent.glob("fold_[0-9]*/run.json")):
        if others := differing(RunConfig.load(path).recipe, config.recipe):
            logger.warning(
                "%s was trained with other settings (%s), so find_best will leave these folds out. Give all of them "
                "the same --set.",
                *(path.parent, ", ".join(others)),
            )
            return


def load_prepared(workspace: Workspace, name: str, fold: int, plans_name: str) -> tuple[Plans, Fold]:
    """Return plans and the fold's cases, which are in the store. Raises NotReady naming the command that makes them."""
    number = dataset_id(name)
    folder = workspace.prepared(name)
    plans = Plans.load(workspace.need(folder / plans_file(plans_name), f"fmseg plan_and_preprocess -d {number}"))
    if plans.task not in LESSONS:
        raise UsageError(f"{name} has no labels to train on (task: {plans.task}). Train a labelled dataset.")
    if plans.labels is None:
        raise NotReady(f"The plans of {name} are older than this fmseg. Make them anew: fmseg plan -d {number}")
    store = Store.of(folder, plans)
    folds = load_folds(workspace.need(folder / "splits_final.json", f"fmseg plan -d {number}"))
    if fold == ALL:
        return plans, Fold(train=tuple(store.cases), val=())
    if not 0 <= fold < len(folds):
        raise UnknownName(f"{name} has no fold {fold}: {folder / 'splits_final.json'} has 0 to {len(folds) - 1}.")
    missing = [case for case in (*folds[fold].train, *folds[fold].val) if case not in store.cases]
    if missing:
        raise BadData(
            f"{folder / 'splits_final.json'}: '{missing[0]}' is not in the store ({len(missing)} cases in all). "
            f"Prepare the dataset anew: fmseg plan_and_preprocess -d {number}"
        )
    return plans, folds[fold]


def planned_recipes(workspace: Workspace, name: str, plans_name: str, init: str = "auto") -> tuple[str, ...]:
    """Return the recipes that the plan means to be trained. Raises NotReady before it is planned.

    init: as typed; where it names weights, recipes that can start from none are left out.
    """
    path = workspace.prepared(name) / plans_file(plans_name)
    plans = Plans.load(workspace.need(path, f"fmseg plan_and_preprocess -d {dataset_id(name)}"))
    if init in ("auto", "scratch"):
        return plans.recipes
    return tuple(each for each in plans.recipes if resolve(each, _planned(plans), {}).network == "vit")


def num_folds(workspace: Workspace, name: str) -> int:
    """Return how many folds a dataset has. Raises NotReady before it is planned."""
    path = workspace.prepared(name) / "splits_final.json"
    return len(load_folds(workspace.need(path, f"fmseg plan_and_preprocess -d {dataset_id(name)}")))


def _config(
    work: Assignment,
    start: Start,
    options: TrainOptions,
    num_images: int,
) -> RunConfig:
    plans, card, init = work.plans, start.card, start.init
    classified = num_images if plans.task == "classification" else None
    if work.planned is None:
        network = resolve(options.recipe, _planned(plans), options.settings).network
        adapted, because = for_start(_planned(plans), options.settings, plans, card, classified, network)
    else:  # what is compared does the same steps, however long they take
        adapted, because = adapt_finetuning(of_settings(work.planned, options.settings, classified), card)
    if plans.task == "classification" and start.weights is not None:
        adapted, because = careful_with_classes(adapted, pretraining_strength(card) if card else 1.0)
    for reason in because:
        logger.debug("%s: %s", reason.key, reason.because)
    recipe = resolve(options.recipe, adapted, options.settings)
    _check_recipe(recipe, plans)
    mean, std = start.moments or (plans.preprocessing.mean, plans.preprocessing.std)
    return RunConfig(
        plans=plans,
        recipe=recipe,
        fold=work.number,
        cases=work.cases,
        init=init,
        architecture=card.architecture if card else plans.pretraining.architecture,
        mean=mean,
        std=std,
        plugins=options.plugins,
        provenance=Provenance.here(),
    )


def _num_training(workspace: Workspace, work: Assignment) -> int:
    """Return the training images by which the numbers of a run are found: of an average fold, so that all are alike."""
    folder = workspace.prepared(work.plans.dataset)
    cases = Store.of(folder, work.plans).cases
    folds = load_folds(folder / "splits_final.json") if work.planned is None else [work.cases]
    return round(sum(len(cases[case]) for fold in folds for case in fold.train if case in cases) / len(folds))


def _planned(plans: Plans) -> Recipe:
    assert plans.finetuning is not None, "a labelled dataset without a plan for its training"
    return plans.finetuning


def _check_recipe(recipe: Recipe, plans: Plans) -> None:
    """Raise UsageError for a recipe of another task."""
    lesson = LESSONS[plans.task]
    checked = [("network", recipe.network, lesson.networks)]
    if recipe.network == "vit":
        checked.append(("decoder", recipe.decoder, lesson.decoders))
    for what, name, known in checked:
        if name not in known:
            raise UsageError(
                f"The recipe {recipe.name} needs the {what} '{name}', which is none for {plans.task} "
                f"({', '.join(known)}). For {plans.dataset} there are the recipes {', '.join(plans.recipes)}."
            )


def _finish(fold: FoldRun, model: nn.Module, lesson: Lesson) -> None:
    """Keep the weights, predict the validation cases, score them, and mark the run as finished."""
    if fold.runtime.is_main:
        keep_weights(fold.run, model)
    scores = lesson.score(fold, model) if fold.config.cases.val else None
    if not fold.runtime.is_main:
        return
    values: dict[str, float | None] = {}
    if scores is not None:
        name, value = scores.headline
        seen = _count_seen(fold.workspace, fold.config)
        values = {name.lower().replace(" ", "_"): value.mean, "seen_in_pretraining": seen}
    fold.run.finish(values)


def _count_seen(workspace: Workspace, config: RunConfig) -> int | None:
    """Return how many validation images the foundation checkpoint has seen (without their labels), and say so.

    None if what it has seen is not known.
    """
    exposure = pretraining_exposure(workspace, [config.init])
    seen = seen_cases(workspace, config.plans.dataset, config.cases.val, exposure)
    tell(seen, exposure)
    return None if seen.unknown else seen.pretraining


def _fold_name(fold: int) -> str:
    return "fold_all" if fold == ALL else f"fold_{fold}"
