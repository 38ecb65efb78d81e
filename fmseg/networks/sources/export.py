"""A backbone under other people's names: the way back from ``convert.py``, for use outside of fmseg."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fmseg.errors import UsageError
from fmseg.networks.vit import ViT
from fmseg.records.foundation import Foundation
from fmseg.records.plans import Architecture

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Exported:
    """What goes into the folder of an export."""

    file: str
    state: State
    #: name of a JSON file -> what is in it
    configs: Mapping[str, Any]
    #: what whoever loads it must know
    notes: tuple[str, ...]


def exported(to: str, vit: ViT, card: Foundation) -> Exported:
    """Return a backbone in one of the ``FORMATS``. Raises UsageError if that has no place for something in it."""
    own = vit.architecture
    if own.peculiar:
        raise UsageError(
            f"--to {to}: {card.name} is no plain ViT ({', '.join(own.peculiar)}), and only those go there."
        )
    if own.image_size[0] != own.image_size[1]:
        raise UsageError(f"--to {to}: {card.name} has positions for {own.image_size} px, and {to} knows squares alone.")
    state = {name: tensor.detach().float().cpu().contiguous() for name, tensor in vit.state_dict().items()}
    return FORMATS[to](state, own, card)


def _to_dinov2(state: State, own: Architecture, card: Foundation) -> Exported:
    renames = {r"^reg_token$": "register_tokens"}
    if own.ffn == "swiglu":
        renames |= {r"\.mlp\.fc1\.": ".mlp.w12.", r"\.mlp\.fc2\.": ".mlp.w3."}
    options = {
        "img_size": own.image_size[0],
        "patch_size": own.patch_size,
        "in_chans": own.channels,
        "embed_dim": own.width,
        "depth": own.depth,
        "num_heads": own.num_heads,
        "mlp_ratio": own.mlp_ratio,
        "ffn_layer": "swiglufused" if own.ffn == "swiglu" else "mlp",
        "init_values": own.layer_scale,
        "block_chunks": 0,
        "num_register_tokens": own.num_registers,
        "interpolate_antialias": own.position_antialias,
        "interpolate_offset": 0.1 if own.position_interpolation == "offset" else 0.0,
    }
    note = "DINOv2's DinoVisionTransformer takes what dinov2.json says, and the file with strict=True"
    return Exported("dinov2.safetensors", _renamed(state, renames), {"dinov2.json": options}, (note,))


def _to_timm(state: State, own: Architecture, card: Foundation) -> Exported:
    state = {name: tensor for name, tensor in state.items() if name != "mask_token"}
    arguments: dict[str, Any] = {
        "img_size": own.image_size[0],
        "patch_size": own.patch_size,
        "in_chans": own.channels,
        "embed_dim": own.width,
        "depth": own.depth,
        "num_heads": own.num_heads,
        "mlp_ratio": own.mlp_ratio,
        "init_values": own.layer_scale,
        "dynamic_img_size": True,
    }
    if own.num_registers:
        # timm gives CLS no position where there are registers
        position = state.pop("pos_embed")
        state |= {"cls_token": state["cls_token"] + position[:, :1], "pos_embed": position[:, 1:].contiguous()}
        arguments |= {"reg_tokens": own.num_registers, "no_embed_class": True}
    name = "vit_small_patch14_dinov2"
    if own.ffn == "swiglu":
        name = "vit_giant_patch14_dinov2"
        # half a column more, since the product is rounded down
        arguments["mlp_ratio"] = (2 * state["blocks.0.mlp.fc2.weight"].shape[1] + 0.5) / own.width
    config = {
        "architecture": name,
        "num_classes": 0,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [own.channels, *own.image_size],
            "mean": list(card.mean),
            "std": list(card.std),
            "license": card.licence,
            "num_classes": 0,
        },
    }
    notes = [f"timm.create_model({name!r}, num_classes=0, **config['model_args']) takes it", "timm has no mask token"]
    if own.layer_norm_eps != 1e-6:
        raise UsageError(f"--to timm: {card.name} has an eps of {own.layer_norm_eps} in its norms, timm's has 1e-6.")
    if own.position_interpolation != "size" or not own.position_antialias:
        notes.append("for images of another size timm resamples positions otherwise than fmseg: close, not exact")
    return Exported("model.safetensors", state, {"config.json": config}, tuple(notes))


def _to_huggingface(state: State, own: Architecture, card: Foundation) -> Exported:
    if own.layer_scale is None:
        ones = {f"blocks.{i}.ls{j}.gamma": torch.ones(own.width) for i in range(own.depth) for j in (1, 2)}
        state = state | ones
    ratio, hidden = round(own.mlp_ratio), state["blocks.0.mlp.fc2.weight"].shape[1]
    wanted = (int(ratio * own.width * 2 / 3) + 7) // 8 * 8 if own.ffn == "swiglu" else ratio * own.width
    if wanted != hidden:
        raise UsageError(
            f"--to huggingface: the MLPs of {card.name} are {hidden} wide, and there it would be {wanted}."
        )
    parts = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                parts[name.replace("qkv", f"attention.{part}")] = rows.contiguous()
        else:
            parts[name] = tensor
    renames = {
        r"^(cls|mask)_token$": r"embeddings.\1_token",
        r"^reg_token$": "embeddings.register_tokens",
        r"^pos_embed$": "embeddings.position_embeddings",
        r"^patch_embed\.proj\.": "embeddings.patch_embeddings.projection.",
        r"^norm\.": "layernorm.",
        r"^blocks\.(\d+)\.attn\.attention\.": r"encoder.layer.\1.attention.attention.",
        r"^blocks\.(\d+)\.attn\.proj\.": r"encoder.layer.\1.attention.output.dense.",
        r"^blocks\.(\d+)\.ls(\d)\.gamma$": r"encoder.layer.\1.layer_scale\2.lambda1",
        r"^blocks\.": "encoder.layer.",
    }
    if own.ffn == "swiglu":
        renames |= {r"\.mlp\.fc1\.": ".mlp.weights_in.", r"\.mlp\.fc2\.": ".mlp.weights_out."}
    kind = "Dinov2WithRegisters" if own.num_registers else "Dinov2"
    config: dict[str, Any] = {
        "architectures": [f"{kind}Model"],
        "model_type": "dinov2_with_registers" if own.num_registers else "dinov2",
        "hidden_size": own.width,
        "num_hidden_layers": own.depth,
        "num_attention_heads": own.num_heads,
        "mlp_ratio": ratio,
        "hidden_act": "gelu",
        "layer_norm_eps": own.layer_norm_eps,
        "image_size": own.image_size[0],
        "patch_size": own.patch_size,
        "num_channels": own.channels,
        "use_swiglu_ffn": own.ffn == "swiglu",
        "qkv_bias": True,
    }
    if own.num_registers:
        config["num_register_tokens"] = own.num_registers
    images = {"image_mean": list(card.mean), "image_std": list(card.std), "do_normalize": True, "do_rescale": True}
    notes = [f"transformers.{kind}Model.from_pretrained takes the folder"]
    if own.position_interpolation != "size" or own.position_antialias != bool(own.num_registers):
        notes.append("for images of another size transformers resamples positions otherwise: close, not exact")
    configs = {"config.json": config, "preprocessor_config.json": images}
    return Exported("model.safetensors", _renamed(parts, renames), configs, tuple(notes))


def _renamed(state: State, renames: Mapping[str, str]) -> State:
    found = {}
    for name, tensor in state.items():
        for pattern, replacement in renames.items():
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    return found


FORMATS: dict[str, Callable[[State, Architecture, Foundation], Exported]] = {
    "dinov2": _to_dinov2,
    "timm": _to_timm,
    "huggingface": _to_huggingface,
}
