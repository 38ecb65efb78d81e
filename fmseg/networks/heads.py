"""Heads beside the linear one: attention over all tokens, and the nearest of the images that it was shown.

[1] Oquab et al., DINOv2, 2023. https://arxiv.org/abs/2304.07193
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmseg.networks.classifier import heads

# B batch, D width, F features, K classes, M images of the bank, N tokens

#: of one head of the attention
HEAD_WIDTH = 64
#: a vote counts as the exponential of the cosine similarity over this, as in DINOv2's evaluation [1]
TEMPERATURE = 0.07
#: no class is quite impossible, or its logarithm would be infinite
TINY = 1e-6


class AttentiveHead(nn.Module):
    """One question to all tokens of the last block, and a linear layer: what the class token may have left out."""

    sees_tokens = True

    def __init__(self, inputs: int, num_outputs: int, *, dropout: float) -> None:
        from timm.layers import AttentionPoolLatent

        super().__init__()
        num_heads = max(1, inputs // HEAD_WIDTH)
        self.pool = AttentionPoolLatent(inputs, num_heads=num_heads if inputs % num_heads == 0 else 1)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(inputs, num_outputs)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (B, K). tokens: (B, N, D)."""
        return self.classify(self.dropout(self.pool(tokens)))


class NearestHead(nn.Module):
    """The votes of the nearest images of a bank, by cosine similarity; nothing in it learns by gradient.

    ``fill`` gives it its bank. Without one, all classes are alike.
    """

    bank: Tensor
    targets: Tensor
    columns: Tensor
    neighbours: Tensor
    is_exclusive: Tensor

    def __init__(self, inputs: int, num_outputs: int, *, dropout: float) -> None:
        super().__init__()
        del dropout  # nothing is trained
        self.register_buffer("bank", torch.zeros(0, inputs))
        self.register_buffer("targets", torch.zeros(0, num_outputs))
        #: of the features, those that are compared
        self.register_buffer("columns", torch.arange(inputs))
        self.register_buffer("neighbours", torch.tensor(1))
        self.register_buffer("is_exclusive", torch.tensor(True))

    def fill(self, bank: Tensor, targets: Tensor, columns: Tensor, neighbours: int, *, is_exclusive: bool) -> None:
        """Take over a bank. bank: (M, len(columns)), of length 1; targets: (M, K)."""
        device = self.bank.device
        self.bank, self.targets, self.columns = bank.to(device), targets.to(device), columns.to(device)
        self.neighbours.fill_(neighbours)
        self.is_exclusive.fill_(is_exclusive)

    def make_room(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        """Take the sizes of a bank that is about to be loaded: they depend on the images of its fold."""
        for name in ("bank", "targets", "columns"):
            if f"{prefix}{name}" in tensors:
                setattr(self, name, torch.zeros_like(tensors[f"{prefix}{name}"]))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of the shares of the votes. features: (B, F)."""
        if not len(self.bank):
            return features.new_zeros(len(features), self.targets.shape[1])
        asked = F.normalize(features[:, self.columns].float(), dim=1)
        nearest, places = (asked @ self.bank.T).topk(min(int(self.neighbours), len(self.bank)), dim=1)
        weights = (nearest / TEMPERATURE).softmax(dim=1)  # (B, k)
        shares = torch.einsum("bk,bkc->bc", weights, self.targets[places]).clamp(TINY, 1 - TINY)
        return torch.where(self.is_exclusive, shares.log(), shares.logit())


heads.add("attentive_head", AttentiveHead)
heads.add("nearest_head", NearestHead)
