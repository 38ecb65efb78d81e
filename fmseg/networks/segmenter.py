"""Backbone + decoder: an image in, logits of its size out."""

from typing import Protocol, Self

from torch import Tensor, nn
from torch.nn import functional as F

from fmseg.networks.backbone import Backbone, tap_blocks
from fmseg.networks.decoders import decoders
from fmseg.networks.vit import ViT
from fmseg.records.plans import Architecture
from fmseg.records.recipe import Recipe
from fmseg.registry import Registry


class NetworkFactory(Protocol):
    """A function that builds a whole network, with random weights that are a function of torch's seed alone.

    It maps normalised images (B, C, H, W) of ``recipe.input_size`` to logits, float32 under autocast too. A
    segmentation network that learns at several resolutions has ``scales`` besides, as ``UNet`` has.
    """

    def __call__(self, recipe: Recipe, architecture: Architecture, num_outputs: int) -> nn.Module:
        """Build a network. architecture: planned for the backbone; its channels are those of the images."""


#: networks that answer with logits (B, K, H, W)
segmenters: Registry[NetworkFactory] = Registry("segmentation network")


class Segmenter(nn.Module):
    """A segmentation network. With ``freeze_backbone`` only the decoder learns."""

    def __init__(self, backbone: Backbone, decoder: nn.Module, *, freeze_backbone: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.freeze_backbone = freeze_backbone
        if freeze_backbone:
            backbone.requires_grad_(False)
        self.train()

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, K, H, W), float32 under autocast too. image: (B, C, H, W), normalised, any size."""
        features = self.backbone(image)
        patch, (rows, columns) = self.backbone.strides[0], features[0].shape[-2:]
        # in float32 before they are scaled up: half precision would show as steps along the outlines
        logits = self.decoder(features).float()
        padded = (rows * patch, columns * patch)
        logits = F.interpolate(logits, size=padded, mode="bilinear", align_corners=False)
        return logits[..., : image.shape[-2], : image.shape[-1]]

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; a frozen backbone stays in evaluation, without drop path."""
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self


def build_segmenter(recipe: Recipe, architecture: Architecture, num_outputs: int) -> Segmenter:
    """Build the network of a recipe with random weights: a function of torch's seed alone.

    Raises UnknownName for an unregistered decoder.
    """
    vit = ViT(architecture, drop_path=recipe.drop_path, drop_path_schedule="linear")
    backbone = Backbone(vit, tap_blocks(architecture.depth))
    build_decoder = decoders[recipe.decoder]
    decoder = build_decoder(backbone.channels, backbone.strides, num_outputs=num_outputs, width=recipe.decoder_channels)
    return Segmenter(backbone, decoder, freeze_backbone=recipe.freeze_backbone)


segmenters.add("vit", build_segmenter)
