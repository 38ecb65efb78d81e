"""What the teacher says: a distribution over the prototypes for each token, kept from collapsing.

Both ways come to a softmax of (logits - potential) / temperature. Softmax centring takes a running mean of the
logits as potential; Sinkhorn-Knopp solves for the one under which all prototypes are used alike.
Targets are handed out in slices of rows, so that no (T, K) tensor need exist with centring, and one with Sinkhorn.
Matrix products want many rows at once, all that follows them few: what fits into a CPU's cache is read and written
several times as fast. So logits are made in chunks, and handed out in blocks of a chunk.

Legend: T tokens (rows), K prototypes, E width of the head's output.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from fmseg.networks.ranks import are_ranks_together

#: slice of rows -> their targets (n, K), float32; each row sums to 1
Targets = Callable[[slice], Tensor]

#: elements of a (rows, K) tensor that one matrix product makes, found by trial on a CPU; a GPU wants fewer and larger
CHUNK_ELEMENTS = {"cpu": 2**24, "cuda": 2**27}
#: and of those that are worked on together: 1 MB in float32 on a CPU
BLOCK_ELEMENTS = {"cpu": 2**18, "cuda": 2**27}


def similarity(rows: Tensor, prototypes: Tensor) -> Tensor:
    """Return rows (T, E) times prototypes (K, E) as (T, K) float32, multiplied in the prototypes' precision."""
    return F.linear(rows.to(prototypes.dtype), prototypes).float()


class Centre(nn.Module):
    """Running mean of the teacher's logits over all ranks; (K,) float32."""

    value: Tensor

    def __init__(self, num_prototypes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(num_prototypes))
        self._pending: list[tuple[Tensor, Any]] = []

    def observe(self, total: Tensor, num_rows: int) -> None:
        """Add the sum (K,) of the logits of these rows to the next update, and start to sum it over the ranks."""
        sums = torch.cat([total, total.new_full((1,), num_rows)])
        handle = dist.all_reduce(sums, async_op=True) if are_ranks_together() else None
        self._pending.append((sums, handle))

    def forget(self) -> None:
        """Drop what was observed since the last update."""
        self._pending.clear()

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the mean of all that was observed since the last update; nothing seen, nothing moved."""
        if not self._pending:
            return
        for _, handle in self._pending:
            if handle is not None:
                handle.wait()
        sums = torch.stack([sums for sums, _ in self._pending]).sum(0)
        self._pending.clear()
        total, count = sums[:-1], sums[-1]
        moved = torch.lerp(total / count.clamp(min=1), self.value, self.momentum)
        self.value.copy_(torch.where(count > 0, moved, self.value))


def softmax_targets(rows: Tensor, prototypes: Tensor, centre: Tensor, temperature: float) -> Targets:
    """Return softmax((logits - centre) / temperature). rows: (T, E), prototypes: (K, E), centre: (K,)."""
    scaled, shift = (rows / temperature).to(prototypes.dtype), centre / temperature
    elements = CHUNK_ELEMENTS.get(rows.device.type, 2**24)
    chunk, logits = slice(0, 0), prototypes.new_empty(0, len(prototypes))

    def targets(part: slice) -> Tensor:
        nonlocal chunk, logits
        start, stop, _ = part.indices(len(scaled))
        if start < chunk.start or stop > chunk.stop:
            size = max(elements // len(prototypes), stop - start, 1)
            chunk = slice(start, min(start + size, len(scaled)))
            logits = F.linear(scaled[chunk], prototypes)  # (n, K), for the parts to come as well
        mine = logits[start - chunk.start : stop - chunk.start]
        return torch.sub(mine, shift).softmax(-1)

    return targets


def joined_targets(count: int, first: Targets, second: Targets) -> Targets:
    """Return the targets of ``count`` rows of ``first``, and then those of ``second``."""

    def targets(part: slice) -> Tensor:
        if part.stop <= count:
            return first(part)
        rest = second(slice(max(part.start - count, 0), part.stop - count))
        return rest if part.start >= count else torch.cat([first(slice(part.start, count)), rest])

    return targets


def sinkhorn_targets(rows: Tensor, prototypes: Tensor, temperature: float, *, iterations: int = 3) -> Targets:
    """Return the targets after some rounds of Sinkhorn-Knopp over the rows of all ranks.

    Each round scales the columns to equal sums, then the rows to sum 1. Only the two scale vectors change, so the
    matrix is read, never rewritten. Every rank must call this, also one without rows.
    """
    matrix = similarity(rows / temperature, prototypes)
    # the whole matrix may be scaled as one likes, and its rows too if row_scale starts where it then must: so no
    # row vanishes however large a trainable gain makes the logits
    top = matrix.amax(1)
    peak = top.amax() if len(top) else top.new_tensor(-torch.inf)
    if are_ranks_together():
        dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    matrix.sub_(top[:, None]).exp_()
    row_scale, column_scale = (top - peak).exp(), matrix.new_ones(matrix.shape[1])
    with torch.autocast(matrix.device.type, enabled=False):
        for _ in range(iterations):
            used = torch.mv(matrix.T, row_scale)
            if are_ranks_together():
                dist.all_reduce(used)
            shares = used / used.amax()
            column_scale = shares.clamp_(min=1e-30).reciprocal_()
            row_scale = torch.mv(matrix, column_scale).reciprocal_()

    def targets(part: slice) -> Tensor:
        return (matrix[part] * row_scale[part, None]).mul_(column_scale)

    return targets
