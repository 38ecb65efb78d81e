"""How a pretraining learns: student and teacher, views, optimizer and schedules, put into the one loop."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from fmseg.errors import EnvironmentProblem
from fmseg.learning.loop import FitOptions, Hook, fit
from fmseg.learning.parallel import shard
from fmseg.learning.pretraining import pretraining_optimizer, set_pretraining_step
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
    """Train to the end of the plan, from the run's last checkpoint on. A large task is shared out among the ranks."""
    numbers = corpus.distinct(recipe.min_difference)
    logger.info(
        "%s: %d images, %s/%d, %d iterations of %d images",
        *(corpus.modality, len(numbers), recipe.architecture.name, recipe.architecture.patch_size),
        *(recipe.iterations, recipe.batch_size),
    )
    if recipe.sharding == "fsdp" and runtime.world > 1:
        shard(task, runtime)
    if recipe.compile:
        task.compile_blocks()
    optimizer = pretraining_optimizer(task.model, recipe)
    fit_options = FitOptions(
        iterations=recipe.iterations,
        batch_size=recipe.batch_size,
        accumulation=recipe.accumulation,
        clip_norm=recipe.clip_norm,
        seed=recipe.seed,
        log_every=log_every or min(max(recipe.iterations // 200, 1), 50),
        checkpoint_minutes=pace.checkpoint_minutes,
        split=task.split,
        forget_step=task.forget_step,
    )
    dataset = ViewDataset(corpus.stores, recipe, seed=recipe.seed, numbers=numbers)
    draws = _batches(dataset, recipe, runtime, pace.num_workers)
    set_step = partial(set_pretraining_step, optimizer, recipe)
    try:
        fit(task, draws, optimizer, set_step, run, runtime, fit_options, hooks)
    except TorchDynamoException as error:
        raise EnvironmentProblem(
            f"torch cannot compile the layers of the network here ({str(error).splitlines()[0]}). Go on without: type "
            "the same command with --set compile=false"
        ) from error


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
