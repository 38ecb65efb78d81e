"""Linear layers that keep the input of what stands before them for the backward pass, not its output.

The outputs of norms and GELUs are a third of all that a ViT keeps of a pass, and are made anew in one pass over inputs
that are kept in any case. Results and gradients are those of plain layers.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def gelu_linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return linear(gelu(hidden)) of (T, H) as (T, D), in the precision of ``hidden``.

    weight: (D, H), bias: (D,) or None.
    """
    return _GeluLinear.apply(hidden, weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype))


def norm_linear(tokens: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    """Return linear(norm(tokens)) of (T, D) as (T, H), in the precision of matrix products."""
    dtype = matmul_dtype(tokens)
    bias = None if linear.bias is None else linear.bias.to(dtype)
    return _NormLinear.apply(tokens, norm.weight, norm.bias, norm.eps, linear.weight.to(dtype), bias)


def is_gelu(activation: nn.Module) -> bool:
    """Return whether an activation is the exact GELU."""
    return isinstance(activation, nn.GELU) and activation.approximate == "none"


def matmul_dtype(tensor: Tensor) -> torch.dtype:
    """Return the precision of matrix products: autocast's where it is on, else the tensor's own."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.has_bias = bias is not None
        return F.linear(F.gelu(hidden), weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        to_hidden = torch.ops.aten.gelu_backward(gradient @ weight, hidden)
        to_weight = gradient.T @ F.gelu(hidden)
        return to_hidden, to_weight, gradient.sum(0) if ctx.has_bias else None


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, gain: Tensor, shift: Tensor, eps: float, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        normed, mean, spread = torch.native_layer_norm(tokens, tokens.shape[-1:], gain, shift, eps)
        ctx.save_for_backward(tokens, mean, spread, gain, shift, weight)
        ctx.eps, ctx.has_bias = eps, bias is not None
        return F.linear(normed.to(weight.dtype), weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, mean, spread, gain, shift, weight = ctx.saved_tensors
        shape = tokens.shape[-1:]
        normed = torch.native_layer_norm(tokens, shape, gain, shift, ctx.eps)[0]
        to_weight = gradient.T @ normed.to(weight.dtype)
        to_normed = (gradient @ weight).to(tokens.dtype)
        found = torch.ops.aten.native_layer_norm_backward(
            to_normed, tokens, shape, mean, spread, gain, shift, [True, True, True]
        )
        return *found, None, to_weight, gradient.sum(0) if ctx.has_bias else None
