"""MultiResUNet, a baseline of the paper: a U-Net of blocks that see several scales at once [1].

[1] Ibtehaz and Rahman, MultiResUNet, 2020. https://doi.org/10.1016/j.neunet.2019.08.025
"""

import torch
from torch import Tensor, nn

from fmseg.networks.segmenter import segmenters
from fmseg.networks.unet import padded
from fmseg.records.plans import Architecture
from fmseg.records.recipe import Recipe

#: a block is as wide as this many times the maps of a plain U-Net's stage, so that it has about its weights
WIDENING = 1.67
NUM_STAGES = 5


class MultiResBlock(nn.Module):
    """Three convolutions in a row, all of whose outputs are kept, beside a shortcut: 3x3, 5x5 and 7x7 pixels."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        widths = [max(1, int(WIDENING * features * share)) for share in (1 / 6, 1 / 3, 1 / 2)]
        self.outputs = sum(widths)
        self.steps = nn.ModuleList(
            _convolve(before, after) for before, after in zip([inputs, *widths], widths, strict=False)
        )
        self.shortcut = _convolve(inputs, self.outputs, kernel=1, is_active=False)
        self.joined = nn.BatchNorm2d(self.outputs)
        self.norm = nn.BatchNorm2d(self.outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, outputs, h, w). maps: (B, inputs, h, w)."""
        parts, last = [], maps
        for step in self.steps:
            last = step(last)
            parts.append(last)
        joined = self.joined(torch.cat(parts, dim=1))
        return self.norm(torch.relu(joined + self.shortcut(maps)))


class ResPath(nn.Module):
    """What an encoder's maps go through on their way to the decoder: fewer steps the deeper they come from."""

    def __init__(self, inputs: int, features: int, length: int) -> None:
        super().__init__()
        widths = [inputs] + [features] * (length - 1)
        self.steps = nn.ModuleList(_convolve(width, features) for width in widths)
        self.shortcuts = nn.ModuleList(_convolve(width, features, kernel=1, is_active=False) for width in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(features) for _ in widths)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, features, h, w)."""
        for step, shortcut, norm in zip(self.steps, self.shortcuts, self.norms, strict=True):
            maps = norm(torch.relu(step(maps) + shortcut(maps)))
        return maps


class MultiResUNet(nn.Module):
    """Five stages, of ``features`` maps at full resolution and twice as many each further down."""

    def __init__(self, channels: int, num_outputs: int, features: int) -> None:
        super().__init__()
        widths = [features * 2**stage for stage in range(NUM_STAGES)]
        down, inputs = [], channels
        for width in widths:
            down.append(MultiResBlock(inputs, width))
            inputs = down[-1].outputs
        self.down = nn.ModuleList(down)
        paths = zip(down[:-1], widths[:-1], range(NUM_STAGES - 1, 0, -1), strict=True)
        self.paths = nn.ModuleList(ResPath(block.outputs, width, length) for block, width, length in paths)
        enlarge, up = [], []
        for width in reversed(widths[:-1]):
            enlarge.append(nn.ConvTranspose2d(inputs, width, 2, stride=2))
            up.append(MultiResBlock(2 * width, width))
            inputs = up[-1].outputs
        self.enlarge, self.up = nn.ModuleList(enlarge), nn.ModuleList(up)
        self.pool = nn.MaxPool2d(2)
        self.classify = nn.Conv2d(inputs, num_outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, K, H, W), float32 under autocast too. image: (B, C, H, W), normalised, any size."""
        total = 2 ** (NUM_STAGES - 1)
        maps, kept = padded(image, (total, total)), []
        for stage, block in enumerate(self.down):
            maps = block(maps if stage == 0 else self.pool(maps))
            kept.append(maps)
        for path, enlarge, block, skipped in zip(
            reversed(self.paths), self.enlarge, self.up, reversed(kept[:-1]), strict=True
        ):
            maps = block(torch.cat([enlarge(maps), path(skipped)], dim=1))
        return self.classify(maps)[..., : image.shape[-2], : image.shape[-1]].float()


def _convolve(inputs: int, outputs: int, *, kernel: int = 3, is_active: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if is_active else []))


def build_multiresunet(recipe: Recipe, architecture: Architecture, num_outputs: int) -> MultiResUNet:
    """Build the network of a recipe with random weights: a function of torch's seed alone."""
    return MultiResUNet(architecture.channels, num_outputs, recipe.decoder_channels)


segmenters.add("multiresunet", build_multiresunet)
