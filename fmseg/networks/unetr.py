"""UNETR, a baseline of the paper: a ViT of twelve blocks as the encoder of a U-Net, as MONAI has it [1].

[1] Hatamizadeh et al., UNETR, 2022. https://arxiv.org/abs/2103.10504
"""

from torch import Tensor, nn
from torch.nn import functional as F

from fmseg.networks.segmenter import segmenters
from fmseg.records.plans import Architecture
from fmseg.records.recipe import Recipe

PATCH = 16


class Unetr(nn.Module):
    """UNETR for images of one size, filled up to whole patches.

    Its ViT is as wide as the planned one: the paper's is a ViT-B, which a small machine cannot train.
    """

    def __init__(self, architecture: Architecture, size: tuple[int, int], num_outputs: int, features: int) -> None:
        from monai.networks.nets import UNETR

        super().__init__()
        self.size = size
        self.filling = (0, -size[1] % PATCH, 0, -size[0] % PATCH)
        self.net = UNETR(
            in_channels=architecture.channels,
            out_channels=num_outputs,
            img_size=(size[0] + self.filling[3], size[1] + self.filling[1]),
            feature_size=features,
            hidden_size=architecture.width,
            mlp_dim=round(architecture.mlp_ratio * architecture.width),
            num_heads=architecture.num_heads,
            spatial_dims=2,
            qkv_bias=True,
        )
        # MONAI's blocks bring layers for cross-attention along, which nothing here uses
        for name, parameter in self.net.named_parameters():
            if "cross_attn" in name:
                parameter.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, K, H, W), float32 under autocast too. image: (B, C, H, W) of ``size``, normalised."""
        if tuple(image.shape[-2:]) != self.size:
            raise ValueError(f"UNETR was built for images of {self.size}, not of {tuple(image.shape[-2:])}.")
        logits: Tensor = self.net(F.pad(image, self.filling))
        return logits[..., : self.size[0], : self.size[1]].float()


def build_unetr(recipe: Recipe, architecture: Architecture, num_outputs: int) -> Unetr:
    """Build the network of a recipe with random weights: a function of torch's seed alone."""
    return Unetr(architecture, recipe.input_size, num_outputs, recipe.decoder_channels)


segmenters.add("unetr", build_unetr)
