"""What the teacher says: a distribution over the prototypes for each token, kept from collapsing.

Both ways come to a softmax of (logits - potential) / temperature. Softmax centring takes a running mean of the
logits as potential; Sinkhorn-Knopp solves for the one under which all prototypes are used alike.
Targets are handed out in slices of rows, so that no (T, K) tensor need exist with centring, and one with Sinkhorn.

Legend: T tokens (rows), K prototypes, E width of the head's output.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

#: slice of rows -> their targets (n, K), float32; each row sums to 1
Targets = Callable[[slice], Tensor]


def matmul_dtype(tensor: Tensor) -> torch.dtype:
    """Return the precision of matrix products: autocast's where it is on, else the tensor's own."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


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

    def observe(self, rows: Tensor, prototypes: Tensor) -> None:
        """Add the logits of these rows to the next update, and start to sum them over the ranks.

        rows: (T, E), prototypes: (K, E), both float32.
        """
        with torch.autocast(rows.device.type, enabled=False):
            total = torch.mv(prototypes, rows.sum(0))  # the sum of the logits is the logit of the summed rows
        sums = torch.cat([total, total.new_tensor([len(rows)])])
        handle = dist.all_reduce(sums, async_op=True) if _is_distributed() else None
        self._pending.append((sums, handle))

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
    scaled, shift = rows / temperature, centre / temperature

    def targets(part: slice) -> Tensor:
        return similarity(scaled[part], prototypes).sub_(shift).softmax(-1)

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
    if _is_distributed():
        dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    matrix.sub_(top[:, None]).exp_()
    row_scale, column_scale = (top - peak).exp(), matrix.new_ones(matrix.shape[1])
    with torch.autocast(matrix.device.type, enabled=False):
        for _ in range(iterations):
            used = torch.mv(matrix.T, row_scale)
            if _is_distributed():
                dist.all_reduce(used)
            shares = used / used.amax()
            column_scale = shares.clamp_(min=1e-30).reciprocal_()
            row_scale = torch.mv(matrix, column_scale).reciprocal_()

    def targets(part: slice) -> Tensor:
        return (matrix[part] * row_scale[part, None]).mul_(column_scale)

    return targets


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
