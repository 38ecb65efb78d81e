"""Layers that keep little for the backward pass: what can be made anew in one pass is, from what is kept in any case.

Outputs of norms and GELUs, rounded weights, and what is added to the residual stream are half of all that a ViT keeps
of a pass. Results are those of plain layers. So are gradients in float32; where products are in half precision, so is
the kept input of a norm, as all inputs of products are.

Legend: T tokens, t some of them, D width, H width of the output.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def gelu_linear(hidden: Tensor, linear: nn.Linear, scale: Tensor | None = None) -> Tensor:
    """Return scale * linear(gelu(hidden)) of (T, D) as (T, H), in the precision of ``hidden``; scale: (H,)."""
    return _GeluLinear.apply(hidden, linear.weight, linear.bias, scale)


def norm_linear(tokens: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    """Return linear(norm(tokens)) of (T, D) as (T, H), in the precision of matrix products."""
    return _NormLinear.apply(tokens, norm.weight, norm.bias, norm.eps, linear.weight, linear.bias, matmul_dtype(tokens))


def add_rows(tokens: Tensor, rows: Tensor, added: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return tokens (T, D) with weight * added (t, D) added to different ``rows``, of each part in turn."""
    return _AddRows.apply(tokens, rows, tuple(weights), *added)


def scaled(weight: Tensor, bias: Tensor | None, scale: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return weight (H, D) and bias (H,) of scale * linear(...) as one linear layer; scale: (H,)."""
    if scale is None:
        return weight, bias
    return weight * scale[:, None], None if bias is None else bias * scale


def is_gelu(activation: nn.Module) -> bool:
    """Return whether an activation is the exact GELU."""
    return isinstance(activation, nn.GELU) and activation.approximate == "none"


def matmul_dtype(tensor: Tensor) -> torch.dtype:
    """Return the precision of matrix products: autocast's where it is on, else the tensor's own."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, scale)
        return F.linear(F.gelu(hidden), *_rounded(*scaled(weight, bias, scale), hidden.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, scale = ctx.saved_tensors
        rounded, _ = _rounded(*scaled(weight, None, scale), hidden.dtype)
        to_hidden = torch.ops.aten.gelu_backward(gradient @ rounded, hidden)
        to_weight = (gradient.T @ F.gelu(hidden)).to(weight.dtype)
        to_bias = None if bias is None else gradient.sum(0).to(bias.dtype)
        if scale is None:
            return to_hidden, to_weight, to_bias, None
        to_scale = torch.linalg.vecdot(to_weight, weight)
        to_weight.mul_(scale[:, None])
        if bias is not None and to_bias is not None:
            to_scale.addcmul_(to_bias, bias)
            to_bias = to_bias * scale
        return to_hidden, to_weight, to_bias, to_scale


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        gain: Tensor,
        shift: Tensor,
        eps: float,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        normed, mean, spread = torch.native_layer_norm(tokens, tokens.shape[-1:], gain, shift, eps)
        ctx.save_for_backward(tokens.to(dtype), mean, spread, gain, shift, weight)
        ctx.eps, ctx.has_bias, ctx.stream_dtype = eps, bias is not None, tokens.dtype
        return F.linear(normed.to(dtype), *_rounded(weight, bias, dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept, mean, spread, gain, shift, weight = ctx.saved_tensors
        tokens, shape, dtype = kept.to(ctx.stream_dtype), kept.shape[-1:], kept.dtype
        normed = torch.native_layer_norm(tokens, shape, gain, shift, ctx.eps)[0]
        to_weight = (gradient.T @ normed.to(dtype)).to(weight.dtype)
        del normed
        to_normed = (gradient @ weight.to(dtype)).to(tokens.dtype)
        found = torch.ops.aten.native_layer_norm_backward(
            to_normed, tokens, shape, mean, spread, gain, shift, [True, True, True]
        )
        return *found, None, to_weight, gradient.sum(0).to(weight.dtype) if ctx.has_bias else None, None


class _AddRows(torch.autograd.Function):
    # index_add keeps what is added, only to know its shape
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, rows: Tensor, weights: tuple[float, ...], *added: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.weights, ctx.lengths, ctx.dtype = weights, [len(part) for part in added], added[0].dtype
        result, parts = tokens.clone(), rows.split(ctx.lengths)
        for weight, index, part in zip(weights, parts, added, strict=True):
            result.index_add_(0, index, part.to(tokens.dtype), alpha=weight)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (rows,) = ctx.saved_tensors
        parts = zip(ctx.weights, rows.split(ctx.lengths), strict=True)
        to_added = [(gradient.index_select(0, index) * weight).to(ctx.dtype) for weight, index in parts]
        return gradient, None, None, *to_added


def _rounded(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    return weight.to(dtype), None if bias is None else bias.to(dtype)
