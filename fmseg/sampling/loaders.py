"""Batches of tensors for a training loop, made by worker processes.

Samples are numbered through all ranks and micro-batches: position p of a step is the same sample whoever
makes it. Micro-batch m of rank r takes the (m * world + r)-th piece of the batch, so that the pieces of all
ranks in one micro-batch lie side by side, as in a run with one rank.
"""

import signal
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fmseg.errors import FmsegError, UsageError
from fmseg.sampling.order import Draw, sample_order

Item = dict[str, np.ndarray]


class Samples(Protocol):
    """What batches are made of: ``PatchDataset``, ``ViewDataset``."""

    def item(self, draw: Draw) -> Item:
        """Return one sample."""

    def collate(self, draws: Sequence[Draw], items: Sequence[Item]) -> Item:
        """Return the samples of a micro-batch as arrays."""

    def describe(self, draw: Draw) -> str:
        """Return the name of a sample, for messages."""


def batches(
    dataset: Samples,
    *,
    num_samples: int,
    batch_size: int,
    seed: int,
    start: int,
    stop: int,
    num_workers: int,
    accumulation: int = 1,
    rank: int = 0,
    world: int = 1,
) -> Iterator[dict[str, Tensor]]:
    """Yield ``accumulation`` micro-batches a step, from step ``start`` to before ``stop``.

    batch_size: of all ranks and micro-batches together. num_workers: processes; 0 makes batches in this one.
    Raises UsageError if the batch cannot be dealt out evenly or there are no samples. Whatever a sample
    raises comes back with the sample's name in front.
    """
    if num_samples < 1:
        raise UsageError("There are no images to train on. Check the dataset's folds and what was preprocessed.")
    if batch_size % (accumulation * world):
        raise UsageError(
            f"A batch of {batch_size} cannot be dealt out to {world} ranks and {accumulation} micro-batches. "
            f"Choose a batch size that is a multiple of {accumulation * world}."
        )

    def micro_batches() -> Iterator[list[Draw]]:
        share = batch_size // (accumulation * world)
        for step in range(start, stop):
            draws = sample_order(num_samples, batch_size, seed, step)
            for micro in range(accumulation):
                first = (micro * world + rank) * share
                yield draws[first : first + share]

    loader = DataLoader(
        _MicroBatches(dataset),
        batch_sampler=micro_batches(),
        collate_fn=_unchanged,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
        # the loader draws a seed for its workers, which must not come from the generator that drop path uses
        generator=torch.Generator(),
    )
    return _raising(loader)


class _MicroBatches(Dataset[Any]):
    """What torch's loader sees: all samples of a micro-batch are fetched at once."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitems__(self, draws: list[Draw]) -> dict[str, Tensor] | FmsegError:
        """Return a micro-batch. An error for the user is returned as it is: torch would wrap it in a traceback."""
        try:
            items = [self._item(draw) for draw in draws]
        except FmsegError as error:
            return error
        return {name: torch.from_numpy(array) for name, array in self.samples.collate(draws, items).items()}

    def _item(self, draw: Draw) -> Item:
        try:
            return self.samples.item(draw)
        except FmsegError as error:
            raise type(error)(f"{self.samples.describe(draw)}: {error}") from error
        except Exception as error:
            raise RuntimeError(f"{self.samples.describe(draw)}: {type(error).__name__}: {error}") from error


def _raising(loader: DataLoader[Any]) -> Iterator[dict[str, Tensor]]:
    for batch in loader:
        if isinstance(batch, FmsegError):
            raise batch
        yield batch


def _unchanged(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:
    """Keep a worker to one core, as torch has done for itself, and leave interruptions to the main process.

    A signal to the whole process group would else end the workers before the run has saved its checkpoint.
    They end by themselves when the main process does.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
