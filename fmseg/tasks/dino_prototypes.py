"""The prototypes of DINOv2: a weight-normed linear layer without bias, K directions of a trained length each.

With 65536 of them they are the largest tensor of a ViT-S's step, so copies are made a slice at a time.

Legend: T tokens (rows), K prototypes, E width of the head's output.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

#: elements that are worked on together: 4 MB in float32
PART_ELEMENTS = 2**20


class Prototypes(nn.Module):
    """``num_prototypes`` directions of length ``weight_g``: 1 at the start, trainable or not."""

    def __init__(self, width: int, num_prototypes: int, trainable_gain: bool) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(num_prototypes, 1), requires_grad=trainable_gain)
        self.weight_v = nn.Parameter(torch.empty(num_prototypes, width))
        # the length of weight_v sets how fast the directions turn under Adam: that of torch's linear layers
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5))

    def forward(self) -> Tensor:
        """Return the prototypes (K, E), float32."""
        with torch.autocast(self.weight_v.device.type, enabled=False):
            return torch._weight_norm(self.weight_v, self.weight_g, 0)

    @torch.no_grad()
    def summed_logits(self, rows: Tensor) -> Tensor:
        """Return the sum (K,) of the logits of rows (T, E), float32: the logits of the summed rows."""
        with torch.autocast(rows.device.type, enabled=False):
            lengths = self.weight_g.squeeze(1) / torch.linalg.vector_norm(self.weight_v, dim=1)
            return torch.mv(self.weight_v, rows.sum(0)) * lengths


@torch.no_grad()
def rounded_prototypes(directions: Tensor, lengths: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the prototypes (K, E) in the precision of matrix products. directions: (K, E), lengths: (K, 1)."""
    rounded = directions.new_empty(directions.shape, dtype=dtype)
    for part in slices(len(directions), PART_ELEMENTS, directions.shape[1]):
        rounded[part] = torch._weight_norm(directions[part], lengths[part], 0)
    return rounded


@torch.no_grad()
def to_directions_(gradient: Tensor, directions: Tensor, lengths: Tensor) -> Tensor:
    """Turn the gradient (K, E) of prototypes into that of their directions, in place; return that of their lengths."""
    to_lengths = torch.empty_like(lengths)
    for part in slices(len(directions), PART_ELEMENTS, directions.shape[1]):
        own, norms = gradient[part], torch.linalg.vector_norm(directions[part], dim=1, keepdim=True)
        units = directions[part] / norms
        along = torch.linalg.vecdot(own, units).unsqueeze(1)
        to_lengths[part] = along
        own.sub_(units.mul_(along)).mul_(lengths[part] / norms)
    return to_lengths


def slices(num_rows: int, elements: int, width: int, start: int = 0) -> Iterator[slice]:
    """Yield rows ``start`` to ``num_rows`` in pieces of at most ``elements``, ``width`` a row; at least one."""
    size = max(elements // width, 1)
    for first in range(start, num_rows, size):
        yield slice(first, min(first + size, num_rows))
