"""The plain ViT of DINOv2, built from timm's blocks under timm's parameter names.

It runs several view sizes at once: linear layers, norms and MLPs see the tokens of all views in one call, and only
attention is done view size by view size [1]. A layer is in ``block.py``.

Legend: B images, C channels, H W pixels, h w patches, N = h w, P = 1 + registers, D width, T tokens of all views.

[1] Oquab et al., DINOv2, 2023. https://arxiv.org/abs/2304.07193
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fmseg.networks.block import Block, Shape
from fmseg.networks.positions import resampled
from fmseg.networks.relations import Place, make_relation, rotations
from fmseg.records.plans import Architecture

DropPathSchedule = Literal["uniform", "linear"]


class ViT(nn.Module):
    """Images of any size divisible by the patch -> tokens, order: CLS, registers, patches row by row.

    A ViT of other people's weights may have no CLS, and positions in its attention (``records.plans.Architecture``).
    drop_path: rate of stochastic depth, active in training mode: the same in all blocks ("uniform", pretraining),
    or rising from 0 in the first block to it in the last ("linear", finetuning).
    """

    def __init__(
        self,
        architecture: Architecture,
        drop_path: float = 0.0,
        *,
        drop_path_schedule: DropPathSchedule = "uniform",
    ) -> None:
        super().__init__()
        trunk = _timm_trunk(architecture)
        self.architecture = architecture
        self.grid = patch_grid(architecture.image_size, architecture.patch_size)
        self.num_prefix_tokens = architecture.class_token + architecture.num_registers
        self.patch_embed = trunk.patch_embed
        self.cls_token: nn.Parameter | None = trunk.cls_token
        #: (1, 1 + N, D): CLS has a position, registers have none
        self.pos_embed: nn.Parameter | None = trunk.pos_embed
        self.mask_token = nn.Parameter(torch.empty(1, architecture.width))
        registers = torch.empty(1, architecture.num_registers, architecture.width)
        self.reg_token = nn.Parameter(registers) if architecture.num_registers else None
        self.rope = rotations(architecture) if architecture.relation == "rotary" else None
        self.norm_pre = _layer_norm(architecture) if architecture.input_norm else None
        relations = (make_relation(architecture, index) for index in range(architecture.depth))
        self.blocks = nn.Sequential(*(Block(*each) for each in zip(trunk.blocks, relations, strict=True)))
        self.norm: nn.Module = trunk.norm
        #: whether the backward pass computes each layer anew instead of keeping what is in it
        self.checkpointing = False
        self.set_drop_path(drop_path, drop_path_schedule)
        self._initialise()

    def set_drop_path(self, rate: float, schedule: DropPathSchedule = "uniform") -> None:
        """Set the rate of stochastic depth of each block."""
        steps = max(len(self.blocks) - 1, 1)
        shares = [1.0 if schedule == "uniform" else index / steps for index in range(len(self.blocks))]
        # DINOv2 rounds down; in the small batches of finetuning that would drop far more than the rate says
        round_kept: Callable[[float], int] = int if schedule == "uniform" else round
        for block, share in zip(self.blocks, shares, strict=True):
            assert isinstance(block, Block)
            block.set_drop(rate * share, round_kept)

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Have torch compile each layer for the views of a training, at their first pass."""
        for block in self.blocks:
            assert isinstance(block, Block)
            block.set_compiled(backend)

    def forward(self, image: Tensor) -> Tensor:
        """Return the normed tokens (B, P + N, D) of one batch (B, C, H, W) of any size; never compiled."""
        return self._forward([image], [None], compiled=False)[0]

    def forward_groups(self, images: list[Tensor], masks: list[Tensor | None]) -> list[Tensor]:
        """Return the normed tokens (B, P + N, D) of each batch of views; all views go through in one pass.

        images: one (B, C, H, W) per view size. masks: (B, N) bool each, true where the mask token replaces a patch.
        """
        return self._forward(images, masks, compiled=True)

    def _forward(self, images: list[Tensor], masks: list[Tensor | None], *, compiled: bool) -> list[Tensor]:
        groups = [self._embed(image, mask) for image, mask in zip(images, masks, strict=True)]
        shapes, places = [tokens_shape(group) for group in groups], self._places(images)
        tokens = pack(groups)  # (T, D)
        for block in self.blocks:
            tokens = self._run(block, tokens, shapes, places, compiled=compiled)
        return unpack(self.norm(tokens), shapes)

    def summary(self, tokens: Tensor) -> Tensor:
        """Return what stands for the whole image (B, D): CLS, or the mean patch of a ViT that has none.

        tokens: (B, P + N, D).
        """
        return tokens[:, 0] if self.cls_token is not None else tokens[:, self.num_prefix_tokens :].mean(dim=1)

    def forward_taps(self, image: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Return the patch tokens after the given blocks (counted from 0), final norm applied: (B, D, h, w) each."""
        grid = patch_grid((image.shape[2], image.shape[3]), self.architecture.patch_size)
        patches = (tokens[:, self.num_prefix_tokens :] for tokens in self.forward_blocks(image, blocks))  # (B, N, D)
        return [each.transpose(1, 2).unflatten(2, grid) for each in patches]  # (B, D, h, w)

    def forward_blocks(self, image: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Return all tokens after the given blocks (counted from 0), final norm applied: (B, P + N, D) each."""
        embedded = self._embed(image, None)
        shape, tokens, found = tokens_shape(embedded), embedded.flatten(0, 1), {}
        places = self._places([image])
        for index, block in enumerate(self.blocks):
            tokens = self._run(block, tokens, [shape], places)
            if index in blocks:
                found[index] = self.norm(tokens.unflatten(0, shape))
            if index == max(blocks):
                break
        return [found[index] for index in blocks]

    def _run(
        self, block: nn.Module, tokens: Tensor, shapes: list[Shape], places: list[Place], *, compiled: bool = False
    ) -> Tensor:
        if self.checkpointing and self.training and torch.is_grad_enabled():
            # random numbers too are drawn anew, from the same state
            return checkpoint(block, tokens, shapes, places, compiled=compiled, use_reentrant=False)
        return block(tokens, shapes, places, compiled=compiled)

    def _places(self, images: Sequence[Tensor]) -> list[Place]:
        """Return where the patches of each view size lie; nothing where attention need not know."""
        if self.architecture.relation == "none":
            return []
        grids = [patch_grid((image.shape[2], image.shape[3]), self.architecture.patch_size) for image in images]
        return [Place(grid, None if self.rope is None else self.rope.get_embed(list(grid))) for grid in grids]

    def _embed(self, image: Tensor, mask: Tensor | None) -> Tensor:
        h, w = patch_grid((image.shape[2], image.shape[3]), self.architecture.patch_size)
        tokens = self._project(image)  # (B, N, D)
        if mask is not None:
            tokens = torch.where(mask.unsqueeze(-1), self.mask_token.to(tokens.dtype), tokens)
        position = self._positions(h, w)  # (1, 1 + N, D); (1, N, D) without CLS
        # not len(image), which would bind an exported network to one size of batch
        batch = image.shape[0]
        prefix = [] if self.reg_token is None else [self.reg_token.expand(batch, -1, -1)]
        if self.cls_token is not None:
            cls = self.cls_token if position is None else self.cls_token + position[:, :1]
            prefix.insert(0, cls.expand(batch, -1, -1))
        if position is not None:
            tokens = tokens + position[:, self.architecture.class_token :]
        tokens = torch.cat([*prefix, tokens], dim=1)
        return tokens if self.norm_pre is None else self.norm_pre(tokens)

    def _project(self, image: Tensor) -> Tensor:
        """Return the patches' embeddings (B, N, D): the stem's convolution as one matrix product.

        Patches do not overlap, so both are the same sum; the product is several times as fast on a CPU.
        """
        stem, patch = self.patch_embed.proj, self.architecture.patch_size
        rows = image.unflatten(2, (-1, patch)).unflatten(4, (-1, patch))  # (B, C, h, p, w, p)
        patches = rows.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, N, C p p)
        return F.linear(patches, stem.weight.flatten(1), stem.bias)

    @torch.no_grad()
    def positions_for(self, image_size: tuple[int, int]) -> Tensor | None:
        """Return the position embedding of images of another size, as they see it now; None for a ViT without one."""
        positions = self._positions(*patch_grid(image_size, self.architecture.patch_size))
        return None if positions is None else positions.clone()

    def _positions(self, h: int, w: int) -> Tensor | None:
        """Return the position embedding (1, 1 + h w, D) for another grid of patches; without CLS (1, h w, D)."""
        if self.pos_embed is None or (h, w) == self.grid:
            return self.pos_embed
        first = int(self.architecture.class_token)
        grid = position_grid(self.pos_embed[:, first:], self.architecture, h, w)
        return torch.cat([self.pos_embed[:, :first], grid], dim=1)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.zeros_(self.mask_token)
        if self.reg_token is not None:
            nn.init.normal_(self.reg_token, std=1e-6)


def patch_grid(image_size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Return (rows, columns) of patches. Raises ValueError if the size (height, width) is not divisible."""
    height, width = image_size
    if height % patch_size or width % patch_size:
        raise ValueError(f"An image of {height} x {width} px cannot be cut into patches of {patch_size} px.")
    return height // patch_size, width // patch_size


def position_grid(positions: Tensor, architecture: Architecture, h: int, w: int) -> Tensor:
    """Return the positions of patches, (1, N, D) of the architecture's image size, for another grid: (1, h w, D)."""
    rows, columns = patch_grid(architecture.image_size, architecture.patch_size)
    if (h, w) == (rows, columns):
        return positions
    grid = positions.float().unflatten(1, (rows, columns)).permute(0, 3, 1, 2)  # (1, D, h, w)
    offset, antialias = architecture.position_interpolation == "offset", architecture.position_antialias
    return resampled(grid, (h, w), offset=offset, antialias=antialias).flatten(2).transpose(1, 2)


def tokens_shape(tokens: Tensor) -> Shape:
    """Return (images, tokens per image) of (B, n, D)."""
    return tokens.shape[0], tokens.shape[1]


def pack(groups: list[Tensor]) -> Tensor:
    """Return the tokens of all groups (B, n, D) in one sequence (T, D)."""
    rows = [group.flatten(0, 1) for group in groups]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def unpack(tokens: Tensor, shapes: list[Shape]) -> list[Tensor]:
    """Undo ``pack``."""
    parts = tokens.split([count * length for count, length in shapes])
    return [part.unflatten(0, shape) for part, shape in zip(parts, shapes, strict=True)]


def _timm_trunk(architecture: Architecture) -> Any:
    from timm.models.vision_transformer import VisionTransformer  # seconds

    return VisionTransformer(**trunk_options(architecture))


def trunk_options(architecture: Architecture) -> dict[str, Any]:
    """Return how timm's VisionTransformer is built for an architecture, its registers aside."""
    return {
        "img_size": architecture.image_size,
        "patch_size": architecture.patch_size,
        "in_chans": architecture.channels,
        "num_classes": 0,
        "embed_dim": architecture.width,
        "depth": architecture.depth,
        "num_heads": architecture.num_heads,
        "mlp_ratio": architecture.mlp_ratio,
        "init_values": architecture.layer_scale,
        "class_token": architecture.class_token,
        "pos_embed": "learn" if architecture.absolute_positions else "none",
        "final_norm": architecture.output_norm,
        "global_pool": "token" if architecture.class_token else "",
        "norm_layer": partial(nn.LayerNorm, eps=architecture.layer_norm_eps),
        # torch's, which lean.py knows, not timm's module of the same
        "act_layer": nn.GELU if architecture.activation == "gelu" else architecture.activation,
        "weight_init": "skip",  # initialised here, or loaded
        **({"mlp_layer": swiglu} if architecture.ffn == "swiglu" else {}),
    }


def _layer_norm(architecture: Architecture) -> nn.Module:
    return nn.LayerNorm(architecture.width, eps=architecture.layer_norm_eps)


def swiglu(*, in_features: int, hidden_features: int, bias: bool, **_ignored: object) -> nn.Module:
    """Return a gated MLP with as many weights as a plain one of that width, rounded up to 8 as in DINOv2."""
    from timm.layers import SwiGLUPacked

    gated = (int(hidden_features * 2 / 3) + 7) // 8 * 8
    return SwiGLUPacked(in_features=in_features, hidden_features=2 * gated, bias=bias)
