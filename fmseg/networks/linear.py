"""The linear decoder: a normalisation and one 1x1 convolution, as in DINOv2's segmentation benchmark [1].

It shows what the features of a frozen backbone hold by themselves, and trains in minutes.
[1] Oquab et al., DINOv2, 2023. https://arxiv.org/abs/2304.07193
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmseg.networks.decoders import decoders, output_layer


class Linear(nn.Module):
    """Batch normalisation and a 1x1 convolution on all taps.

    All taps instead of the last alone: outlines are clearer in the middle of a ViT than at its end, and the
    backbone computes them anyway.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, num_outputs: int, width: int) -> None:
        super().__init__()
        del strides, width  # one convolution has no feature maps of its own
        self.norm = nn.BatchNorm2d(sum(channels))
        self.classify = output_layer(sum(channels), num_outputs)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits (B, K, h, w) on the grid of the first tap."""
        grid = tuple(features[0].shape[-2:])
        scaled = [F.interpolate(feature, size=grid, mode="bilinear", align_corners=False) for feature in features]
        return self.classify(self._normalise(torch.cat(scaled, dim=1)))

    def _normalise(self, features: Tensor) -> Tensor:
        if self.norm.training and features.numel() == features.shape[1]:
            # one token has no variance: a batch of one image of one patch goes by the statistics so far
            norm = self.norm
            return F.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return self.norm(features)


decoders.add("linear", Linear)
