"""A layer of the ViT over the packed tokens of all views: attention, then an MLP, each on a residual branch.

In training, stochastic depth leaves images out of a branch before it is computed, instead of multiplying its result by
zero, as in DINOv2. LayerScale is multiplied into the weights of a branch's last linear layer rather than into its
output: the same product, without several passes over all tokens.

Legend: B images, n tokens an image, T tokens of all views, D width.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmseg.networks.attention import attend
from fmseg.networks.lean import add_rows, gelu_linear, is_gelu, matmul_dtype, norm_linear, scaled
from fmseg.networks.relations import Place

Shape = tuple[int, int]
Branch = Callable[[Tensor, Sequence[Shape]], Tensor]
Layer = Callable[[Tensor, Sequence[Shape], Sequence[Place]], Tensor]


class Block(nn.Module):
    """A layer with the modules, and so the parameter names, of timm's.

    relation: attention that knows where tokens lie (``relations.py``); None for the plain one.
    """

    def __init__(self, timms: Any, relation: nn.Module | None = None) -> None:
        super().__init__()
        self.relation = relation
        self.norm1, self.attn, self.ls1 = timms.norm1, timms.attn, timms.ls1
        self.norm2, self.mlp, self.ls2 = timms.norm2, timms.mlp, timms.ls2
        self._compiled: Layer | None = None
        self.set_drop(0.0, int)

    def set_drop(self, rate: float, round_kept: Callable[[float], int]) -> None:
        """Set the share of the images that a branch leaves out in training; round_kept: how many then stay."""
        self.drop_rate, self.round_kept = rate, round_kept

    def set_compiled(self, backend: str) -> None:
        """Have ``forward`` compiled when it is asked to be: anew for each set of shapes, so for few of them."""
        if self.relation is None:
            self._compiled = torch.compile(self._layer, backend=backend, dynamic=False)

    def forward(
        self, tokens: Tensor, shapes: Sequence[Shape], places: Sequence[Place] = (), *, compiled: bool = False
    ) -> Tensor:
        """Return the tokens (T, D) after this layer.

        shapes: (images, tokens per image) of each size of view; places: where its tokens lie, for a ``relation``.
        compiled: by ``set_compiled``, if that was called. What gathers shards before this call, or drops them after it,
        is outside of what is compiled.
        """
        layer = self._compiled if compiled and self._compiled is not None else self._layer
        return layer(tokens, shapes, places)

    def _layer(self, tokens: Tensor, shapes: Sequence[Shape], places: Sequence[Place]) -> Tensor:
        tokens = self._add(partial(self._attention, places=places), tokens, shapes)
        return self._add(self._mlp, tokens, shapes)

    def _attention(self, tokens: Tensor, shapes: Sequence[Shape], places: Sequence[Place]) -> Tensor:
        qkv = self._normed_linear(self.norm1, self.attn.qkv, tokens)
        if self.relation is None:
            mixed = attend(qkv, list(shapes), self.attn.num_heads)
        else:
            parts = qkv.split([count * length for count, length in shapes])
            found = zip(parts, shapes, places, strict=True)
            bias = self.attn.qkv.bias
            mixed = torch.cat(
                [self.relation(qkv.unflatten(0, s), place, bias).flatten(0, 1) for qkv, s, place in found]
            )
        return _scaled_linear(self.attn.proj, self.ls1, mixed)

    def _mlp(self, tokens: Tensor, shapes: Sequence[Shape]) -> Tensor:
        hidden = self._normed_linear(self.norm2, self.mlp.fc1, tokens)
        if hidden.shape[-1] == self.mlp.fc2.in_features:
            if self._is_lean(hidden) and is_gelu(self.mlp.act):
                return gelu_linear(hidden, self.mlp.fc2, _factor(self.ls2))
            return _scaled_linear(self.mlp.fc2, self.ls2, self.mlp.act(hidden))
        gate, value = hidden.chunk(2, dim=-1)
        return _scaled_linear(self.mlp.fc2, self.ls2, self.mlp.act(gate) * value)

    def _is_lean(self, tokens: Tensor) -> bool:
        """Return whether to keep little for the backward pass; float16 has a scaling of its own."""
        return self.training and torch.is_grad_enabled() and matmul_dtype(tokens) != torch.float16

    def _normed_linear(self, norm: nn.Module, linear: nn.Linear, tokens: Tensor) -> Tensor:
        if self._is_lean(tokens) and isinstance(norm, nn.LayerNorm) and type(linear) is nn.Linear:
            return norm_linear(tokens, norm, linear)
        return linear(norm(tokens))

    def _add(self, branch: Branch, tokens: Tensor, shapes: Sequence[Shape]) -> Tensor:
        """Return ``tokens`` plus a branch, computed on a random subset of the images in training."""
        if not self.training or self.drop_rate == 0:
            return tokens + branch(tokens, shapes)
        kept = [max(self.round_kept(count * (1 - self.drop_rate)), 1) for count, _ in shapes]
        rows = choose_rows(shapes, kept, tokens.device)
        subset = [(few, length) for few, (_, length) in zip(kept, shapes, strict=True)]
        added = branch(tokens.index_select(0, rows), subset).split([few * length for few, length in subset])
        weights = [count / few for few, (count, _) in zip(kept, shapes, strict=True)]
        return add_rows(tokens, rows, added, weights)


def choose_rows(shapes: Sequence[Shape], kept: Sequence[int], device: torch.device) -> Tensor:
    """Return the rows, in the packed tokens, of so many random images of each size of view."""
    rows, start = [], 0
    for (count, length), few in zip(shapes, kept, strict=True):
        chosen = torch.randperm(count, device=device)[:few]
        rows.append((start + chosen[:, None] * length + torch.arange(length, device=device)).flatten())
        start += count * length
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _scaled_linear(linear: nn.Linear, scale: nn.Module, tokens: Tensor) -> Tensor:
    """Return scale(linear(tokens)); scale: LayerScale or nothing."""
    # a scale of 1e-5 would leave nothing of the weights in float16
    if tokens.dtype == torch.float16:
        return scale(linear(tokens))
    return F.linear(tokens, *scaled(linear.weight, linear.bias, _factor(scale)))


def _factor(scale: nn.Module) -> Tensor | None:
    """Return the factors (D,) of LayerScale; None where there is none."""
    return getattr(scale, "gamma", None)
