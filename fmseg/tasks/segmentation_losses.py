"""What segmentation networks are trained to lower: cross-entropy and soft Dice, in float32.

Both are taken over the pixels of the whole batch, on all ranks together, so that a batch split over two devices
has the loss, and the gradient, that it has on one. Dice is nnU-Net's for 2D: one overlap per class and batch,
without the background, smoothed by 1e-5. MONAI's gives the same number, but cannot sum over ranks.

A loss is built from a ``LabelScheme``; it maps logits (B, K, H, W) and labels (B, H, W) to a number and the
values that are logged.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from fmseg.imaging.decode import targets_from_labels
from fmseg.networks.ranks import are_ranks_together
from fmseg.records.labels import LabelScheme
from fmseg.registry import Registry

# B batch, K outputs, H W pixels

SMOOTH = 1e-5

losses: Registry[Callable[[LabelScheme], nn.Module]] = Registry("loss")


class SegmentationLoss(nn.Module):
    """Cross-entropy (softmax for classes, sigmoid for regions) plus ``dice_weight`` times soft Dice.

    Pixels to be ignored count nowhere, and have no gradient.
    """

    membership: Tensor
    counts: Tensor

    def __init__(self, scheme: LabelScheme, *, dice_weight: float) -> None:
        super().__init__()
        self.has_regions = scheme.has_regions
        self.dice_weight = dice_weight
        values = np.arange(max(scheme.declared) + 1)
        membership = torch.from_numpy(targets_from_labels(values, scheme)).float()  # (K, values)
        # constants that follow the module to its device, but are no state
        self.register_buffer("membership", membership, persistent=False)
        counts = torch.from_numpy(values != scheme.ignore).float()[None]  # (1, values)
        self.register_buffer("counts", counts, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and ``ce``, ``dice_loss``, ``dice`` (of the decided labels), 0-d and detached.

        logits: (B, K, H, W) of any float type. labels: (B, H, W) int64, declared values only.
        """
        logits = logits.float()
        targets = _look_up(self.membership, labels)  # (B, K, H, W)
        valid = _look_up(self.counts, labels)  # (B, 1, H, W)
        if self.has_regions:
            entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1, keepdim=True)
            probabilities, decided = logits.sigmoid(), (logits > 0).float()
        else:
            log_probabilities = logits.log_softmax(1)
            # as a product, since nll_loss is not deterministic on CUDA
            entropy = -(log_probabilities * targets).sum(1, keepdim=True)
            probabilities, decided = log_probabilities.exp(), _decide(logits)
        sums = _sum_over_ranks(
            torch.stack([(entropy * valid).sum(), valid.sum()]),
            _overlaps(probabilities * valid, targets),
            _overlaps(decided * valid, targets),
        )
        (entropy_sum, num_valid), soft, hard = sums
        ce = entropy_sum / num_valid.clamp(min=1)
        dice_loss = 1 - self._foreground((2 * soft[0] + SMOOTH) / (soft[1] + soft[2] + SMOOTH)).mean()
        loss = ce + self.dice_weight * dice_loss
        values = {"ce": ce, "dice_loss": dice_loss, "dice": _mean_dice(*self._foreground(hard))}
        return loss, {name: value.detach() for name, value in values.items()}

    def _foreground(self, per_output: Tensor) -> Tensor:
        """Return the entries of the last axis without that of the background."""
        return per_output if self.has_regions else per_output[..., 1:]


def _look_up(table: Tensor, labels: Tensor) -> Tensor:
    """Return the columns of a (K, values) table at (B, H, W) values: (B, K, H, W)."""
    # index_select is 17 times as fast as table[:, labels] on the CPU
    return table.index_select(1, labels.flatten()).unflatten(1, labels.shape).transpose(0, 1)


def _decide(logits: Tensor) -> Tensor:
    """Return 1 for the highest output of each pixel (for all that share that value), else 0: (B, K, H, W)."""
    # several times as fast as argmax over so few channels
    return (logits == logits.amax(1, keepdim=True)).float()


def _overlaps(prediction: Tensor, targets: Tensor) -> Tensor:
    """Return (3, K): pixels in both, in the prediction, in the targets; all over the batch."""
    return torch.stack([(prediction * targets).sum((0, 2, 3)), prediction.sum((0, 2, 3)), targets.sum((0, 2, 3))])


def _mean_dice(both: Tensor, predicted: Tensor, there: Tensor) -> Tensor:
    """Return the mean Dice over the outputs that occur; 1 where none does."""
    pixels = predicted + there
    occurs = (pixels > 0).float()
    total = (2 * both / pixels.clamp(min=1)).sum()
    return torch.where(occurs.sum() > 0, total / occurs.sum().clamp(min=1), 1.0)


def _sum_over_ranks(*parts: Tensor) -> list[Tensor]:
    """Return the parts summed over all ranks, with one exchange.

    Each rank sees the same loss of these sums; its own part gets the gradient times the number of ranks, since
    gradients are averaged over the ranks afterwards.
    """
    if not are_ranks_together():
        return list(parts)
    own = torch.cat([part.flatten() for part in parts])
    total = own.detach().clone()
    distributed.all_reduce(total)
    total = total + distributed.get_world_size() * (own - own.detach())
    pieces = total.split([part.numel() for part in parts])
    return [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)]


losses.add("ce_dice", lambda scheme: SegmentationLoss(scheme, dice_weight=1.0))
losses.add("ce", lambda scheme: SegmentationLoss(scheme, dice_weight=0.0))
