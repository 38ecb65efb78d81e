"""The projection head of DINOv2: tokens -> points on the unit sphere -> similarity to the prototypes.

Parameter names are DINOv2's. The prototypes stand in ``dino_prototypes.py``.

``PixelHead`` is not DINOv2's: it guesses what masked patches look like, as masked autoencoders do.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmseg.records.plans import Architecture
from fmseg.tasks.dino_prototypes import Prototypes

#: cells a side whose mean grey values are guessed: finer ones would be speckle, which nobody can guess
CELLS = 4


class ProjectionHead(nn.Module):
    """A 3-layer MLP and prototypes, called on CLS and masked patch tokens alone."""

    def __init__(self, width: int, hidden: int, bottleneck: int, *, num_prototypes: int, trainable_gain: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = Prototypes(bottleneck, num_prototypes, trainable_gain)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the unit vectors (T, bottleneck), float32, of tokens (T, D)."""
        hidden = self.mlp(tokens)
        eps = 1e-6 if hidden.dtype == torch.float16 else 1e-12
        with torch.autocast(hidden.device.type, enabled=False):
            return F.normalize(hidden.float(), dim=-1, eps=eps)

    def logits(self, tokens: Tensor) -> Tensor:
        """Return the similarity (T, K) of tokens (T, D) to every prototype."""
        return F.linear(self(tokens), self.last_layer())


class PixelHead(nn.Module):
    """A linear guess of the mean values in ``CELLS`` x ``CELLS`` cells of a patch, from its token."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.patch_size = architecture.patch_size
        self.guess = nn.Linear(architecture.width, architecture.channels * CELLS**2)
        nn.init.trunc_normal_(self.guess.weight, std=0.02)
        nn.init.zeros_(self.guess.bias)

    def loss(self, tokens: Tensor, images: Tensor, masked: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted mean of the squared errors, 0-d.

        tokens: (T, D) of the masked patches; masked: their numbers (T), counted over all images; weights: (T).
        images: (B, C, H, W), normalised, so that 1 is as bad as guessing the set's mean grey everywhere.
        """
        height, width = (side // self.patch_size * CELLS for side in images.shape[-2:])
        cells = F.adaptive_avg_pool2d(images, (height, width))
        patches = F.unfold(cells.float(), CELLS, stride=CELLS).transpose(1, 2).flatten(0, 1)  # (B N, C cells)
        errors = (self.guess(tokens).float() - patches.index_select(0, masked)).square().mean(1)
        return (weights * errors).sum()
