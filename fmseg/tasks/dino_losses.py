"""The losses of DINOv2: cross-entropy over the prototypes, and KoLeo.

A (tokens x prototypes) tensor is by far the largest thing of a step: 2 GB in float32 for a batch of 128 and 65536
prototypes, and a plain cross-entropy holds half a dozen. Here loss and gradient are computed together, some rows
at a time, in the forward pass; what is kept for the backward pass has the size of the inputs.

Legend: T tokens (rows), K prototypes, E width of the head's output, D width of the backbone.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fmseg.networks.lean import matmul_dtype
from fmseg.tasks.dino_prototypes import PART_ELEMENTS, Prototypes, rounded_prototypes, slices, to_directions_
from fmseg.tasks.dino_targets import BLOCK_ELEMENTS, CHUNK_ELEMENTS, Targets


def prototype_cross_entropy(
    rows: Tensor, prototypes: Prototypes, targets: Targets, row_weights: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of -sum(target * log softmax(logits / temperature)), and each row's value.

    rows: (T, E) float32, row_weights: (T,), none negative. The sum carries gradients to rows and prototypes; the
    values per row, (T,), unweighted, do not.
    """
    return _CrossEntropy.apply(rows, prototypes.weight_v, prototypes.weight_g, row_weights, targets, temperature)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        directions: Tensor,
        lengths: Tensor,
        row_weights: Tensor,
        targets: Targets,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        dtype, device, num_prototypes = matmul_dtype(rows), rows.device.type, len(directions)
        scaled, matrix = (rows / temperature).to(dtype), rounded_prototypes(directions, lengths, dtype)
        # weights below 1 / (tokens of a batch) would vanish in float16
        peak = row_weights.amax().clamp(min=1e-30) if len(rows) else row_weights.new_ones(())
        weighted = scaled * (row_weights / peak).to(dtype)[:, None]
        values, grad_rows = rows.new_empty(len(rows)), torch.empty_like(rows)
        grad_prototypes = torch.zeros_like(directions)
        for chunk in slices(len(rows), CHUNK_ELEMENTS.get(device, 2**24), num_prototypes):
            logits = F.linear(scaled[chunk], matrix)  # (n, K)
            for part in slices(chunk.stop, BLOCK_ELEMENTS.get(device, 2**24), num_prototypes, chunk.start):
                block = logits[part.start - chunk.start : part.stop - chunk.start]
                values[part] = _to_gradient_(block, targets(part))
            grad_rows[chunk] = logits @ matrix
            _add_product_(grad_prototypes, logits.T, weighted[chunk])
        grad_rows.mul_((row_weights / temperature)[:, None])
        ctx.save_for_backward(grad_rows, grad_prototypes, directions, lengths, peak)
        ctx.mark_non_differentiable(values)
        return torch.dot(values, row_weights), values

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_rows, gradient, directions, lengths, peak = ctx.saved_tensors
        # in place: a second backward pass would be refused by autograd, which sees that saved tensors have changed
        to_lengths = to_directions_(gradient.mul_(peak * grad_loss), directions, lengths)
        return grad_rows * grad_loss, gradient, to_lengths, None, None, None


def _add_product_(total: Tensor, one: Tensor, other: Tensor) -> None:
    """Add one (K, T) times other (T, E) to a float32 total (K, E), in place."""
    if one.dtype == total.dtype:
        total.addmm_(one, other)
        return
    for part in slices(len(total), PART_ELEMENTS, total.shape[1]):
        total[part].add_(one[part] @ other)


def _to_gradient_(logits: Tensor, targets: Tensor) -> Tensor:
    """Turn logits (n, K) into softmax(logits) - targets, in place; return each row's cross-entropy (n,), float32."""
    own = logits if logits.dtype == torch.float32 else logits.float()
    own.sub_(own.amax(-1, keepdim=True))
    with torch.autocast(own.device.type, enabled=False):  # which would round both, and its result
        agreement = torch.linalg.vecdot(targets, own)
    total = own.exp_().sum(-1, keepdim=True)
    gradient = own.div_(total).sub_(targets)
    if gradient is not logits:
        logits.copy_(gradient)
    return total.squeeze(-1).log_().sub_(agreement)


def koleo(features: Tensor) -> Tensor:
    """Return minus the mean log distance to the nearest other row, on the unit sphere; 0 for a single row.

    features: (B, D). In float32: two equal rows would give infinity in float16.
    """
    with torch.autocast(features.device.type, enabled=False):
        points = F.normalize(features.float(), dim=-1, eps=1e-8)
        if len(points) < 2:
            return points.sum() * 0
        with torch.no_grad():
            nearest = (points @ points.T).fill_diagonal_(-2).argmax(1)
        distance = F.pairwise_distance(points, points[nearest], eps=1e-8)
        return -torch.log(distance + 1e-8).mean()
