"""Attention over packed tokens: every image attends to itself alone, whatever the sizes of the others.

A list of calls, one per view size, is the default and the reference: as exact as a block-diagonal mask, without
work for pairs that are masked. On CUDA in half precision xformers, where it is installed, does them in one call.
"""

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

logger = logging.getLogger(__name__)

# above it the (n, n) matrices cost more memory than they save time
MAX_EXPLICIT_TOKENS = 2048

Shapes = list[tuple[int, int]]


def attend(qkv: Tensor, shapes: Shapes, num_heads: int) -> Tensor:
    """Return the attention's output (T, D).

    qkv: (T, 3 D), queries, keys and values of all images one after the other. shapes: (images, tokens per image)
    per view size, in the order in which they lie in ``qkv``.
    """
    # its backward pass adds up in any order
    is_free = not torch.are_deterministic_algorithms_enabled()
    if qkv.is_cuda and qkv.dtype in (torch.float16, torch.bfloat16) and len(shapes) > 1 and is_free:
        operators = _xformers()
        if operators is not None:
            return _attend_in_one_call(operators, qkv, shapes, num_heads)
    parts = qkv.split([count * length for count, length in shapes])
    outputs = []
    for part, (count, length) in zip(parts, shapes, strict=True):
        heads = part.view(count, length, 3, num_heads, -1).permute(2, 0, 3, 1, 4)  # (3, B, heads, n, D / heads)
        outputs.append(_attention(heads).transpose(1, 2).reshape(count * length, -1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _attention(heads: Tensor) -> Tensor:
    """Return the attention (B, heads, n, d) of queries, keys and values (3, B, heads, n, d)."""
    # torch's fused kernel is 2 to 5 times slower than plain steps for bfloat16 on a CPU, backward included
    if heads.device.type == "cpu" and heads.dtype == torch.bfloat16 and heads.shape[3] <= MAX_EXPLICIT_TOKENS:
        joined = heads.contiguous().flatten(1, 2)
        return _PlainSteps.apply(joined).unflatten(0, heads.shape[1:3])
    query, key, value = heads.unbind(0)
    return F.scaled_dot_product_attention(query, key, value)


class _PlainSteps(torch.autograd.Function):
    """Attention over joined heads (3, H, n, d) -> (H, n, d); gradients are written where they belong."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor) -> Tensor:
        query, key, value = heads
        ctx.save_for_backward(heads)
        return _scaled_product(query, key.transpose(1, 2)).softmax(-1) @ value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (heads,) = ctx.saved_tensors
        query, key, value = heads
        # made anew: they are as large as all else that attention would keep
        shares = _scaled_product(query, key.transpose(1, 2)).softmax(-1)
        found = torch.empty_like(heads)
        torch.bmm(shares.transpose(1, 2), gradient, out=found[2])
        scores = gradient @ value.transpose(1, 2)
        scores = torch._softmax_backward_data(scores, shares, -1, shares.dtype)
        _scaled_product(scores, key, out=found[0])
        _scaled_product(scores.transpose(1, 2), query, out=found[1])
        return found


def _scaled_product(one: Tensor, other: Tensor, out: Tensor | None = None) -> Tensor:
    """Return a batch of products over the root of the heads' width, which so costs no pass of its own."""
    width = other.shape[1] if out is None else other.shape[2]
    return torch.baddbmm(one.new_empty(1, 1, 1), one, other, beta=0, alpha=width**-0.5, out=out)


def _attend_in_one_call(operators: Any, qkv: Tensor, shapes: Shapes, num_heads: int) -> Tensor:
    lengths = [length for count, length in shapes for _ in range(count)]
    mask = operators.fmha.BlockDiagonalMask.from_seqlens(lengths)
    query, key, value = qkv.view(1, len(qkv), 3, num_heads, -1).unbind(2)  # (1, T, heads, D / heads)
    return operators.memory_efficient_attention(query, key, value, attn_bias=mask).flatten(2)[0]


@cache
def _xformers() -> Any:
    """Return xformers' operators if they are installed and have a kernel for this machine, else None."""
    logging.getLogger("xformers").setLevel(logging.ERROR)  # it warns at import about what is not used here
    try:
        from xformers import ops

        probe = torch.zeros(1, 8, 1, 64, device="cuda", dtype=torch.float16)
        ops.memory_efficient_attention(probe, probe, probe, attn_bias=ops.fmha.BlockDiagonalMask.from_seqlens([3, 5]))
    except (ImportError, NotImplementedError, RuntimeError) as error:
        logger.debug("attention by torch alone: %s", error)
        return None
    return ops
