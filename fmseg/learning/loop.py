"""The one training loop: segmentation, classification and DINO learn through ``fit``.

A task says what is learned (its loss), the loop how: precision, accumulation, clipping, ranks, logging,
checkpoints, signals. A run that was stopped anywhere and started again ends in the same bytes on a CPU, since
the data of a step and all that is random in it depend on the step alone.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fmseg.console import track
from fmseg.errors import EnvironmentProblem, Interrupted
from fmseg.learning.checkpoints import load_latest, save_checkpoint
from fmseg.learning.journal import Journal
from fmseg.learning.optim import clip_and_step, clip_groups
from fmseg.learning.runtime import Pace, Runtime, StopRequest, stop_signals
from fmseg.learning.state import pack, unpack
from fmseg.records.run import RunFolder

logger = logging.getLogger(__name__)

Batch = dict[str, Tensor]


class Task(Protocol):
    """What is learned: an nn.Module that knows its loss."""

    @property
    def model(self) -> nn.Module:
        """What the optimizer trains."""

    def training_loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss of a batch, and detached 0-d tensors to log."""

    def after_step(self, step: int) -> None:
        """Do what follows an optimizer step, such as moving an averaged copy."""

    def clip_modules(self) -> list[nn.Module]:
        """Return the modules whose gradients are clipped each on its own."""


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


@dataclass(frozen=True, slots=True)
class Hook:
    """Something to do after each ``every`` steps and at the end, such as a validation.

    It is called on all ranks with the number of steps done; what rank 0 returns goes to metrics.jsonl.
    """

    every: int
    call: Callable[[int], dict[str, float]]


def fit(
    task: Task,
    batches: Callable[[int], Iterator[Batch]],
    optimizer: torch.optim.Optimizer,
    set_step: Callable[[int], dict[str, float]],
    run: RunFolder,
    runtime: Runtime,
    options: FitOptions,
    hooks: Sequence[Hook] = (),
) -> int:
    """Train until ``options.iterations`` steps are done, from the run's last checkpoint on; return their number.

    batches: from a step on, this rank's micro-batches, ``accumulation`` a step.
    set_step: writes a step's learning rate and the like into the optimizer, and returns what to log of it.
    Raises Interrupted after a signal and a checkpoint, BadData if no checkpoint can be read, FmsegError if
    training diverges.
    """
    loop = _Loop(task, optimizer, set_step, run, runtime, options)
    stream = batches(loop.start)
    todo = range(loop.start, options.iterations)
    with (
        stop_signals() as stop,
        closing(track(todo, "training", options.iterations, loop.start, lambda: loop.journal.status)) as steps,
    ):
        for step in steps:
            try:
                micro_batches = loop.fetch(stream)
            except Exception:
                # a Ctrl-C reaches the workers that load data, and their end comes here first
                if stop.signal_number and runtime.world == 1:
                    loop.interrupt(step, stop.signal_number)
                raise
            try:
                loop.update(step, micro_batches)
            except torch.OutOfMemoryError as error:
                raise EnvironmentProblem(
                    f"The {runtime.device.type} device has too little memory for {options.batch_size} images a "
                    f"step in {options.accumulation} parts. Choose a smaller batch_size, or free the device."
                ) from error
            loop.finish_step(step + 1, hooks, stop)
    return options.iterations


class _Loss(nn.Module):
    """A task whose loss is its forward pass, as DistributedDataParallel wants it."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.task.training_loss(batch, step)


class _Loop:
    """One call of ``fit``: what stays the same from step to step."""

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        set_step: Callable[[int], dict[str, float]],
        run: RunFolder,
        runtime: Runtime,
        options: FitOptions,
    ) -> None:
        self.task, self.optimizer, self.set_step = task, optimizer, set_step
        self.run, self.runtime, self.options = run, runtime, options
        self.module = cast(nn.Module, task).to(runtime.device)
        self.journal = Journal(run, runtime, batch_size=options.batch_size)
        self.scaler = runtime.scaler()
        self.pace = Pace(runtime.device)
        self.clip_groups = clip_groups(task.clip_modules(), optimizer)
        self.schedule: dict[str, float] = {}
        self.start = self.saved_step = self._resume()
        self.saved_time = time.monotonic()
        self.loss = self._distributed()
        self.module.train()

    def _resume(self) -> int:
        """Go back to the last checkpoint, if there is one; return the number of steps done."""
        if not self.runtime.is_main:
            self.runtime.barrier()  # rank 0 looks first, and sets damaged ones aside
        found = load_latest(self.run.checkpoints)
        done = 0
        if found is not None:
            done, tensors, values = found
            unpack(tensors, values, self.module, self.optimizer, self.scaler)
            self.journal.restore(values["journal"])
            logger.info("Going on after step %d of %d.", done, self.options.iterations)
        if self.runtime.is_main:
            self.run.rewind(done)
            self.runtime.barrier()
        if self.runtime.highest([done]) != [done]:
            raise EnvironmentProblem(
                f"{self.run.checkpoints}: not all processes see the same checkpoint. "
                "Put the results on a disk that all machines share."
            )
        return done

    def fetch(self, stream: Iterator[Batch]) -> list[Batch]:
        """Return a step's micro-batches, all of them before anything changes."""
        start = time.perf_counter()
        found = list(islice(stream, self.options.accumulation))
        self.journal.waited(time.perf_counter() - start)
        assert len(found) == self.options.accumulation, "the batches ended before the training"
        return found

    def update(self, step: int, micro_batches: list[Batch]) -> None:
        """Do step number ``step``, counted from 0."""
        self.schedule = self.set_step(step)
        self.runtime.seed_step(self.options.seed, step)
        self.optimizer.zero_grad(set_to_none=True)
        for index, micro_batch in enumerate(micro_batches):
            self._backward(step, micro_batch, is_last=index == len(micro_batches) - 1)
        norm = clip_and_step(self.optimizer, self.clip_groups, self.options.clip_norm, self.scaler)
        self.journal.add({"grad_norm": norm})
        self.task.after_step(step)
        self.pace.step()

    def finish_step(self, done: int, hooks: Sequence[Hook], stop: StopRequest) -> None:
        """Log, call hooks, save and stop, each if it is due after ``done`` steps."""
        is_end = done == self.options.iterations
        if is_end or done % self.options.log_every == 0:
            self.journal.flush(done, self.schedule)
        with self.journal.paused():
            for hook in hooks:
                if is_end or done % hook.every == 0:
                    self.journal.log(done, hook.call(done))
                    self.module.train()
            every = self.options.checkpoint_every
            is_time = time.monotonic() - self.saved_time > 60 * self.options.checkpoint_minutes
            is_due = is_end or is_time or (every is not None and done % every == 0)
            # the ranks' clocks differ, and signals reach them at different steps
            must_save, signal_number = self.runtime.highest([is_due, stop.signal_number])
            if signal_number:
                self.interrupt(done, signal_number)
            if must_save:
                self.save(done)

    def save(self, done: int) -> None:
        """Write a checkpoint, unless this one is there."""
        if done == self.saved_step:
            return
        tensors, values = pack(self.module, self.optimizer, self.scaler)
        values["journal"] = self.journal.state()
        if self.runtime.is_main:
            save_checkpoint(self.run.checkpoints, done, tensors, values)
        self.runtime.barrier()  # a rank that ended now would have the others stopped
        self.saved_step, self.saved_time = done, time.monotonic()

    def interrupt(self, done: int, signal_number: int) -> NoReturn:
        """Save and raise Interrupted."""
        self.save(done)
        raise Interrupted(
            f"Stopped by {signal.Signals(signal_number).name} after step {done} of {self.options.iterations}. "
            "Run the same command again to go on.",
            signal_number,
        )

    def _backward(self, step: int, micro_batch: Batch, *, is_last: bool) -> None:
        batch = {name: tensor.to(self.runtime.device, non_blocking=True) for name, tensor in micro_batch.items()}
        # gradients travel between the ranks once a step, with the last micro-batch
        with nullcontext() if is_last else self._no_sync():
            with self.runtime.autocast():
                loss, values = self.loss(batch, step)
            self.scaler.scale(loss / self.options.accumulation).backward()
        self.journal.add({"loss": loss} | values)

    def _no_sync(self) -> Any:
        return self.loss.no_sync() if isinstance(self.loss, DistributedDataParallel) else nullcontext()

    def _distributed(self) -> nn.Module:
        """Return the loss as a module; with several ranks, one that averages their gradients."""
        loss = _Loss(self.task)
        if self.runtime.world == 1:
            return loss
        if self.runtime.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(loss)
        return DistributedDataParallel(
            loss,
            # synchronised norms keep buffers equal, and those of averaged copies are large
            broadcast_buffers=False,
            # a mask token has no gradient where nothing is masked
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )
