"""The task of segmentation: a network and its loss."""

from torch import Tensor

from fmseg.networks.segmenter import Segmenter
from fmseg.records.labels import LabelScheme
from fmseg.tasks.averaged import AveragedTask
from fmseg.tasks.segmentation_losses import losses


class SegmentationTask(AveragedTask[Segmenter]):
    """Learns label maps."""

    def __init__(self, segmenter: Segmenter, scheme: LabelScheme, *, loss_name: str, ema_decay: float) -> None:
        super().__init__(segmenter, ema_decay=ema_decay)
        self.loss = losses[loss_name](scheme)

    def training_loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and the values to log (``ce``, ``dice_loss``, ``dice``), detached and 0-d.

        batch: "image" (B, C, H, W) float32, normalised; "label" (B, H, W) int64.
        """
        del step  # the loss is the same throughout
        loss: Tensor
        loss, values = self.loss(self.model(batch["image"]), batch["label"])
        return loss, values
