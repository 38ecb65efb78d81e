"""The task of classification: a network, and cross-entropy with weights for rare classes.

The loss is a mean over the images, each on its own, so that a batch split over two devices has the loss, and the
gradient, that it has on one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmseg.records.labels import ClassScheme
from fmseg.tasks.averaged import AveragedTask

# B batch, K classes


class ClassificationTask(AveragedTask[nn.Module]):
    """Learns classes of whole images.

    class_weights: factor on the loss of each class (of its presence, where classes do not exclude each other); empty
    for 1. label_smoothing: share of an exclusive target that is spread over all classes.
    """

    weights: Tensor

    def __init__(
        self,
        network: nn.Module,
        scheme: ClassScheme,
        *,
        class_weights: Sequence[float],
        label_smoothing: float,
        ema_decay: float,
    ) -> None:
        super().__init__(network, ema_decay=ema_decay)
        self.is_exclusive = scheme.is_exclusive
        self.label_smoothing = label_smoothing
        weights = torch.tensor(class_weights or [1.0] * scheme.num_outputs, dtype=torch.float32)
        # a constant that follows the module to its device, but is no state
        self.register_buffer("weights", weights, persistent=False)

    def training_loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and ``accuracy`` (of the decided classes), detached and 0-d.

        batch: "image" (B, C, H, W) float32, normalised; "target" (B, K) float32, the share of each class.
        """
        del step  # the loss is the same throughout
        logits, target = self.model(batch["image"]), batch["target"]
        if not self.is_exclusive:
            loss = F.binary_cross_entropy_with_logits(logits, target, pos_weight=self.weights)
            right = ((logits > 0) == (target > 0.5)).float()
            return loss, {"accuracy": right.mean().detach()}
        # as products, since nll_loss is not deterministic on CUDA; smoothed before it is weighted, as in torch
        smooth = (1 - self.label_smoothing) * target + self.label_smoothing / target.shape[1]
        loss = -(logits.log_softmax(1) * self.weights * smooth).sum(1).mean()
        right = (logits.argmax(1) == target.argmax(1)).float()
        return loss, {"accuracy": right.mean().detach()}
