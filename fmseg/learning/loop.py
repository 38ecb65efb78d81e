"""The one training loop: segmentation, classification and DINO learn through ``fit``.

A task says what is learned (its loss), the loop how: precision, accumulation, clipping, ranks, logging,
checkpoints, signals. A run that was stopped anywhere and started again ends in the same bytes on a CPU, since
the data of a step and all that is random in it depend on the step alone.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn, Protocol, cast

import torch
from torch import Tensor, nn

from fmseg.console import track
from fmseg.errors import EnvironmentProblem, Interrupted
from fmseg.learning.checkpoints import load_latest, remove_old, save_checkpoint
from fmseg.learning.gradients import Gradients
from fmseg.learning.journal import Journal
from fmseg.learning.memory import Batch, noted_parts
from fmseg.learning.optim import clip_and_step, clip_groups
from fmseg.learning.options import FitOptions as FitOptions
from fmseg.learning.runtime import Pace, Runtime, StopRequest, stop_signals
from fmseg.learning.state import pack, unpack
from fmseg.records.run import RunFolder

logger = logging.getLogger(__name__)


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

    It is lower if ``options.should_end`` says so.

    batches: from a step on, this rank's micro-batches, ``accumulation`` a step.
    set_step: writes a step's learning rate and the like into the optimizer, and returns what to log of it.
    Raises Interrupted after a signal and a checkpoint, BadData if no checkpoint can be read, FmsegError if
    training diverges.
    """
    loop = _Loop(task, optimizer, set_step, run, runtime, options)
    if loop.should_end():
        return loop.start
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
            loop.update(step, micro_batches)
            if loop.finish_step(step + 1, hooks, stop):
                return step + 1
    return options.iterations


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
        self.gradients = Gradients(task, optimizer, self.scaler, self.journal, runtime, options)
        self.start = self.saved_step = self._resume()
        self.saved_time = time.monotonic()
        self.gradients.distribute()
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
            self.gradients.parts = values.get("parts", 1)
            logger.info("Going on after step %d of %d.", done, self.options.iterations)
        if self.runtime.is_main:
            self.run.rewind(done)
            remove_old(self.run.checkpoints)  # a kill may have come between saving and removing
            self.runtime.barrier()
        if self.runtime.highest([done]) != [done]:
            raise EnvironmentProblem(
                f"{self.run.checkpoints}: not all processes see the same checkpoint. "
                "Put the results on a disk that all machines share."
            )
        (parts,) = self.runtime.highest([noted_parts(self.run.path)])
        if parts > self.gradients.parts:
            self.gradients.cut(done, parts)
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
        for values in self.gradients.of_step(step, micro_batches):
            self.journal.add(values)
        norm = clip_and_step(self.optimizer, self.clip_groups, self.options.clip_norm, self.scaler)
        self.journal.add({"grad_norm": norm})
        self.task.after_step(step)
        self.pace.step()

    def should_end(self) -> bool:
        """Return whether rank 0 says that the run has come to its end early."""
        return bool(self.runtime.highest([int(self.runtime.is_main and self.options.should_end())])[0])

    def finish_step(self, done: int, hooks: Sequence[Hook], stop: StopRequest) -> bool:
        """Log, call hooks, save and stop, each if it is due after ``done`` steps; return whether this was the last."""
        is_end = done == self.options.iterations
        if is_end or done % self.options.log_every == 0:
            self.journal.flush(done, self.schedule)
        with self.journal.paused():
            for hook in hooks:
                if is_end or done % hook.every == 0:
                    self.journal.log(done, hook.call(done))
                    self.module.train()
            if not is_end and any(done % hook.every == 0 for hook in hooks):
                is_end = self.should_end()
            every = self.options.checkpoint_every
            is_time = time.monotonic() - self.saved_time > 60 * self.options.checkpoint_minutes
            is_due = is_end or is_time or (every is not None and done % every == 0)
            # the ranks' clocks differ, and signals reach them at different steps
            must_save, signal_number = self.runtime.highest([is_due, stop.signal_number])
            if signal_number:
                self.interrupt(done, signal_number)
            if must_save:
                self.save(done)
        return is_end

    def save(self, done: int) -> None:
        """Write a checkpoint, unless this one is there."""
        if done == self.saved_step:
            return
        tensors, values = pack(self.module, self.optimizer, self.scaler)
        values |= {"journal": self.journal.state(), "parts": self.gradients.parts}
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
