"""The task of segmentation: a network, its loss, and the average of its weights that is validated and kept."""

from copy import deepcopy
from typing import Self

import torch
from torch import Tensor, nn

from fmseg.networks.segmenter import Segmenter
from fmseg.records.labels import LabelScheme
from fmseg.tasks.segmentation_losses import losses


class SegmentationTask(nn.Module):
    """Trains ``model``; ``averaged`` is what is validated and saved. Its state dict is all there is to resume."""

    def __init__(self, segmenter: Segmenter, scheme: LabelScheme, *, loss_name: str, ema_decay: float) -> None:
        super().__init__()
        self.model = segmenter
        self.loss = losses[loss_name](scheme)
        self.ema_decay = ema_decay
        self.average = deepcopy(segmenter).requires_grad_(False).eval() if ema_decay > 0 else None

    @property
    def averaged(self) -> Segmenter:
        """The exponential moving average of the model, or the model itself where there is no averaging."""
        return self.model if self.average is None else self.average

    def training_loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and the values to log (``ce``, ``dice_loss``, ``dice``), detached and 0-d.

        batch: "image" (B, C, H, W) float32, normalised; "label" (B, H, W) int64.
        """
        del step  # the loss is the same throughout
        loss: Tensor
        loss, values = self.loss(self.model(batch["image"]), batch["label"])
        return loss, values

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the average towards the weights of ``step``, counted from 0; buffers are taken over.

        The decay grows from 0.1, so that the average forgets the random start within the first steps.
        """
        if self.average is None:
            return
        decay = min(self.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        buffers = list(self.model.buffers())
        if buffers:
            torch._foreach_copy_(list(self.average.buffers()), buffers)

    def clip_modules(self) -> list[nn.Module]:
        """Return the modules whose gradients are clipped, each by its own norm."""
        return [self.model]

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; the average is only ever evaluated."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self
