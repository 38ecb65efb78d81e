"""Position embeddings for another grid of patches: bicubic resampling, and a backward pass of its own.

torch's backward pass of bicubic resampling has no deterministic form on CUDA. Resampling is linear, and along each
axis a small matrix; so its backward pass is two matrix products.

Legend: D width, h w patches.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int]

#: of DINOv2, and of its released weights: the sampling points differ without it
OFFSET = 0.1


def resampled(grid: Tensor, size: Grid, *, offset: bool, antialias: bool) -> Tensor:
    """Return positions (1, D, h, w) float32 for another grid, (1, D, *size).

    offset: sample at the points of DINOv2, whose scale is a little larger than that of the sizes.
    """
    # an exported network has no backward pass
    if torch.compiler.is_exporting():
        return _resample(grid, size, offset, antialias)
    return _Resample.apply(grid, size, offset, antialias)


class _Resample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grid: Tensor, size: Grid, offset: bool, antialias: bool) -> Tensor:
        ctx.sizes, ctx.how = (grid.shape[2:], size), (offset, antialias)
        return _resample(grid, size, offset, antialias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns = (_matrix(*pair, *ctx.how, gradient.device) for pair in zip(*ctx.sizes, strict=True))
        with torch.autocast(gradient.device.type, enabled=False):
            return rows.T @ gradient @ columns, None, None, None


def _resample(grid: Tensor, size: Grid, offset: bool, antialias: bool) -> Tensor:
    if not offset:
        return F.interpolate(grid, size=size, mode="bicubic", antialias=antialias)
    factors = [(new + OFFSET) / old for new, old in zip(size, grid.shape[2:], strict=True)]
    found = F.interpolate(grid, scale_factor=factors, mode="bicubic", antialias=antialias)
    assert found.shape[2:] == size
    return found


@lru_cache(maxsize=16)
def _matrix(old: int, new: int, offset: bool, antialias: bool, device: torch.device) -> Tensor:
    """Return what resampling multiplies one axis by, (new, old)."""
    unit = torch.eye(old, device=device)[None, None]
    factors = [(new + OFFSET) / old, 1.0]
    # along the other axis nothing changes
    if offset:
        return F.interpolate(unit, scale_factor=factors, mode="bicubic", antialias=antialias)[0, 0]
    return F.interpolate(unit, size=(new, old), mode="bicubic", antialias=antialias)[0, 0]
