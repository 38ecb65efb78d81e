"""What all finetunings share: a network, and the average of its weights that is validated and kept."""

from abc import ABC, abstractmethod
from copy import deepcopy
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class AveragedTask(nn.Module, ABC, Generic[M]):
    """Trains ``model``; ``averaged`` is what is validated and saved. Its state dict is all there is to resume."""

    def __init__(self, model: M, *, ema_decay: float) -> None:
        super().__init__()
        self.model = model
        self.ema_decay = ema_decay
        self.average = deepcopy(model).requires_grad_(False).eval() if ema_decay > 0 else None

    @property
    def averaged(self) -> M:
        """The exponential moving average of the model, or the model itself where there is no averaging."""
        return self.model if self.average is None else self.average

    @abstractmethod
    def training_loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss of a batch, and detached 0-d tensors to log."""

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
