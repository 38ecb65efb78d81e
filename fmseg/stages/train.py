"""Train one fold: plan, store and a starting point in; weights, out-of-fold predictions and scores out."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fmseg.errors import BadData, UnknownName, UsageError
from fmseg.files import locked, writing
from fmseg.imaging.measure import read_facts
from fmseg.inference.members import WEIGHTS
from fmseg.inference.out_of_fold import predict_fold, validate
from fmseg.learning.loop import FitOptions, Hook, fit
from fmseg.learning.optim import adamw, parameter_groups, set_step, warmup_poly
from fmseg.learning.runtime import Runtime
from fmseg.networks.segmenter import build_segmenter
from fmseg.networks.weights import load_backbone
from fmseg.planning.finetuning import adapt_finetuning
from fmseg.planning.folds import load_folds
from fmseg.planning.planner import DEFAULT_NAME, plans_file
from fmseg.planning.starting_point import choose_start
from fmseg.records.dataset import Dataset
from fmseg.records.fingerprint import CaseFacts
from fmseg.records.foundation import Foundation, find_foundations, read_seen, was_seen
from fmseg.records.plans import Fold, Plans, spread
from fmseg.records.recipe import Recipe, resolve
from fmseg.records.run import Initialisation, Provenance, RunConfig, RunFolder
from fmseg.records.scores import Scores
from fmseg.reporting.curves import draw_progress
from fmseg.sampling.loaders import batches
from fmseg.sampling.patches import PatchDataset
from fmseg.sampling.store import Store
from fmseg.tasks.segmentation import SegmentationTask
from fmseg.workspace import Workspace, dataset_id

logger = logging.getLogger(__name__)

ALL = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What the user may choose."""

    plans: str = DEFAULT_NAME
    recipe: str = "upernet"
    init: str = "auto"
    settings: dict[str, str] = field(default_factory=dict)
    num_workers: int | None = None
    checkpoint_minutes: float = 10.0
    fresh: bool = False
    plugins: tuple[str, ...] = ()

    @property
    def run_name(self) -> str:
        """The recipe's name, with the starting point where the user chose it."""
        return self.recipe if self.init == "auto" else f"{self.recipe}-{self.init}"


def train(workspace: Workspace, name: str, fold: int, options: TrainOptions) -> Scores | None:
    """Train one fold (ALL: on all cases), predict its validation cases whole, and score them.

    Goes on where it was stopped; a finished run is only read. Returns None for ALL, which has no validation.
    """
    plans, cases, store = load_prepared(workspace, name, fold, options.plans)
    run = RunFolder(workspace.results_of(name) / f"{options.run_name}__{plans.name}" / _fold_name(fold))
    start = options.init if options.init != "auto" else start_of_siblings(run.path.parent)
    foundation, init = choose_start(find_foundations(workspace.foundations()), plans, start)
    config = _config(plans, cases, fold, foundation, init, options)
    runtime = Runtime.detect(config.recipe.precision)
    with locked(run.path, "this fold") if runtime.is_main else nullcontext():
        if runtime.is_main:
            if options.fresh:
                run.clear()
            run.claim(config)
        runtime.barrier()
        if not run.is_finished:
            logger.info("%s, %s: %s", run.path.parent.name, run.path.name, init.because)
            task = build_task(config, foundation).to(runtime.device)
            _fit(task, config, store, run, runtime, options)
            if runtime.is_main:
                _finish(workspace, task, config, store, run)
        runtime.barrier()
    runtime.close()
    return Scores.load(run.validation / "scores.json") if fold != ALL else None


def load_prepared(workspace: Workspace, name: str, fold: int, plans_name: str) -> tuple[Plans, Fold, Store]:
    """Return plans, the fold's cases and the store. Raises NotReady naming the command that makes them."""
    number = dataset_id(name)
    folder = workspace.prepared(name)
    plans = Plans.load(workspace.need(folder / plans_file(plans_name), f"fmseg plan_and_preprocess -d {number}"))
    if plans.task != "segmentation":
        raise UsageError(f"{name} has no label maps (task: {plans.task}), and only segmentation can be trained yet.")
    store = Store.of(folder, plans)
    folds = load_folds(workspace.need(folder / "splits_final.json", f"fmseg plan -d {number}"))
    if fold == ALL:
        return plans, Fold(train=tuple(store.cases), val=()), store
    if not 0 <= fold < len(folds):
        raise UnknownName(f"{name} has no fold {fold}: {folder / 'splits_final.json'} has 0 to {len(folds) - 1}.")
    missing = [case for case in (*folds[fold].train, *folds[fold].val) if case not in store.cases]
    if missing:
        raise BadData(
            f"{folder / 'splits_final.json'}: '{missing[0]}' is not in the store ({len(missing)} cases in all). "
            f"Prepare the dataset anew: fmseg plan_and_preprocess -d {number}"
        )
    return plans, folds[fold], store


def start_of_siblings(runs: Path) -> str:
    """Return what the folds of this recipe that are there started from, or ``auto`` if there is none.

    All folds of a recipe start alike, also when another checkpoint was pretrained between two of them.
    """
    for path in sorted(runs.glob("fold_*/run.json")):
        return RunConfig.load(path).init.name
    return "auto"


def planned_recipes(workspace: Workspace, name: str, plans_name: str) -> tuple[str, ...]:
    """Return the recipes that the plan means to be trained. Raises NotReady before it is planned."""
    path = workspace.prepared(name) / plans_file(plans_name)
    return Plans.load(workspace.need(path, f"fmseg plan_and_preprocess -d {dataset_id(name)}")).recipes


def num_folds(workspace: Workspace, name: str) -> int:
    """Return how many folds a dataset has. Raises NotReady before it is planned."""
    path = workspace.prepared(name) / "splits_final.json"
    return len(load_folds(workspace.need(path, f"fmseg plan_and_preprocess -d {dataset_id(name)}")))


def _config(
    plans: Plans,
    cases: Fold,
    fold: int,
    foundation: tuple[Path, Foundation] | None,
    init: Initialisation,
    options: TrainOptions,
) -> RunConfig:
    if plans.finetuning is None:
        raise UsageError(f"{plans.dataset} has no labels to train on.")
    card = foundation[1] if foundation else None
    adapted, because = adapt_finetuning(plans.finetuning, card)
    for reason in because:
        logger.debug("%s: %s", reason.key, reason.because)
    return RunConfig(
        plans=plans,
        recipe=resolve(options.recipe, adapted, options.settings),
        fold=fold,
        cases=cases,
        init=init,
        architecture=card.architecture if card else plans.pretraining.architecture,
        mean=card.mean if card else plans.preprocessing.mean,
        std=card.std if card else plans.preprocessing.std,
        plugins=options.plugins,
        provenance=Provenance.here(),
    )


def build_task(config: RunConfig, foundation: tuple[Path, Foundation] | None) -> SegmentationTask:
    """Return the network of a run, its backbone from the foundation checkpoint, with loss and averaging."""
    assert config.plans.labels is not None
    torch.manual_seed(config.recipe.seed)
    model = build_segmenter(config.recipe, config.architecture, config.plans.labels.num_outputs)
    if foundation is not None:
        vit, _ = load_backbone(foundation[0])
        model.backbone.vit.load_state_dict(vit.state_dict())
    recipe = config.recipe
    return SegmentationTask(model, config.plans.labels, loss_name=recipe.loss, ema_decay=recipe.ema_decay)


def _fit(
    task: SegmentationTask, config: RunConfig, store: Store, run: RunFolder, runtime: Runtime, options: TrainOptions
) -> None:
    recipe = config.recipe
    depth, decay = config.architecture.depth, recipe.layer_decay
    optimizer = adamw(parameter_groups(task.model.named_parameters(), depth=depth, layer_decay=decay))
    hook = Hook(recipe.validation_interval, lambda step: _validate(task, config, store, run, runtime))
    fit_options = FitOptions(
        iterations=recipe.iterations,
        batch_size=recipe.batch_size,
        clip_norm=recipe.clip_norm,
        seed=recipe.seed,
        log_every=max(min(recipe.validation_interval, 50), 1),
        checkpoint_minutes=options.checkpoint_minutes,
    )
    draws = _batches(config, store, runtime, options.num_workers)
    fit(task, draws, optimizer, lambda step: _set_step(optimizer, recipe, step), run, runtime, fit_options, [hook])


def _batches(
    config: RunConfig, store: Store, runtime: Runtime, workers: int | None
) -> Callable[[int], Iterator[dict[str, Tensor]]]:
    recipe = config.recipe
    indices = [index for case in config.cases.train for index in store.cases[case]]
    assert config.plans.labels is not None
    dataset = PatchDataset(
        store,
        indices,
        recipe,
        mean=config.mean,
        std=config.std,
        seed=recipe.seed,
        ignore=config.plans.labels.ignore,
    )
    return lambda start: batches(
        dataset,
        num_samples=len(indices),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        start=start,
        stop=recipe.iterations,
        num_workers=runtime.loader_processes() if workers is None else workers,
        rank=runtime.rank,
        world=runtime.world,
    )


def _set_step(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int) -> dict[str, float]:
    """Write learning rate and weight decay of one step; return what is logged."""
    lr = warmup_poly(step, total=recipe.iterations, warmup=recipe.warmup_iterations, peak=recipe.learning_rate)
    set_step(optimizer, lr, recipe.weight_decay)
    return {"learning_rate": lr}


def _validate(
    task: SegmentationTask, config: RunConfig, store: Store, run: RunFolder, runtime: Runtime
) -> dict[str, float]:
    """Score the averaged weights on some whole validation images; keep the best weights, draw the curves."""
    if not runtime.is_main:
        return {}
    values: dict[str, float] = {}
    if config.cases.val:
        cases = spread(config.cases.val, config.recipe.validation_cases)
        dice = validate(task.averaged, config, store, cases)
        before = [line["val_dice"] for line in run.history() if "val_dice" in line]
        if dice >= max(before, default=0.0):
            _save_weights(task, run.path / "model_best.safetensors")
        values["val_dice"] = dice
    draw_progress(run.metrics, run.path / "progress.png")
    return values


def _finish(workspace: Workspace, task: SegmentationTask, config: RunConfig, store: Store, run: RunFolder) -> None:
    """Keep the averaged weights, predict the validation cases whole, score them, and mark the run as finished."""
    _save_weights(task, run.path / WEIGHTS)
    values: dict[str, float] = {}
    if config.cases.val:
        dataset = Dataset.load(workspace.raw_dataset(config.plans.dataset))
        cases, facts = dataset.training_cases(), _facts(workspace, config.plans.dataset)
        patients = {name: each.patient for name, each in facts.items()}
        scores = predict_fold(task.averaged, config, store, cases, run.validation, patients=patients)
        values = {"dice": scores.foreground_dice.mean, "seen_in_pretraining": _count_seen(workspace, config, facts)}
    run.finish(values)


def _count_seen(workspace: Workspace, config: RunConfig, facts: Mapping[str, CaseFacts]) -> int:
    """Return how many validation images the foundation checkpoint has seen (without their labels), and say so."""
    cards = [(folder, card) for folder, card in find_foundations(workspace.foundations())]
    folders = [folder for folder, card in cards if card.weights_sha256 == config.init.sha256]
    if not folders:
        return 0
    seen = read_seen(folders[0])
    count = sum(was_seen(seen, facts[case].content_hash) for case in config.cases.val)
    if count:
        logger.info(
            "%d of the %d validation images were in the pretraining of %s, without their labels.",
            *(count, len(config.cases.val), config.init.name),
        )
    return count


def _facts(workspace: Workspace, name: str) -> dict[str, CaseFacts]:
    return {facts.case: facts for facts in read_facts(workspace.prepared(name) / "cases.jsonl")}


def _save_weights(task: SegmentationTask, path: Path) -> None:
    """Write the averaged weights."""
    state = {key: value.detach().cpu().contiguous() for key, value in task.averaged.state_dict().items()}
    with writing(path) as temporary:
        save_file(state, temporary)


def _fold_name(fold: int) -> str:
    return "fold_all" if fold == ALL else f"fold_{fold}"
