"""Backbone + head: an image in, one logit per class out.

The head sees the class token and the mean patch token, as in DINOv2's linear evaluation [1], of the last block or of
the last few.
[1] Oquab et al., DINOv2, 2023. https://arxiv.org/abs/2304.07193
"""

from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmseg.networks.segmenter import NetworkFactory
from fmseg.networks.vit import ViT
from fmseg.records.plans import Architecture
from fmseg.records.recipe import Recipe
from fmseg.registry import Registry

# B batch, C channels, D width, F features, K classes, N patches, P prefix tokens


class HeadFactory(Protocol):
    """A class or function that builds a head: features (B, F) in, logits (B, K) out.

    One with a true attribute ``sees_tokens`` gets all tokens (B, P + N, D) of the last block instead.
    """

    def __call__(self, inputs: int, num_outputs: int, *, dropout: float) -> nn.Module:
        """Build a head for F features, or tokens of width D.

        dropout: share of the features that it does not see in a training step.
        """


heads: Registry[HeadFactory] = Registry("head")
#: networks that answer with logits (B, K)
classifiers: Registry[NetworkFactory] = Registry("classification network")


class ClassHead(nn.Module):
    """A linear layer, which starts near even odds."""

    def __init__(self, inputs: int, num_outputs: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(inputs, num_outputs)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K). features: (B, F)."""
        return self.classify(self.dropout(features))


heads.add("class_head", ClassHead)


class Classifier(nn.Module):
    """A classification network. With ``freeze_backbone`` only the head learns."""

    def __init__(self, vit: ViT, head: nn.Module, *, num_blocks: int, freeze_backbone: bool = False) -> None:
        super().__init__()
        # nothing is masked here, and a parameter without gradient would stall training on several devices
        vit.mask_token.requires_grad_(False)
        self.vit = vit
        self.head = head
        self.num_blocks = num_blocks
        self.sees_tokens = getattr(head, "sees_tokens", False)
        self.freeze_backbone = freeze_backbone
        if freeze_backbone:
            vit.requires_grad_(False)
        self.train()

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, K), float32 under autocast too. image: (B, C, H, W), normalised, any size."""
        return self.head(self.tokens(image) if self.sees_tokens else self.features(image)).float()

    def tokens(self, image: Tensor) -> Tensor:
        """Return all tokens (B, P + N, D) of the last block."""
        return self.vit(self._whole_patches(image))

    def features(self, image: Tensor) -> Tensor:
        """Return (B, F), F = 2 D per block: class token, then mean patch, of the last blocks in order."""
        vit, depth = self.vit, self.vit.architecture.depth
        # a ViT of fewer blocks gives its first one several times
        blocks = [max(0, depth - self.num_blocks + index) for index in range(self.num_blocks)]
        parts = []
        for tokens in vit.forward_blocks(self._whole_patches(image), blocks):  # (B, P + N, D)
            parts += [vit.summary(tokens), tokens[:, vit.num_prefix_tokens :].mean(dim=1)]
        return torch.cat(parts, dim=1)

    def _whole_patches(self, image: Tensor) -> Tensor:
        patch = self.vit.architecture.patch_size
        return F.pad(image, (0, -image.shape[-1] % patch, 0, -image.shape[-2] % patch))

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; a frozen backbone stays in evaluation, without drop path."""
        super().train(mode)
        if self.freeze_backbone:
            self.vit.eval()
        return self


def build_classifier(recipe: Recipe, architecture: Architecture, num_outputs: int) -> Classifier:
    """Build the network of a recipe with random weights: a function of torch's seed alone.

    Raises UnknownName for an unregistered head.
    """
    vit = ViT(architecture, drop_path=recipe.drop_path, drop_path_schedule="linear")
    build = heads[recipe.decoder]
    sees_tokens = getattr(build, "sees_tokens", False)
    inputs = architecture.width if sees_tokens else 2 * architecture.width * recipe.head_blocks
    head = build(inputs, num_outputs, dropout=recipe.head_dropout)
    return Classifier(vit, head, num_blocks=recipe.head_blocks, freeze_backbone=recipe.freeze_backbone)


classifiers.add("vit", build_classifier)
