"""UperNet: a feature pyramid with pooled context, for the maps of a plain ViT [1].

The four taps of a ViT have one resolution; deconvolutions and a max-pool spread them over four, as in the
segmentation networks of iBOT and UltraDINO. The deepest level is pooled to 1, 2, 3 and 6 cells a side for
context, sums run down the pyramid to the finest level, and one convolution fuses all levels there.

It differs from these networks in two points:
- Each tap is narrowed to ``width`` by its lateral 1x1 convolution *before* it is scaled, not after. Fusing
  four levels at a quarter of the patch size costs 36 width^2 multiplications a pixel, and at the width of a
  ViT-S this head is 88 % of a training step. Whatever runs on large maps therefore runs at ``width``.
- There is no normalisation at all (UltraDINO has it in one branch). A batch of few images is too little for
  BatchNorm, and the features come out of a LayerNorm. Found by trial, on made images with a small ViT from
  scratch and 300 steps: with LayerNorm after each convolution the Dice of the training images took three times
  the steps and that of others was no better; with GroupNorm nothing but background was learned. Instead, the
  weights start such that each layer hands on the scale it is given.
[1] Xiao et al., Unified Perceptual Parsing, 2018. https://arxiv.org/abs/1807.10221
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmseg.networks.decoders import decoders, output_layer

# B batch, D channels of a tap, w width of the decoder, h w patches

POOL_CELLS = (1, 2, 3, 6)
DROPOUT = 0.1


class UperNet(nn.Module):
    """A decoder for four taps of one stride; its logits have a quarter of that stride."""

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, num_outputs: int, width: int) -> None:
        super().__init__()
        if len(channels) != 4 or len(set(strides)) != 1:
            raise ValueError(f"UperNet is for four taps of one stride, not for channels {channels}, strides {strides}.")
        self.laterals = nn.ModuleList(_convolve(inputs, width, kernel=1) for inputs in channels)
        self.scalings = nn.ModuleList(
            [
                nn.Sequential(_enlarge(width), _enlarge(width)),  # x4
                _enlarge(width),  # x2
                nn.Identity(),
                nn.MaxPool2d(2, ceil_mode=True),  # x1/2; one patch stays one
            ]
        )
        self.context = PooledContext(width)
        self.smooth = nn.ModuleList(_convolve(width, width, kernel=3) for _ in range(3))
        self.fuse = _convolve(4 * width, width, kernel=3)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classify = output_layer(width, num_outputs)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits (B, K, 4h, 4w) for four (B, D, h, w) maps."""
        parts = zip(self.laterals, self.scalings, features, strict=True)
        levels = [scale(lateral(feature)) for lateral, scale, feature in parts]  # 4h, 2h, h, h/2
        levels[3] = self.context(levels[3])
        for index in (2, 1, 0):
            levels[index] = levels[index] + _resize(levels[index + 1], levels[index].shape)
        levels[:3] = [smooth(level) for smooth, level in zip(self.smooth, levels[:3], strict=True)]
        fused = self.fuse(torch.cat([_resize(level, levels[0].shape) for level in levels], dim=1))
        return self.classify(self.dropout(fused))


class PooledContext(nn.Module):
    """Means over 1, 2, 3 and 6 cells a side, put back beside the map that they summarise (PPM)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_convolve(width, width, kernel=1) for _ in POOL_CELLS)
        self.merge = _convolve((1 + len(POOL_CELLS)) * width, width, kernel=3)

    def forward(self, level: Tensor) -> Tensor:
        """Return a map of the same shape as ``level``."""
        pooled = [branch(pool(level, cells)) for branch, cells in zip(self.branches, POOL_CELLS, strict=True)]
        return self.merge(torch.cat([level, *(_resize(cell_map, level.shape) for cell_map in pooled)], dim=1))


def pool(level: Tensor, cells: int) -> Tensor:
    """Return the mean of each of cells x cells cells: (B, w, h, w) -> (B, w, cells, cells).

    The cells are those of ``adaptive_avg_pool2d``, which may overlap, so that any grid will do. As two matrix
    products it has a gradient that is the same in every run on CUDA, which torch's has not.
    """
    rows, columns = (_members(size, cells, level) for size in level.shape[-2:])
    sums = rows @ level @ columns.T
    return sums / (rows.sum(1)[:, None] * columns.sum(1))


def _members(size: int, cells: int, like: Tensor) -> Tensor:
    """Return (cells, size): 1 where a row of pixels belongs to a cell."""
    position = torch.arange(size, device=like.device)
    cell = torch.arange(cells, device=like.device)[:, None]
    inside = (position >= cell * size // cells) & (position * cells < (cell + 1) * size)
    return inside.to(like.dtype)


def _convolve(inputs: int, outputs: int, *, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    nn.init.zeros_(convolution.get_parameter("bias"))
    return nn.Sequential(convolution, nn.ReLU())


def _enlarge(width: int) -> nn.Sequential:
    deconvolution = nn.ConvTranspose2d(width, width, 2, stride=2)
    # the 2x2 outputs of a pixel do not overlap, so each is a sum over ``width``; torch counts four times as many,
    # and the finest level would start with a tenth of the scale of the others
    nn.init.normal_(deconvolution.weight, std=math.sqrt(2 / width))
    nn.init.zeros_(deconvolution.get_parameter("bias"))
    return nn.Sequential(deconvolution, nn.GELU())


def _resize(level: Tensor, shape: Sequence[int]) -> Tensor:
    if level.shape[-2:] == torch.Size(shape[-2:]):
        return level
    return F.interpolate(level, size=tuple(shape[-2:]), mode="bilinear", align_corners=False)


decoders.add("upernet", UperNet)
