"""How a pretraining learns: student and teacher, views, optimizer and schedules, put into the one loop."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fmseg.learning.loop import FitOptions, Hook, fit
from fmseg.learning.optim import adamw, cosine, parameter_groups, set_step, warmup_cosine
from fmseg.learning.runtime import Runtime
from fmseg.records.plans import Pretraining
from fmseg.records.run import RunFolder
from fmseg.sampling.corpora import Corpus
from fmseg.sampling.corpus import ViewDataset
from fmseg.sampling.loaders import batches
from fmseg.tasks.dino import DinoTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What changes the speed of a run and never its result."""

    #: loader processes; None for as many as the machine can use
    num_workers: int | None = None
    checkpoint_minutes: float = 10.0


def build_task(recipe: Pretraining) -> DinoTask:
    """Return student and teacher with random weights."""
    torch.manual_seed(recipe.seed)
    return DinoTask.build(recipe)


def learn(
    task: DinoTask,
    corpus: Corpus,
    recipe: Pretraining,
    run: RunFolder,
    runtime: Runtime,
    pace: Pace,
    hooks: Sequence[Hook] = (),
    log_every: int | None = None,
) -> None:
    """Train to the end of the plan, from the run's last checkpoint on."""
    numbers = corpus.distinct(recipe.min_difference)
    logger.info(
        "%s: %d images, %s/%d, %d iterations of %d images",
        *(corpus.modality, len(numbers), recipe.architecture.name, recipe.architecture.patch_size),
        *(recipe.iterations, recipe.batch_size),
    )
    groups = parameter_groups(
        task.model.named_parameters(),
        depth=recipe.architecture.depth,
        layer_decay=recipe.layer_decay,
        patch_embed_factor=recipe.patch_embed_factor,
    )
    optimizer = adamw(groups)
    fit_options = FitOptions(
        iterations=recipe.iterations,
        batch_size=recipe.batch_size,
        accumulation=recipe.accumulation,
        clip_norm=recipe.clip_norm,
        seed=recipe.seed,
        log_every=log_every or min(max(recipe.iterations // 200, 1), 50),
        checkpoint_minutes=pace.checkpoint_minutes,
    )
    dataset = ViewDataset(corpus.stores, recipe, seed=recipe.seed, numbers=numbers)
    draws = _batches(dataset, recipe, runtime, pace.num_workers)
    fit(task, draws, optimizer, lambda step: _set_step(optimizer, recipe, step), run, runtime, fit_options, hooks)


def _batches(
    dataset: ViewDataset, recipe: Pretraining, runtime: Runtime, num_workers: int | None
) -> Callable[[int], Iterator[dict[str, Tensor]]]:
    return lambda start: batches(
        dataset,
        num_samples=len(dataset),
        batch_size=recipe.batch_size,
        accumulation=recipe.accumulation,
        seed=recipe.seed,
        start=start,
        stop=recipe.iterations,
        num_workers=runtime.loader_processes() if num_workers is None else num_workers,
        rank=runtime.rank,
        world=runtime.world,
    )


def _set_step(optimizer: object, recipe: Pretraining, step: int) -> dict[str, float]:
    """Write learning rate and weight decay of one step; return what is logged."""
    total = recipe.iterations
    lr = warmup_cosine(
        step,
        total=total,
        warmup=recipe.warmup_iterations,
        start=0.0,
        peak=recipe.learning_rate,
        end=recipe.min_learning_rate,
    )
    weight_decay = cosine(step, total, *recipe.weight_decay)
    is_frozen = step < recipe.freeze_last_layer_iterations
    set_step(optimizer, lr, weight_decay, last_layer_lr=0.0 if is_frozen else lr)  # type: ignore[arg-type]
    return {"learning_rate": lr, "weight_decay": weight_decay}
