"""Encoders of larger models, other libraries' names, and sources of which nothing can be used."""

from collections.abc import Mapping
from typing import Any

from fmseg.networks.sources.folds import flat_positions, flat_tokens, join_qkv
from fmseg.networks.sources.source import CLIP, Candidate, Source, sources

CLIP_NAMES = (
    (r"conv1\.", "patch_embed.proj."),
    (r"class_embedding$", "cls_token"),
    (r"positional_embedding$", "pos_embed"),
    (r"ln_pre\.", "norm_pre."),
    (r"ln_post\.", "norm."),
    (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"transformer\.resblocks\.(\d+)\.ln_(\d)\.", r"blocks.\1.norm\2."),
    (r"transformer\.resblocks\.(\d+)\.ls_(\d)\.", r"blocks.\1.ls\2."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"blocks.\1.mlp.fc1."),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"blocks.\1.mlp.fc2."),
)
CLIP_NEEDS = ("cls_token", "pos_embed", "norm_pre.weight", "norm_pre.bias", "norm.weight", "norm.bias")
CLIP_DROPS = ((r"proj$", "leads into the space of the texts"),)
SAM_NECK = "narrows the features for the mask decoder"


def _is_clip(candidate: Candidate) -> bool:
    return "class_embedding" in candidate.tensors and candidate.any_name(r"transformer\.resblocks\.")


def _clip_details(candidate: Candidate) -> Mapping[str, Any]:
    """Return what open_clip_config.json says: the tensors alone say nothing of activation and normalisation."""
    config = candidate.file.config
    model, images = config.get("model_cfg", {}), config.get("preprocess_cfg", {})
    vision = model.get("vision_cfg", {})
    found: dict[str, Any] = {"activation": "quick_gelu" if model.get("quick_gelu") else "gelu"}
    if "width" in vision:
        found["num_heads"] = vision["width"] // vision.get("head_width", 64)
    if "image_size" in vision:
        found["input_px"] = vision["image_size"]
    return found | {key: tuple(images[key]) for key in ("mean", "std") if key in images}


def _is_sam(candidate: Candidate) -> bool:
    return candidate.root.endswith("image_encoder.") and candidate.any_name("rel_pos_h")


def _is_ultrasam(candidate: Candidate) -> bool:
    return len(candidate.tensors) < len(candidate.file.tensors) and candidate.any_name(r"layers\.\d+\.attn\.rel_pos_h")


def _is_huggingface(candidate: Candidate) -> bool:
    return any(name.endswith("layer_scale1.lambda1") for name in candidate.tensors)


def _huggingface_details(candidate: Candidate) -> Mapping[str, Any]:
    config, images = candidate.file.config, candidate.file.preprocessing
    found: dict[str, Any] = {"antialias": "embeddings.register_tokens" in candidate.tensors}
    named = {"num_heads": "num_attention_heads", "eps": "layer_norm_eps"}
    found |= {ours: config[theirs] for ours, theirs in named.items() if theirs in config}
    return found | {ours: tuple(images[f"image_{ours}"]) for ours in ("mean", "std") if f"image_{ours}" in images}


sources.add(
    "fetalclip",
    Source(
        title="FetalCLIP, visual tower",
        where="https://huggingface.co/numansaeed/fetalclip-model",
        licence="CC-BY-NC-4.0",
        commercial=False,
        modality="ultrasound",
        verified="open_clip",
        inexact="mean and std are open_clip's usual ones; its authors state none",
        stem="conv1.weight",
        fits=_is_clip,
        file_name="fetal",
        names=CLIP_NAMES,
        drops=CLIP_DROPS,
        needs=CLIP_NEEDS,
        fold=flat_tokens,
        mean=CLIP[0],
        std=CLIP[1],
        antialias=True,
        eps=1e-5,
    ),
)
sources.add(
    "open_clip",
    Source(
        title="open_clip, visual towers of ViTs",
        where="https://github.com/mlfoundations/open_clip; keep open_clip_config.json beside the file",
        licence="see where the file comes from",
        commercial=None,
        verified="open_clip, exact and quick GELU",
        stem="conv1.weight",
        fits=lambda candidate: _is_clip(candidate) and "model_cfg" in candidate.file.config,
        names=CLIP_NAMES,
        drops=CLIP_DROPS,
        needs=CLIP_NEEDS,
        fold=flat_tokens,
        details=_clip_details,
        mean=CLIP[0],
        std=CLIP[1],
        antialias=True,
        eps=1e-5,
    ),
)
sources.add(
    "sam",
    Source(
        title="Segment Anything, image encoder",
        where="https://github.com/facebookresearch/segment-anything",
        licence="Apache-2.0",
        verified="timm's ViT of Segment Anything",
        inexact="another image size than 1024, which the original does not take",
        fits=_is_sam,
        names=(
            (r"blocks\.(\d+)\.mlp\.lin(\d)\.", r"blocks.\1.mlp.fc\2."),
            (r"blocks\.(\d+)\.attn\.rel_pos_", r"blocks.\1.relation.rel_pos_"),
        ),
        drops=((r"neck\.", SAM_NECK),),
        needs=("pos_embed", "patch_embed.proj.bias"),
        fold=flat_positions,
        input_px=1024,
    ),
)
sources.add(
    "ultrasam",
    Source(
        title="UltraSam, image encoder",
        where="https://github.com/CAMMA-public/UltraSam",
        licence="CC-BY-NC-SA-4.0",
        commercial=False,
        modality="ultrasound",
        verified="timm's ViT of Segment Anything",
        stem="patch_embed.projection.weight",
        fits=_is_ultrasam,
        names=(
            (r"patch_embed\.projection\.", "patch_embed.proj."),
            (r"layers\.(\d+)\.ln(\d)\.", r"blocks.\1.norm\2."),
            (r"layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
            (r"layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
            (r"layers\.(\d+)\.attn\.rel_pos_", r"blocks.\1.relation.rel_pos_"),
            (r"layers\.(\d+)\.attn\.", r"blocks.\1.attn."),
        ),
        drops=((r"channel_reduction\.", SAM_NECK),),
        needs=("pos_embed", "patch_embed.proj.bias"),
        fold=flat_positions,
        input_px=1024,
    ),
)
sources.add(
    "huggingface",
    Source(
        title="DINOv2 of Hugging Face transformers",
        where="https://huggingface.co/facebook/dinov2-base and others: the folder, with its JSON files",
        licence="Apache-2.0",
        verified="transformers' Dinov2Model and Dinov2WithRegistersModel",
        inexact="another image size: as transformers resamples positions, which is not as DINOv2 does",
        stem="embeddings.patch_embeddings.projection.weight",
        fits=_is_huggingface,
        names=(
            (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"embeddings\.(cls|mask)_token$", r"\1_token"),
            (r"embeddings\.register_tokens$", "reg_token"),
            (r"embeddings\.position_embeddings$", "pos_embed"),
            (r"layernorm\.", "norm."),
            (r"encoder\.layer\.(\d+)\.attention\.attention\.", r"blocks.\1.attn."),
            (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
            (r"encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1$", r"blocks.\1.ls\2.gamma"),
            (r"encoder\.layer\.(\d+)\.mlp\.weights_in\.", r"blocks.\1.mlp.fc1."),
            (r"encoder\.layer\.(\d+)\.mlp\.weights_out\.", r"blocks.\1.mlp.fc2."),
            (r"encoder\.layer\.(\d+)\.", r"blocks.\1."),
        ),
        drops=((r"classifier\.", "the classifier of what it was trained or finetuned on"),),
        needs=("cls_token", "pos_embed", "patch_embed.proj.bias", "norm.weight", "norm.bias"),
        fold=join_qkv,
        details=_huggingface_details,
    ),
)
sources.add(
    "nnssl",
    Source(
        title="nnssl (MAE and others on volumes)",
        where="https://github.com/MIC-DKFZ/nnssl",
        licence="Apache-2.0",
        refusal="its networks see volumes, and the ViTs here see images",
        stem="down_projection.proj.weight",
        fits=lambda candidate: len(candidate.shape("down_projection.proj.weight")) == 5,
    ),
)
sources.add(
    "mofo",
    Source(
        title="MOFO",
        where="nowhere: neither code nor weights were found in public",
        licence="not published",
        commercial=None,
        modality="ultrasound",
        refusal="its weights were never published",
    ),
)
