"""One fold under way, and what is done with it whatever the task: the network, its start, the loop, its weights."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fmseg.errors import BadData, UsageError
from fmseg.files import sha256_file, writing
from fmseg.imaging.measure import read_facts
from fmseg.inference.members import WEIGHTS, load_weights, outputs_of
from fmseg.inference.unlike import look_of_facts, ranges_of
from fmseg.learning.loop import FitOptions, Hook, fit
from fmseg.learning.optim import adamw, parameter_groups, set_step, sgd, warmup_poly
from fmseg.learning.runtime import Runtime
from fmseg.networks.build import backbone_of, build_network
from fmseg.networks.cnn import TimmClassifier, load_timm_weights
from fmseg.networks.weights import load_backbone
from fmseg.planning.regimes import held_out
from fmseg.records.plans import Fold
from fmseg.records.ranges import Ranges
from fmseg.records.recipe import Recipe
from fmseg.records.run import RunConfig, RunFolder
from fmseg.records.scores import Interval
from fmseg.registry import Registry
from fmseg.reporting.curves import draw_progress
from fmseg.sampling.loaders import Samples, batches
from fmseg.sampling.store import Store
from fmseg.tasks.averaged import AveragedTask
from fmseg.workspace import Workspace

#: weights of the best validation
BEST = "model_best.safetensors"
#: of the training cases, to be looked at instead of learned from where a run ends early
WATCHED_SHARE = 0.2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRun:
    """One fold under way: what it is, what it reads and where it writes."""

    workspace: Workspace
    config: RunConfig
    store: Store
    run: RunFolder
    runtime: Runtime
    #: what to start from, see ``build_model``; None for random weights
    weights: Path | None
    num_workers: int | None
    checkpoint_minutes: float

    @property
    def material(self) -> Fold:
        """The cases that are learned from, and those looked at meanwhile: those of the fold where none are watched."""
        cases, watched = self.config.cases, set(self.config.watched)
        train = tuple(case for case in cases.train if case not in watched)
        return Fold(train=train, val=self.config.watched or cases.val)


class FoldScores(Protocol):
    """What the scores of all tasks have."""

    @property
    def headline(self) -> tuple[str, Interval]:
        """The one figure that runs are compared by, and its name."""

    @property
    def cases(self) -> tuple[Any, ...]:
        """What was scored."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Return the scores as JSON values."""


class Lesson(Protocol):
    """What a task brings to training: a module of functions, such as ``segmentation``."""

    @property
    def networks(self) -> Registry[Any]:
        """What can be trained."""

    @property
    def decoders(self) -> Registry[Any]:
        """What can stand on the backbone, where the network has one."""

    def learn(self, fold: FoldRun) -> nn.Module:
        """Train the network of a fold from where it stands, and return what is to be kept of it."""

    def score(self, fold: FoldRun, model: nn.Module) -> FoldScores | None:
        """Predict the fold's validation cases as ``predict`` would, write predictions and scores, and return them.

        All ranks call it; those that have no part in it return None.
        """

    def load_scores(self, path: Path) -> FoldScores:
        """Read what ``score`` wrote."""


def build_model(config: RunConfig, weights: Path | None) -> nn.Module:
    """Return the network of a run: random, a function of its seed, but for what ``weights`` hold.

    weights: folder of a checkpoint, for the backbone; file of timm's weights, for one of its networks.
    """
    torch.manual_seed(config.recipe.seed)
    model = build_network(config.recipe, config.architecture, outputs_of(config))
    if isinstance(model, TimmClassifier) and weights is not None:
        load_timm_weights(model, weights)
    elif weights is not None:
        vit, _ = load_backbone(weights, config.architecture.channels)
        backbone_of(model).load_state_dict(vit.state_dict())
    return model


def watched_cases(workspace: Workspace, config: RunConfig) -> tuple[str, ...]:
    """Return the training cases by which a run ends early: all those of some patients; none without ``patience``.

    Those that it is scored on would flatter it. Raises UsageError if there are too few patients.
    """
    if not config.recipe.patience or config.recipe.learned_by != "steps":
        return ()
    facts = read_facts(workspace.prepared(config.plans.dataset) / "cases.jsonl")
    measured = {each.case: each.patient for each in facts}
    patients = {case: measured.get(case, case) for case in config.cases.train}
    try:
        watched = held_out(config.cases.train, patients, WATCHED_SHARE).val
    except BadData as error:
        raise UsageError(
            f"patience holds out patients with {WATCHED_SHARE:.0%} of the training cases, to end a run by them: of "
            f"{len(set(patients.values()))} there are too few. Leave it out."
        ) from error
    logger.info(
        "%d of %d training cases are held out to end the run by (patience), so it learns from %d",
        *(len(watched), len(patients), len(patients) - len(watched)),
    )
    return watched


def ranges_of_cases(workspace: Workspace, config: RunConfig) -> Ranges | None:
    """Return what the cases of a fold are like, those that it is scored on too: other folds learn from them."""
    cases = {*config.cases.train, *config.cases.val}
    measured = read_facts(workspace.prepared(config.plans.dataset) / "cases.jsonl")
    facts = (fact for fact in measured if fact.case in cases and fact.shape[0])
    return ranges_of((fact.patient, look_of_facts(fact, config.plans.preprocessing)) for fact in facts)


def fit_task(
    fold: FoldRun,
    task: AveragedTask[Any],
    samples: Samples,
    num_samples: int,
    validate: Callable[[nn.Module], dict[str, float]],
) -> None:
    """Train a task to the end of its recipe, from the run's last checkpoint on.

    validate: the averaged network -> values to log, the one by which the best weights are kept first. It is called
    where the fold has cases to look at.
    """
    recipe = fold.config.recipe
    task.to(fold.runtime.device)
    depth, decay = fold.config.architecture.depth, recipe.layer_decay
    groups = parameter_groups(task.model.named_parameters(), depth=depth, layer_decay=decay)
    optimizer = adamw(groups) if recipe.optimizer == "adamw" else sgd(groups, momentum=recipe.momentum)
    hook = Hook(recipe.validation_interval, lambda step: _validate(fold, task.averaged, validate))
    options = FitOptions(
        iterations=recipe.iterations,
        batch_size=recipe.batch_size,
        clip_norm=recipe.clip_norm,
        seed=recipe.seed,
        log_every=max(min(recipe.validation_interval, 50), 1),
        checkpoint_minutes=fold.checkpoint_minutes,
        should_end=lambda: has_stalled(fold.run.history(), recipe.patience),
    )
    draws = _batches(fold, samples, num_samples)
    fit(
        task, draws, optimizer, lambda step: _set_step(optimizer, recipe, step), fold.run, fold.runtime, options, [hook]
    )
    if recipe.patience and (fold.run.path / BEST).exists():
        load_weights(task.averaged, fold.run.path / BEST)


def has_stalled(history: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Return whether the last ``patience`` validations brought nothing better than one before; 0: never.

    history: lines of metrics.jsonl; what is validated begins with ``val_``.
    """
    values = [value for line in history for name, value in line.items() if name.startswith("val_")]
    return 0 < patience < len(values) and max(values[-patience:]) <= max(values[:-patience])


def keep_weights(run: RunFolder, model: nn.Module) -> None:
    """Write the weights, and remove predictions of other ones: those of a stopped run are gone on with."""
    path = run.path / WEIGHTS
    before = sha256_file(path) if path.exists() else ""
    save_weights(model, path)
    if sha256_file(path) != before and run.validation.exists():
        shutil.rmtree(run.validation)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the weights of a network."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with writing(path) as temporary:
        save_file(state, temporary)


def _batches(fold: FoldRun, samples: Samples, num_samples: int) -> Callable[[int], Iterator[dict[str, Tensor]]]:
    recipe, runtime = fold.config.recipe, fold.runtime
    return lambda start: batches(
        samples,
        num_samples=num_samples,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        start=start,
        stop=recipe.iterations,
        num_workers=runtime.loader_processes() if fold.num_workers is None else fold.num_workers,
        rank=runtime.rank,
        world=runtime.world,
    )


def _set_step(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int) -> dict[str, float]:
    """Write learning rate and weight decay of one step; return what is logged."""
    lengths = {"total": recipe.iterations, "warmup": recipe.warmup_iterations}
    lr = warmup_poly(step, **lengths, peak=recipe.learning_rate, power=recipe.schedule_power)
    set_step(optimizer, lr, recipe.weight_decay)
    return {"learning_rate": lr}


def _validate(fold: FoldRun, model: nn.Module, validate: Callable[[nn.Module], dict[str, float]]) -> dict[str, float]:
    """Score the averaged weights on cases that they have not learned from; keep the best ones, draw the curves."""
    if not fold.runtime.is_main:
        return {}
    run, values = fold.run, {}
    if fold.material.val:
        values = validate(model)
        metric = next(iter(values))
        before = [line[metric] for line in run.history() if metric in line]
        if values[metric] >= max(before, default=0.0):
            save_weights(model, run.path / BEST)
    draw_progress(run.metrics, run.path / "progress.png")
    return values
