"""The projection head of DINOv2: tokens -> points on the unit sphere -> similarity to the prototypes.

The prototypes are a weight-normed linear layer without bias; parameter names are DINOv2's.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Prototypes(nn.Module):
    """``num_prototypes`` directions of length ``weight_g``: 1 at the start, trainable or not."""

    def __init__(self, width: int, num_prototypes: int, trainable_gain: bool) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(num_prototypes, 1), requires_grad=trainable_gain)
        self.weight_v = nn.Parameter(torch.empty(num_prototypes, width))
        # the length of weight_v sets how fast the directions turn under Adam: that of torch's linear layers
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5))

    def forward(self) -> Tensor:
        """Return the prototypes (K, width), float32."""
        with torch.autocast(self.weight_v.device.type, enabled=False):
            return torch._weight_norm(self.weight_v, self.weight_g, 0)


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
