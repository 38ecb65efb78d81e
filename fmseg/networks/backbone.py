"""A ViT as a source of feature maps for decoders, for images of any size."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from fmseg.networks.vit import ViT

# B batch, C channels, D width, H W image pixels, h w patches


def tap_blocks(depth: int) -> tuple[int, ...]:
    """Return the four blocks, counted from 0, whose outputs a decoder sees.

    They lie at 1/3, 1/2, 2/3 and the end of the depth, which for 12 blocks are UltraDINO's 3, 5, 7, 11. A ViT
    of fewer than four blocks gives some of them twice.
    """
    return tuple(max(0, (depth * twelfths + 6) // 12 - 1) for twelfths in (4, 6, 8, 12))


class Backbone(nn.Module):
    """The outputs of some blocks of a ViT, each through the ViT's final norm, as maps of its patches."""

    def __init__(self, vit: ViT, taps: Sequence[int]) -> None:
        super().__init__()
        # nothing is masked here, and a parameter without gradient would stall training on several devices
        vit.mask_token.requires_grad_(False)
        self.vit = vit
        self.taps = tuple(taps)
        self.channels = (vit.architecture.width,) * len(self.taps)
        self.strides = (vit.architecture.patch_size,) * len(self.taps)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return one (B, D, h, w) map per tap, h = ceil(H / patch size), likewise w.

        image: (B, C, H, W), normalised, so that the zeros that fill up the last row and column of patches are
        the mean intensity. The maps cover the filled-up image.
        """
        patch = self.vit.architecture.patch_size
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % patch, 0, -height % patch))
        return self.vit.forward_taps(image, self.taps)
