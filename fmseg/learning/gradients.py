"""The gradients of a step, however much memory there is.

Where a batch does not fit it is cut into more parts, whose gradients add up to the same. A single rank finds out in
any step and begins it anew. Several ranks find out before their first step, each alone: in a real step a rank without
memory leaves the others waiting, so the job ends there, and the next one begins with more parts.
"""

import logging
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fmseg.errors import EnvironmentProblem, is_out_of_memory
from fmseg.learning.journal import Journal
from fmseg.learning.memory import (
    MAX_PARTS,
    Batch,
    KeptBuffers,
    free_cached,
    missing_moments,
    note_parts,
)
from fmseg.learning.options import FitOptions
from fmseg.learning.parallel import can_try_alone, distribute, is_sharded, recover, without_sync
from fmseg.learning.runtime import Runtime
from fmseg.networks.ranks import alone

logger = logging.getLogger(__name__)


class Gradients:
    """Fills in the gradients of a task's parameters, step by step."""

    def __init__(
        self,
        task: Any,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        journal: Journal,
        runtime: Runtime,
        options: FitOptions,
    ) -> None:
        self.task, self.optimizer, self.scaler = task, optimizer, scaler
        self.journal, self.runtime, self.options = journal, runtime, options
        #: into how many parts a micro-batch is cut, more than 1 where memory is short
        self.parts = 1
        self.loss: nn.Module
        self.is_rehearsed = True

    def distribute(self) -> None:
        """Join the ranks, once the task's parameters are those that the run goes on from."""
        self.loss = distribute(self.task, self.runtime)
        self.is_rehearsed = self.runtime.world == 1 or not can_try_alone(self.task)

    def of_step(self, step: int, micro_batches: list[Batch]) -> list[dict[str, Tensor]]:
        """Compute a step's gradients; return the values to log, those of each part."""
        if not self.is_rehearsed:
            self._rehearse(step, micro_batches)
        while (values := self._try(step, micro_batches, self.parts)) is None:
            parts = self._next_parts(micro_batches, self.parts)
            if self.runtime.world > 1:
                note_parts(self.journal.run.path, parts)
                raise EnvironmentProblem(
                    f"A {self.runtime.device.type} device ran out of memory in step {step + 1}. Run the same command "
                    f"again: it goes on from the last checkpoint, with {self._images(parts)} images at a time."
                )
            self.cut(step, parts)
        return values

    def cut(self, step: int, parts: int) -> None:
        """From now on take micro-batches in so many parts, and say so."""
        self.parts = parts
        images = self._images(parts)
        logger.warning(
            "The %s device has too little memory. From step %d on it takes %d images at a time; a step still has %d.",
            *(self.runtime.device.type, step + 1, images, self.options.batch_size),
        )
        self.journal.log(step, {"images_at_a_time": images})

    def _try(self, step: int, micro_batches: list[Batch], parts: int) -> list[dict[str, Tensor]] | None:
        """Return None, and leave nothing behind, if memory was too little."""
        self.runtime.seed_step(self.options.seed, step)
        self.optimizer.zero_grad(set_to_none=True)
        try:
            pieces = [piece for each in micro_batches for piece in self._split(each, parts)]
            last = len(pieces) - 1
            return [self._backward(step, piece, len(pieces), index == last) for index, piece in enumerate(pieces)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # here the error is gone, and with it all that its frames held
        self._forget()
        free_cached(self.runtime.device)
        return None

    def _backward(self, step: int, piece: Batch, num_pieces: int, is_last: bool) -> dict[str, Tensor]:
        batch = {name: tensor.to(self.runtime.device, non_blocking=True) for name, tensor in piece.items()}
        # gradients travel between the ranks once a step, with the last piece
        with nullcontext() if is_last else without_sync(self.loss):
            with self.runtime.autocast():
                loss, values = self.loss(batch, step)
            self.scaler.scale(loss / num_pieces).backward()
        return {"loss": loss.detach()} | values

    def _rehearse(self, step: int, micro_batches: list[Batch]) -> None:
        """Let each rank try its first piece alone, and cut as finely as the one with the least memory must."""
        buffers, parts = KeptBuffers(self.task), self.parts
        while True:
            moments = missing_moments(self.optimizer, self.runtime.device)
            # gradients of shards are whole until the last piece of a step, which is the only one if nothing is cut
            is_only = is_sharded(self.task) and len(micro_batches) * parts == 1
            with alone():
                with nullcontext() if is_only else without_sync(self.loss):
                    fits = self._try(step, self._split(micro_batches[0], parts)[:1], 1) is not None
                recover(self.task)
            del moments
            if fits:
                break
            parts = self._next_parts(micro_batches, parts)
        self._forget()
        buffers.restore()
        self.is_rehearsed = True
        (needed,) = self.runtime.highest([parts])
        if needed != self.parts:
            self.cut(step, needed)

    def _forget(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.options.forget_step()

    def _images(self, parts: int) -> int:
        """Return how many images a device takes at a time."""
        return self.options.batch_size // (self.options.accumulation * self.runtime.world * parts)

    def _next_parts(self, micro_batches: list[Batch], parts: int) -> int:
        """Return the next larger number of parts that a micro-batch can be cut into, at least twice as many."""
        for more in range(2 * parts, MAX_PARTS):
            if self.options.split(micro_batches[0], more) is not None:
                return more
        raise self._too_large(micro_batches)

    def _split(self, batch: Batch, parts: int) -> list[Batch]:
        if parts == 1:
            return [batch]
        # with other ranks than before the micro-batches are others, and may have to be cut less finely
        cuts = (self.options.split(batch, number) for number in range(parts, 0, -1))
        return next(pieces for pieces in cuts if pieces is not None)

    def _too_large(self, micro_batches: list[Batch]) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"The {self.runtime.device.type} device has too little memory for {self.options.batch_size} images a "
            f"step in {len(micro_batches) * self.parts} parts. Choose a smaller batch_size, or free the device."
        )
