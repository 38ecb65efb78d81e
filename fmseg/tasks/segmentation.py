"""The task of segmentation: a network and its loss."""

from torch import Tensor, nn

from fmseg.networks.unet import UNet
from fmseg.records.labels import LabelScheme
from fmseg.tasks.averaged import AveragedTask
from fmseg.tasks.segmentation_losses import losses


class SegmentationTask(AveragedTask[nn.Module]):
    """Learns label maps."""

    def __init__(self, network: nn.Module, scheme: LabelScheme, *, loss_name: str, ema_decay: float) -> None:
        super().__init__(network, ema_decay=ema_decay)
        self.loss = losses[loss_name](scheme)

    def training_loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and the values to log (``ce``, ``dice_loss``, ``dice``), detached and 0-d.

        batch: "image" (B, C, H, W) float32, normalised; "label" (B, H, W) int64. The values are those at full
        resolution, the loss is the sum over all that the network learns at.
        """
        del step  # the loss is the same throughout
        image, label = batch["image"], batch["label"]
        if not isinstance(self.model, UNet):
            loss, values = self.loss(self.model(image), label)
            return loss, values
        parts = zip(self.model.scales(image), self.model.strides, strict=True)
        # every stride-th pixel: classes have no means
        found = [self.loss(logits, label[:, ::rows, ::columns]) for logits, (rows, columns) in parts]
        total = sum(share * loss for share, (loss, _) in zip(self.model.supervision, found, strict=True))
        return total, found[0][1]
