"""ViTs of timm: a file with config.json beside it, or with the model's name typed, or one that timm keeps itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fmseg.errors import BadData, UsageError
from fmseg.networks.sources.folds import flat_positions, join_bias, join_pairs, no_bias, place_for_cls, stem_bias
from fmseg.networks.sources.source import Candidate, Source, State, sources

#: what goes before the name of a model that is typed instead of a file or a format
BY_NAME = "timm:"
ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "gelu"}
#: timm's classes -> kinds of their blocks that are built as ours
KINDS = {"VisionTransformer": "Block", "Eva": "EvaBlock", "Beit": "Block", "VisionTransformerSAM": "Block"}


def _details(candidate: Candidate) -> Mapping[str, Any]:
    config = candidate.file.config
    return describe(config.get("architecture", ""), config.get("pretrained_cfg", {}), config.get("model_args") or {})


def describe(name: str, pretrained: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model of timm says of itself. Raises UsageError for an unknown one, BadData for no such ViT.

    name: with or without a tag. pretrained: what its file's config says, before what timm knows of that name.
    """
    import timm

    if not timm.is_model(name):
        raise UsageError(f"timm has no model called '{name}'. Type one, as in --format timm:vit_base_patch16_224.dino")
    with torch.device("meta"):  # its build is wanted, not its weights
        model: Any = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    kind = type(model).__name__
    if kind not in KINDS or type(model.blocks[0]).__name__ != KINDS[kind] or _is_peculiar(model):
        raise BadData(f"timm's {name} is a {kind} that is not built like the ViTs here. Take another model.")
    block, known = model.blocks[0], timm.get_pretrained_cfg(name)
    facts = (known.to_dict() if known else {}) | dict(pretrained)
    size = facts.get("input_size") or model.pretrained_cfg["input_size"]
    licence = str(facts.get("license") or "see where the file comes from")
    return {
        "title": f"timm, {name}",
        "licence": licence,
        "commercial": None if licence.startswith("see") else "nc" not in licence.lower().split("-"),
        "mean": tuple(facts.get("mean") or model.pretrained_cfg["mean"]),
        "std": tuple(facts.get("std") or model.pretrained_cfg["std"]),
        "input_px": size[-1],
        "eps": float(block.norm1.eps),
        "num_heads": int(block.attn.num_heads),
        "activation": _activation(name, block.mlp),
    }


def _is_peculiar(model: Any) -> bool:
    """Return whether a model does something that its tensors do not show and the ViTs here do not do."""
    turns = getattr(model, "rope", None)
    attention = model.blocks[0].attn
    return (
        (turns is not None and type(turns).__name__ != "RotaryEmbeddingDinoV3")
        or type(getattr(model, "patch_embed", None)).__name__ != "PatchEmbed"
        or type(attention).__name__ not in ("Attention", "EvaAttention")
        or getattr(attention, "is_causal", False)
    )


def _activation(name: str, mlp: Any) -> str:
    act = getattr(mlp, "act", None)
    if type(act).__name__ not in ACTIVATIONS or getattr(mlp, "gate_last", False):
        raise BadData(f"timm's {name} has an MLP that the ViTs here do not have. Take another model.")
    return ACTIVATIONS[type(act).__name__]


def _fold(state: State, candidate: Candidate) -> State:
    state = no_bias(join_bias(join_pairs(state, "mlp.fc1_g", "mlp.fc1_x", "mlp.fc1"), candidate), candidate)
    if "norm_pre.weight" in state:  # such models have a stem without bias
        state = stem_bias(state)
    if state.get("pos_embed", torch.empty(0)).ndim == 4:
        return flat_positions(state, candidate)
    if "pos_embed" in state or any(name.endswith("relation.table") for name in state):
        return place_for_cls(state, candidate)
    # what it computes anew each time
    from timm.layers import RotaryEmbeddingDinoV3

    width = len(state["patch_embed.proj.weight"]) // int(_details(candidate)["num_heads"])
    return state | {"rope.periods": RotaryEmbeddingDinoV3(width, temperature=100.0).periods}


sources.add(
    "timm",
    Source(
        title="timm, ViTs by file or by name",
        where="https://huggingface.co/timm: model.safetensors with its config.json",
        licence="see where the file comes from",
        commercial=None,
        verified="timm: plain, registers, norm first, SwiGLU, no class token, DINOv3, BEiT, Segment Anything",
        inexact="another image size for a BEiT: see USFM",
        fits=lambda candidate: "architecture" in candidate.file.config,
        names=(
            (r"blocks\.(\d+)\.gamma_(\d)$", r"blocks.\1.ls\2.gamma"),
            (r"blocks\.(\d+)\.attn\.rel_pos_", r"blocks.\1.relation.rel_pos_"),
            (r"blocks\.(\d+)\.attn\.relative_position_bias_table$", r"blocks.\1.relation.table"),
        ),
        drops=(
            (r"head(_drop|_dist)?\.", "the classifier of what it was trained or finetuned on"),
            (r"fc_norm\.", "stands behind the mean of the patches"),
            (r"neck\.", "narrows the features for the mask decoder"),
            (r".*relative_position_index$", "is computed"),
        ),
        needs=("patch_embed.proj.bias",),
        fold=_fold,
        details=_details,
        antialias=True,
    ),
)


def file_of(name: str) -> Path:
    """Return where timm has kept the weights of a model; nothing is downloaded.

    Raises UsageError if timm has no such model, BadData if its file is not on this machine.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache

    known = timm.get_pretrained_cfg(name) if timm.is_model(name.split(".")[0]) else None
    if known is None:
        raise UsageError(f"timm has no pretrained model called '{name}'. See: timm.list_pretrained('vit*')")
    for file in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(known.hf_hub_id, file) if known.hf_hub_id else None
        if isinstance(found, str):
            return Path(found)
    raise BadData(
        f"timm's {name} is not on this machine. Download model.safetensors and config.json from "
        f"https://huggingface.co/{known.hf_hub_id or 'timm'} into a folder, and import that."
    )
