"""The architecture that a backbone's tensors show, under our names."""

import math
import re
from pathlib import Path
from typing import Literal

from fmseg.errors import BadData, UsageError
from fmseg.networks.sources.source import USUAL_HEADS, Source, State
from fmseg.records.plans import Architecture

SIZES = {(192, 12): "vit_tiny", (384, 12): "vit_small", (768, 12): "vit_base", (1024, 24): "vit_large"}
SIZES |= {(1280, 32): "vit_huge", (1536, 40): "vit_giant"}


def architecture_of(path: Path, source: Source, state: State, num_heads: int | None) -> Architecture:
    """Return what the tensors show; their source says the rest.

    num_heads: where it shows in no tensor. Raises UsageError if it must be typed, BadData for what cannot be a ViT.
    """
    shape = tuple(state["patch_embed.proj.weight"].shape)
    if len(shape) != 4 or shape[2] != shape[3]:
        raise BadData(f"{path}: its patches are {shape[2:]} in size; only square ones of images can be used.")
    width, channels, patch, _ = shape
    depth = 1 + max((int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))), default=-1)
    gated, ratio = _mlp(path, state, width)
    sides = _sides(state)
    grid = _grid(path, source, state, sides, patch)
    windows = sorted({side for side in sides.values() if side != grid[0]})
    if len(windows) > 1:
        raise BadData(f"{path}: its windows have several sizes ({windows}); only one size can be used.")
    return Architecture(
        name=SIZES.get((width, depth), f"vit_w{width}_d{depth}"),
        patch_size=patch,
        width=width,
        depth=depth,
        num_heads=_heads(path, source, state, width, num_heads),
        mlp_ratio=ratio,
        ffn="swiglu" if gated else "mlp",
        num_registers=state["reg_token"].shape[1] if "reg_token" in state else 0,
        layer_scale=1e-5 if any(name.endswith(".ls1.gamma") for name in state) else None,
        layer_norm_eps=source.eps,
        channels=channels,
        image_size=(grid[0] * patch, grid[1] * patch),
        position_interpolation=source.interpolation,
        position_antialias=source.antialias,
        activation=source.activation,
        class_token="cls_token" in state,
        absolute_positions="pos_embed" in state,
        relation=_relation(state),
        window=windows[0] if windows else 0,
        global_blocks=tuple(sorted(block for block, side in sides.items() if side == grid[0])) if windows else (),
        input_norm="norm_pre.weight" in state,
        output_norm="norm.weight" in state,
    )


def _mlp(path: Path, state: State, width: int) -> tuple[bool, float]:
    """Return whether the MLP is gated, and its ratio: one that gives just this width when it is multiplied out."""
    for block in range(len(state)):
        first, second = (state.get(f"blocks.{block}.mlp.fc{layer}.weight") for layer in (1, 2))
        if first is not None and second is not None:
            break
    else:
        raise BadData(f"{path}: the tensor 'blocks.0.mlp.fc1.weight' is missing.")
    hidden = second.shape[1]
    gated = first.shape[0] == 2 * hidden
    if gated and hidden % 8:
        raise BadData(f"{path}: its gated MLP is {hidden} wide, which is no multiple of 8. It cannot be used.")
    ratio = hidden * 1.5 / width if gated else hidden / width
    exact = gated or int(width * ratio) == hidden
    return gated, ratio if exact else (hidden + 0.5) / width


def _heads(path: Path, source: Source, state: State, width: int, typed: int | None) -> int:
    shown = {
        "rope.periods": lambda tensor: width // (4 * tensor.shape[0]),
        "blocks.0.relation.table": lambda tensor: tensor.shape[1],
        "blocks.0.relation.rel_pos_h": lambda tensor: width // tensor.shape[1],
    }
    in_state = [count(state[name]) for name, count in shown.items() if name in state]
    heads: int | None = typed or source.num_heads or next(iter(in_state), None) or USUAL_HEADS.get(width)
    if heads is None:
        raise UsageError(f"{path}: how many heads a ViT of width {width} has shows in no tensor. Type it, as --heads 6")
    if width % heads:
        raise UsageError(
            f"{path}: a width of {width} cannot be shared by {heads} heads. Type --heads with their number."
        )
    return heads


def _relation(state: State) -> Literal["none", "rotary", "table", "decomposed"]:
    if "rope.periods" in state:
        return "rotary"
    names = {name.partition(".relation.")[2] for name in state}
    if "table" in names:
        return "table"
    return "decomposed" if {"rel_pos_h", "rel_pos_w"} & names else "none"


def _sides(state: State) -> dict[int, int]:
    """Return block -> rows of patches that its biases by distance are made for."""
    pattern = re.compile(r"blocks\.(\d+)\.relation\.rel_pos_h$")
    found = ((pattern.match(name), tensor) for name, tensor in state.items())
    return {int(match[1]): (tensor.shape[0] + 1) // 2 for match, tensor in found if match}


def _grid(path: Path, source: Source, state: State, sides: dict[int, int], patch: int) -> tuple[int, int]:
    """Return rows and columns of the patches that the positions are made for."""
    if "pos_embed" in state:
        patches = state["pos_embed"].shape[1] - ("cls_token" in state)
    elif "blocks.0.relation.table" in state:
        patches = ((math.isqrt(state["blocks.0.relation.table"].shape[0] - 3) + 1) // 2) ** 2
    else:
        patches = max(sides.values(), default=source.input_px // patch) ** 2
    side = math.isqrt(patches)
    if side**2 != patches or not side:
        raise BadData(f"{path}: its positions are those of {patches} patches, which are no square. It cannot be used.")
    return side, side
