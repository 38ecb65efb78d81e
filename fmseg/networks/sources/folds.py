"""What is changed in other people's tensors beyond their names. All of it is exact.

Legend: D width, A heads, N patches.
"""

import re

import torch

from fmseg.networks.sources.source import Candidate, State


def join_bias(state: State, candidate: Candidate) -> State:
    """Return the state with one bias for queries, keys and values where there are two: that of the keys is zero."""
    for name in [name for name in state if name.endswith("attn.q_bias")]:
        query, block = state.pop(name), name.removesuffix("q_bias")
        if f"{block}v_bias" in state:  # a bias without its partner stays, and nothing will take it
            state[f"{block}qkv.bias"] = torch.cat([query, torch.zeros_like(query), state.pop(f"{block}v_bias")])
        else:
            state[name] = query
    return state


def no_bias(state: State, candidate: Candidate) -> State:
    """Return the state with biases of zero for a model whose queries, keys and values have none at all."""
    if not any(name.endswith("attn.qkv.bias") for name in state):
        weights = {name: tensor for name, tensor in state.items() if name.endswith("attn.qkv.weight")}
        state |= {
            name.removesuffix("weight") + "bias": tensor.new_zeros(len(tensor)) for name, tensor in weights.items()
        }
    return state


def mask_bias(state: State, candidate: Candidate) -> State:
    """Return the state of DINOv3, whose keys have a bias that is masked."""
    for name in [name for name in state if name.endswith("attn.qkv.bias_mask")]:
        mask, bias = state.pop(name), name.removesuffix("_mask")
        if bias in state:
            state[bias] = torch.where(mask == 0, 0.0, state[bias].float() * mask)
    return no_bias(state, candidate)


def join_pairs(state: State, first: str, second: str, joined: str) -> State:
    """Return the state with the rows of two layers as one layer: those of ``first``, then those of ``second``."""
    for name in [name for name in state if re.search(rf"{re.escape(first)}\.(weight|bias)$", name)]:
        other = name.replace(first, second)
        if other in state:
            state[name.replace(first, joined)] = torch.cat([state.pop(name), state.pop(other)])
    return state


def join_qkv(state: State, candidate: Candidate) -> State:
    """Return the state with one layer for queries, keys and values where there are three."""
    for name in [name for name in state if re.search(r"attn\.query\.(weight|bias)$", name)]:
        parts = [name.replace("query", part) for part in ("query", "key", "value")]
        if all(part in state for part in parts):
            state[name.replace("query", "qkv")] = torch.cat([state.pop(part) for part in parts])
    return join_pairs(state, "mlp.gate_proj", "mlp.up_proj", "mlp.fc1")


def share_table(state: State, candidate: Candidate) -> State:
    """Return the state with a table of biases for each block instead of one for all."""
    if "table" in state:
        table, blocks = state.pop("table"), {name.split(".")[1] for name in state if name.startswith("blocks.")}
        state |= {f"blocks.{block}.relation.table": table.clone() for block in blocks}
    return join_bias(state, candidate)


def flat_tokens(state: State, candidate: Candidate) -> State:
    """Return the state of CLIP with its tokens as (1, n, D), and a bias of zero for its stem."""
    if "cls_token" in state:
        state["cls_token"] = state["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in state:
        state["pos_embed"] = state["pos_embed"].unsqueeze(0)
    return stem_bias(state)


def stem_bias(state: State) -> State:
    """Return the state with a bias of zero for a stem that has none."""
    stem = state["patch_embed.proj.weight"]
    return {"patch_embed.proj.bias": stem.new_zeros(len(stem))} | state


def flat_positions(state: State, candidate: Candidate) -> State:
    """Return the state of Segment Anything with its positions (1, h, w, D) as (1, N, D)."""
    if "pos_embed" in state:
        state["pos_embed"] = state["pos_embed"].flatten(1, 2)
    return state


def place_for_cls(state: State, candidate: Candidate) -> State:
    """Return the state with a position of zero for CLS where only the patches have one."""
    stem, positions = state["patch_embed.proj.weight"], state.get("pos_embed")
    if "cls_token" in state and positions is not None:
        side = round(positions.shape[1] ** 0.5)
        if side**2 == positions.shape[1]:
            state["pos_embed"] = torch.cat([positions.new_zeros(1, 1, len(stem)), positions], dim=1)
    return state


def flat_mask_token(state: State, candidate: Candidate) -> State:
    """Return the state with a mask token of (1, D)."""
    if "mask_token" in state:
        state["mask_token"] = state["mask_token"].reshape(1, -1)
    return state
