"""Too little memory for a batch is no end: it is cut into more parts, whose gradients add up to the same step.

Parts see fewer images at once. What compares the images of a batch (KoLeo, Sinkhorn-Knopp, batch norms) compares
those of a part then, as with any accumulation; all else is the same up to rounding.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from fmseg.files import read_json, write_json

Batch = dict[str, Tensor]

#: more parts than this mean that something else is wrong
MAX_PARTS = 4096
#: bytes of AdamW's two moments in float32, which are not there before the first step, per parameter
MOMENT_BYTES = 8
#: in the folder of a run
NOTE = "memory.json"


def split_evenly(batch: Batch, parts: int) -> list[Batch] | None:
    """Return a batch in equal parts along the first axis of all its tensors; None if that cannot be done."""
    sizes = {len(tensor) for tensor in batch.values()}
    if len(sizes) != 1 or sizes.pop() % parts:
        return None
    pieces = zip(*(tensor.chunk(parts) for tensor in batch.values()), strict=True)
    return [dict(zip(batch, piece, strict=True)) for piece in pieces]


def free_cached(device: torch.device) -> None:
    """Give back what torch holds for later on a device, in pieces that may be of no use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def note_parts(folder: Path, parts: int) -> None:
    """Leave word in a run's folder to take micro-batches in so many parts, for the processes that go on with it."""
    write_json(folder / NOTE, {"parts": parts})


def noted_parts(folder: Path) -> int:
    """Return the number of parts that ``note_parts`` has left; 1 if nothing was."""
    path = folder / NOTE
    return int(read_json(path)["parts"]) if path.exists() else 1


def missing_moments(optimizer: torch.optim.Optimizer, device: torch.device) -> Tensor | None:
    """Return a placeholder as large as the moments that the first step will add; None if they are there."""
    if optimizer.state:
        return None
    count = sum(_local(parameter).numel() for group in optimizer.param_groups for parameter in group["params"])
    return torch.empty(MOMENT_BYTES * count, dtype=torch.uint8, device=device)


class KeptBuffers:
    """The buffers of a module as they were, for a pass that must leave no trace."""

    def __init__(self, module: nn.Module) -> None:
        self.pairs = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]

    def restore(self) -> None:
        """Write them back."""
        for buffer, copy in self.pairs:
            buffer.copy_(copy)


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter
