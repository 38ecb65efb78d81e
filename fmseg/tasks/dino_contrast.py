"""Telling images apart: the loss that teaches from the first step on.

DINO's prototypes mean nothing at first, and a teacher with random weights gives nearly even answers; it takes
thousands of steps until these say something. Which of the batch's images a crop is from can be asked at once [1]: the
teacher's rows of this very batch stand where the prototypes would. Short runs live from it; long ones do without,
since there equal-looking images of other patients are pushed apart for nothing.

Legend: T tokens (rows), B images of this rank, W ranks, E width of the head's output.

[1] Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers (MoCo v3), 2021.
    https://arxiv.org/abs/2104.02057
"""

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from fmseg.networks.ranks import are_ranks_together

GLOBALS = 2


def contrast_crops(rows: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of telling by the teacher's other crop which image a crop is from, 0-d.

    rows: (L B + 2 B, E) of the student, all local crops first, then the global ones; teacher: (2 B, E), all first
    crops before all second ones. Both of length 1. The images of all ranks are told apart; every rank must call this.
    """
    num_images = len(teacher) // GLOBALS
    local, one, other = rows.split([len(rows) - GLOBALS * num_images, num_images, num_images])
    (first, offset), (second, _) = (_gather(crops) for crops in teacher.chunk(GLOBALS))
    own = torch.arange(num_images, device=rows.device) + offset
    values = [
        _tell(crops, images, own.repeat(len(crops) // num_images), temperature)
        for crops, images in ((one, second), (other, first), (local, first), (local, second))
    ]
    return torch.cat(values).mean()


def contrast_patches(rows: Tensor, teacher: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Return the weighted sum of the cross-entropies of telling which masked patch of all ranks a token is, 0-d.

    rows, teacher: (T, E) of length 1; weights: (T,). Every rank must call this, also one without masked patches.
    """
    candidates, offset = _gather(teacher)
    own = torch.arange(len(rows), device=rows.device) + offset
    return (weights * _tell(rows, candidates, own, temperature)).sum()


def _tell(rows: Tensor, candidates: Tensor, own: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of each row, (T,); own: which candidate it should be nearest to, (T,)."""
    with torch.autocast(rows.device.type, enabled=False):
        return F.cross_entropy(rows @ candidates.T / temperature, own, reduction="none")


def _gather(rows: Tensor) -> tuple[Tensor, int]:
    """Return the rows of all ranks, rank by rank, and how many come before this rank's. They carry no gradient."""
    if not are_ranks_together():
        return rows, 0
    lengths = [rows.new_empty(1) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, rows.new_full((1,), len(rows)))
    # at once: each number that the host asks for waits for the device
    counts = [int(length) for length in torch.cat(lengths).tolist()]
    padded = F.pad(rows, (0, 0, 0, max(counts) - len(rows)))
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    together = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
    return together, sum(counts[: dist.get_rank()])
