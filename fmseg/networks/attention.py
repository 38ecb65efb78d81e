"""Attention over packed tokens: every image attends to itself alone, whatever the sizes of the others.

A list of calls, one per view size, is as exact as a block-diagonal mask and does no work for pairs that are masked.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# above it the (n, n) matrices cost more memory than they save time
MAX_EXPLICIT_TOKENS = 2048


def attend(qkv: Tensor, shapes: list[tuple[int, int]], num_heads: int) -> Tensor:
    """Return the attention's output (T, D).

    qkv: (T, 3 D), queries, keys and values of all images one after the other. shapes: (images, tokens per image)
    per view size, in the order in which they lie in ``qkv``.
    """
    parts = qkv.split([count * length for count, length in shapes])
    outputs = []
    for part, (count, length) in zip(parts, shapes, strict=True):
        heads = part.view(count, length, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)  # (B, heads, n, D / heads)
        output = _attention(query, key, value)
        outputs.append(output.transpose(1, 2).reshape(count * length, -1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    # torch's fused kernel is 2 to 5 times slower than three plain steps for bfloat16 on a CPU, backward included
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.shape[2] <= MAX_EXPLICIT_TOKENS:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return scores.softmax(-1) @ value
    return F.scaled_dot_product_attention(query, key, value)
