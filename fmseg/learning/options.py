"""What a caller of ``fit`` decides."""

from collections.abc import Callable
from dataclasses import dataclass

from fmseg.learning.memory import Batch, split_evenly


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How long to train, and what to do how often."""

    iterations: int
    #: images per step, over all ranks and micro-batches; only the speed is reckoned from it
    batch_size: int
    #: micro-batches per step
    accumulation: int = 1
    #: highest norm of a clip module's gradients; 0 for no clipping
    clip_norm: float
    seed: int
    log_every: int
    checkpoint_minutes: float = 10.0
    #: steps between two checkpoints, besides those by the clock
    checkpoint_every: int | None = None
    #: asked after each hook: whether to end before ``iterations``; of rank 0, a function of the run's folder
    should_end: Callable[[], bool] = lambda: False
    #: cuts a batch into equal parts where memory is short; returns None if it cannot
    split: Callable[[Batch, int], list[Batch] | None] = split_evenly
    #: drops what an unfinished step has left in the task
    forget_step: Callable[[], None] = lambda: None
