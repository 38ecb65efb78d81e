"""The U-Net of nnU-Net, as MONAI's DynUNet: the baseline that a foundation model has to beat [1].

Logits at several resolutions are compared with the label map, so that the deep stages learn from the first step on.
[1] Isensee et al., nnU-Net, 2021. https://doi.org/10.1038/s41592-020-01008-z
"""

from itertools import accumulate
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from fmseg.networks.segmenter import segmenters
from fmseg.records.plans import Architecture
from fmseg.records.recipe import Recipe, UNetShape

if TYPE_CHECKING:
    from monai.networks.nets import DynUNet

# B batch, C channels, K outputs, H W pixels

Pair = tuple[int, int]


class UNet(nn.Module):
    """A U-Net whose shape is planned; for images of any size."""

    def __init__(self, shape: UNetShape, channels: int, num_outputs: int) -> None:
        super().__init__()
        #: share of the loss of each map of ``scales``
        self.supervision = shape.supervision
        #: pixels of the image that a pixel of each map stands for
        totals: list[Pair] = list(accumulate(shape.strides, lambda one, other: (one[0] * other[0], one[1] * other[1])))
        self.strides = totals[: len(shape.supervision)]
        self.total_stride = totals[-1]
        net = _dynunet(shape, channels, num_outputs)
        # the blocks alone: DynUNet holds each of them twice, and its logits in between from one image to the next
        self.down = nn.ModuleList([net.input_block, *net.downsamples, net.bottleneck])
        self.up = net.upsamples
        self.classify = nn.ModuleList([net.output_block, *net.deep_supervision_heads][: len(shape.supervision)])

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, K, H, W), float32 under autocast too. image: (B, C, H, W), normalised, any size."""
        return self.scales(image, 1)[0]

    def scales(self, image: Tensor, count: int | None = None) -> list[Tensor]:
        """Return logits (B, K, ceil(H / stride), ceil(W / stride)) for the first ``count`` of ``strides``, float32."""
        height, width = image.shape[-2:]
        maps, kept = padded(image, self.total_stride), []
        for block in self.down:
            maps = block(maps)
            kept.append(maps)
        maps, levels = kept.pop(), []
        for block, skipped in zip(self.up, reversed(kept), strict=True):
            maps = block(maps, skipped)
            levels.append(maps)
        found = []
        for classify, level, (rows, columns) in zip(self.classify, reversed(levels), self.strides, strict=False):
            found.append(classify(level)[..., : -(-height // rows), : -(-width // columns)].float())
            if len(found) == count:
                break
        return found


def _dynunet(shape: UNetShape, channels: int, num_outputs: int) -> "DynUNet":
    from monai.networks.nets import DynUNet

    return DynUNet(
        spatial_dims=2,
        in_channels=channels,
        out_channels=num_outputs,
        kernel_size=shape.kernels,
        strides=shape.strides,
        upsample_kernel_size=shape.strides[1:],
        filters=shape.features,
        deep_supervision=True,
        deep_supr_num=max(1, len(shape.supervision) - 1),
        trans_bias=True,
    )


def padded(image: Tensor, stride: Pair) -> Tensor:
    """Return an image with rows and columns of mean intensity after it, at least two deepest pixels a side."""
    needed = [max(2 * step, side + -side % step) for side, step in zip(image.shape[-2:], stride, strict=True)]
    return F.pad(image, (0, needed[1] - image.shape[-1], 0, needed[0] - image.shape[-2]))


def build_unet(recipe: Recipe, architecture: Architecture, num_outputs: int) -> UNet:
    """Build the U-Net of a recipe with random weights: a function of torch's seed alone."""
    assert recipe.unet is not None, "a U-Net without a shape"
    return UNet(recipe.unet, architecture.channels, num_outputs)


segmenters.add("unet", build_unet)
