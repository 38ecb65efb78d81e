"""Attention that knows where tokens lie, for ViTs that do not, or not only, add positions to their tokens.

Three kinds, each as the models have it that it came with, on timm's parts: rotations of queries and keys (DINOv3 [1]),
a table of biases by distance (BEiT and USFM [2]), biases by the query and its distance along each axis, within windows
in most blocks (Segment Anything [3]). All take any grid of patches: rotations by nature, the others by resampling.

Legend: B images, n tokens an image, N patches, h w rows and columns of patches, A heads, d head width, D = A d.

[1] Simeoni et al., DINOv3, 2025. https://arxiv.org/abs/2508.10104
[2] Bao et al., BEiT, 2021. https://arxiv.org/abs/2106.08254
[3] Kirillov et al., Segment Anything, 2023. https://arxiv.org/abs/2304.02643
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmseg.records.plans import Architecture

Grid = tuple[int, int]

#: of the periods of rotations, in DINOv3
ROTARY_BASE = 100.0


class Place(NamedTuple):
    """Where the patches of the images of one size lie."""

    #: (rows, columns)
    grid: Grid
    #: sines, then cosines, of each patch (N, 2 d), for "rotary"
    rotation: Tensor | None


def make_relation(architecture: Architecture, index: int) -> nn.Module | None:
    """Return what the block of this number, counted from 0, has instead of plain attention; None for plain."""
    height, width = architecture.image_size
    grid = (height // architecture.patch_size, width // architecture.patch_size)
    if architecture.relation == "rotary":
        return Rotary(architecture.num_heads, architecture.class_token + architecture.num_registers)
    if architecture.relation == "table":
        return BiasTable(architecture.num_heads, grid)
    if architecture.relation == "decomposed":
        window = 0 if index in architecture.global_blocks else architecture.window
        return Decomposed(architecture.num_heads, architecture.width // architecture.num_heads, grid, window)
    return None


def rotations(architecture: Architecture) -> Any:
    """Return timm's module that gives a grid its sines and cosines; its periods are saved with the weights.

    DINOv3 rounded them to bfloat16, so that they cannot be computed again.
    """
    from timm.layers import RotaryEmbeddingDinoV3

    rope = RotaryEmbeddingDinoV3(architecture.width // architecture.num_heads, temperature=ROTARY_BASE)
    rope.register_buffer("periods", rope.periods, persistent=True)
    return rope


class Rotary(nn.Module):
    """Queries and keys of patches are turned by their position; CLS and registers stay as they are."""

    def __init__(self, num_heads: int, num_prefix_tokens: int) -> None:
        super().__init__()
        self.num_heads, self.num_prefix_tokens = num_heads, num_prefix_tokens

    def forward(self, qkv: Tensor, place: Place, bias: Tensor | None) -> Tensor:
        """Return attention's output (B, n, D). qkv: (B, n, 3 D); bias: of the layer that made it."""
        assert place.rotation is not None
        query, key, value = split_heads(qkv, self.num_heads)
        query, key = (self._turn(each, place.rotation) for each in (query, key))
        return join_heads(F.scaled_dot_product_attention(query, key, value))

    def _turn(self, heads: Tensor, rotation: Tensor) -> Tensor:
        from timm.layers import apply_rot_embed_cat

        prefix, patches = heads[:, :, : self.num_prefix_tokens], heads[:, :, self.num_prefix_tokens :]
        turned = apply_rot_embed_cat(patches.to(rotation.dtype), rotation, half=True)
        return torch.cat([prefix, turned.to(heads.dtype)], dim=2)


class BiasTable(nn.Module):
    """A bias for each head and each distance between two patches, and for those to, from and within CLS.

    grid: that the table is made for. For others it is resampled as BEiT does when it is loaded.
    """

    def __init__(self, num_heads: int, grid: Grid) -> None:
        super().__init__()
        self.num_heads, self.grid = num_heads, grid
        self.table = nn.Parameter(torch.zeros(num_distances(grid), num_heads))

    def forward(self, qkv: Tensor, place: Place, bias: Tensor | None) -> Tensor:
        """Return attention's output (B, n, D). qkv: (B, n, 3 D); bias: of the layer that made it."""
        query, key, value = split_heads(qkv, self.num_heads)
        added = self.biases(place.grid).to(query.dtype)  # (A, n, n)
        return join_heads(F.scaled_dot_product_attention(query, key, value, attn_mask=added[None]))

    def biases(self, grid: Grid) -> Tensor:
        """Return what is added to the scores (A, n, n) of a grid."""
        table = self.table if grid == self.grid else _resampling(self.grid, grid).to(self.table.device) @ self.table
        return table[_distances(grid).to(table.device)].permute(2, 0, 1)


class Decomposed(nn.Module):
    """Biases by a query's content and its distance along each axis, in windows or over the whole image.

    window: side in patches; 0 for none. There is neither CLS nor registers.
    """

    def __init__(self, num_heads: int, head_width: int, grid: Grid, window: int) -> None:
        super().__init__()
        self.num_heads, self.window = num_heads, window
        rows, columns = (window, window) if window else grid
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * rows - 1, head_width))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * columns - 1, head_width))

    def forward(self, qkv: Tensor, place: Place, bias: Tensor | None) -> Tensor:
        """Return attention's output (B, n, D). qkv: (B, n, 3 D); bias: of the layer that made it."""
        from timm.models.vision_transformer_sam import window_partition, window_unpartition

        if not self.window:
            return self._attend(qkv, place.grid)
        height, width = place.grid
        side = self.window
        padded = (height + -height % side, width + -width % side)
        # tokens that fill up a window are zeros before the layer, so that its bias alone stands for them
        filling = qkv.new_zeros(qkv.shape[-1]) if bias is None else bias.to(qkv.dtype)
        filled = filling.expand(len(qkv), *padded, -1).clone()
        filled[:, :height, :width] = qkv.unflatten(1, place.grid)
        windows, _ = window_partition(filled, side)  # (B windows, side, side, 3 D)
        mixed = self._attend(windows.flatten(1, 2), (side, side)).unflatten(1, (side, side))
        return window_unpartition(mixed, side, place.grid, padded).flatten(1, 2)

    def _attend(self, qkv: Tensor, grid: Grid) -> Tensor:
        from timm.models.vision_transformer_sam import get_decomposed_rel_pos_bias

        query, key, value = split_heads(qkv, self.num_heads)
        added = get_decomposed_rel_pos_bias(query.flatten(0, 1), self.rel_pos_h, self.rel_pos_w, grid, grid)
        added = added.unflatten(0, query.shape[:2]).to(query.dtype)  # (B, A, N, N)
        return join_heads(F.scaled_dot_product_attention(query, key, value, attn_mask=added))


def split_heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, (B, A, n, d) each, of (B, n, 3 D)."""
    query, key, value = qkv.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    return query, key, value


def join_heads(heads: Tensor) -> Tensor:
    """Return (B, n, D) of (B, A, n, d)."""
    return heads.transpose(1, 2).flatten(2)


def num_distances(grid: Grid) -> int:
    """Return the rows of a table of biases: one for each distance, and three for CLS."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3


@lru_cache(maxsize=16)
def _distances(grid: Grid) -> Tensor:
    """Return which row of the table stands for each pair of tokens (n, n)."""
    from timm.layers import gen_relative_position_index

    # what is kept for later must be of use in training too
    with torch.inference_mode(False):
        found: Tensor = gen_relative_position_index(grid, class_token=True)
    return found


@lru_cache(maxsize=8)
def _resampling(source: Grid, target: Grid) -> Tensor:
    """Return the matrix that turns a table for one grid into one for another: resampling is linear."""
    from timm.layers import resize_rel_pos_bias_table

    with torch.inference_mode(False), torch.no_grad():
        unit = torch.eye(num_distances(source))
        found: Tensor = resize_rel_pos_bias_table(
            unit, target, (num_distances(target), len(unit)), old_window_size=source
        )
    return found
