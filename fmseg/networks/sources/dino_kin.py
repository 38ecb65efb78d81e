"""DINOv2 and its kin: ViTs whose tensors are called as in DeiT, with fused queries, keys and values."""

from collections.abc import Mapping
from typing import Any

import torch

from fmseg.networks.sources.folds import flat_mask_token, join_pairs, mask_bias, share_table
from fmseg.networks.sources.source import Candidate, Source, State, sources

CHUNKED = (r"blocks\.\d+\.(\d+)\.", r"blocks.\1.")
DINOV2_NAMES = (
    CHUNKED,
    (r"register_tokens$", "reg_token"),
    (r"blocks\.(\d+)\.mlp\.w12\.", r"blocks.\1.mlp.fc1."),
    (r"blocks\.(\d+)\.mlp\.w3\.", r"blocks.\1.mlp.fc2."),
)
TOKENS = ("cls_token", "pos_embed", "patch_embed.proj.bias", "norm.weight", "norm.bias")
DINOV2_TOKENS = (*TOKENS, "mask_token")
GAMMAS = ((r"blocks\.(\d+)\.gamma_(\d)$", r"blocks.\1.ls\2.gamma"),)
HEAD = (r"head\.", "the classifier of what it was trained or finetuned on")
DINOV2 = "https://github.com/facebookresearch/dinov2"


def _is_dinov2(candidate: Candidate) -> bool:
    return any(name.endswith("ls1.gamma") for name in candidate.tensors) and not _is_dinov3(candidate)


def _is_trained_by_dinov2(candidate: Candidate) -> bool:
    return _is_dinov2(candidate) and "backbone." in candidate.root


def _is_released_dinov2(candidate: Candidate) -> bool:
    return _is_dinov2(candidate) and "mask_token" in candidate.tensors and "backbone." not in candidate.root


def _is_ultradino(candidate: Candidate) -> bool:
    stem, registers = candidate.shape("patch_embed.proj.weight"), candidate.shape("register_tokens")
    return _is_trained_by_dinov2(candidate) and stem[1:] == (1, 16, 16) and registers[1:2] == (4,)


def _is_dinov3(candidate: Candidate) -> bool:
    return "storage_tokens" in candidate.tensors or "rope_embed.periods" in candidate.tensors


def _is_plain(candidate: Candidate) -> bool:
    names = candidate.tensors
    marks = ("ls1.gamma", "gamma_1", "q_bias", "rel_pos_h", "norm_pre.weight", "reg_token")
    has_marks = any(name.endswith(marks) for name in names)
    return "pos_embed" in names and any(".attn.qkv." in name for name in names) and not has_marks


def _is_ibot(candidate: Candidate) -> bool:
    alone = candidate.root == "state_dict." and not candidate.any_name("head")
    return _is_plain(candidate) and (candidate.any_name("last_layer2|masked_embed") or alone)


def _is_dino(candidate: Candidate) -> bool:
    trained = candidate.root == "teacher.backbone." and candidate.any_name(r"head\.last_layer")
    alone = candidate.root == "" and "dino_" in candidate.file.path.name and not candidate.any_name("head")
    return _is_plain(candidate) and (trained or alone) and not _is_ibot(candidate)


def _is_mae(candidate: Candidate) -> bool:
    in_model = candidate.root == "model." and _is_sin_cos(candidate.tensors.get("pos_embed"))
    return _is_plain(candidate) and (candidate.any_name(r"decoder_blocks\.") or in_model)


def _is_sin_cos(positions: torch.Tensor | None) -> bool:
    """Return whether positions are sines and cosines: their squares add up to half of the width, CLS has none."""
    if positions is None or positions.ndim != 3:
        return False
    squares = positions[0].float().square().sum(-1)
    wanted = torch.full_like(squares, positions.shape[-1] / 2)
    wanted[0] = 0
    return bool(torch.allclose(squares, wanted, rtol=1e-3))


def _is_usfm(candidate: Candidate) -> bool:
    return "rel_pos_bias.relative_position_bias_table" in candidate.tensors


def _fold_dinov3(state: State, candidate: Candidate) -> State:
    return mask_bias(join_pairs(state, "mlp.w1", "mlp.w2", "mlp.fc1"), candidate)


def _dinov3_details(candidate: Candidate) -> Mapping[str, Any]:
    if "sat493m" not in candidate.file.path.name:
        return {}
    return {"modality": "satellite", "mean": (0.430, 0.411, 0.296), "std": (0.213, 0.156, 0.143)}


def _registers_details(candidate: Candidate) -> Mapping[str, Any]:
    """Return how the position grid is resampled: of the released ones, those with registers do it otherwise."""
    if "register_tokens" in candidate.tensors:
        return {"interpolation": "size", "antialias": True}
    # without its registers such a file would pass for another one
    return {"needs": (*DINOV2_TOKENS, "reg_token")} if "_reg" in candidate.file.path.name else {}


def _fold_mask_token(state: State, candidate: Candidate) -> State:
    return flat_mask_token(share_table(state, candidate), candidate)


sources.add(
    "dinov2",
    Source(
        title="DINOv2, released backbones (S, B, L, g; with and without registers)",
        where=f"{DINOV2}: dinov2_vit*14_pretrain.pth, dinov2_vit*14_reg4_pretrain.pth",
        licence="Apache-2.0",
        verified="timm's DINOv2, with and without registers, with SwiGLU",
        fits=_is_released_dinov2,
        names=DINOV2_NAMES,
        needs=DINOV2_TOKENS,
        details=_registers_details,
        interpolation="offset",
    ),
)
sources.add(
    "dinov2_training",
    Source(
        title="DINOv2, checkpoints of its own training (the teacher)",
        where="one's own runs: eval/training_*/teacher_checkpoint.pth",
        licence="that of the images it was made from",
        commercial=None,
        verified="reference outputs of DINOv2's own code; on one channel type --mean and --std",
        fits=lambda candidate: _is_trained_by_dinov2(candidate) and not _is_ultradino(candidate),
        names=DINOV2_NAMES,
        needs=DINOV2_TOKENS,
        interpolation="offset",
    ),
)
sources.add(
    "ultradino",
    Source(
        title="UltraDINO (the teacher)",
        where="https://github.com/jakobamb/UltraDINO: code; the weights are not public",
        licence="not published",
        commercial=None,
        modality="ultrasound",
        verified="timm, and reference outputs of DINOv2's own code",
        inexact=(
            "mean and std are those of its images: for a ViT like it trained on others type --mean and --std; "
            "its repository runs each block twice in places, here every block runs once"
        ),
        fits=_is_ultradino,
        names=DINOV2_NAMES,
        needs=(*DINOV2_TOKENS, "reg_token"),
        mean=(0.1842924807,),
        std=(0.2187705424,),
        interpolation="offset",
    ),
)
sources.add(
    "dinov3",
    Source(
        title="DINOv3, released ViTs",
        where="https://github.com/facebookresearch/dinov3 (after its licence is accepted)",
        licence="DINOv3 License",
        verified="timm's DINOv3, S and S+ layouts",
        fits=_is_dinov3,
        names=(
            (r"storage_tokens$", "reg_token"),
            (r"rope_embed\.periods$", "rope.periods"),
            (r"blocks\.(\d+)\.mlp\.w3\.", r"blocks.\1.mlp.fc2."),
        ),
        drops=((r"local_cls_norm\.", "the norm of local crops in its training"),),
        needs=(
            *("cls_token", "mask_token", "reg_token", "patch_embed.proj.bias"),
            *("norm.weight", "norm.bias", "rope.periods"),
        ),
        fold=_fold_dinov3,
        details=_dinov3_details,
        eps=1e-5,
    ),
)
sources.add(
    "dino",
    Source(
        title="DINO, released backbones and full checkpoints (the teacher)",
        where="https://github.com/facebookresearch/dino",
        licence="Apache-2.0",
        verified="timm's ViT; another image size: DINO's rule, which is that of DINOv2",
        fits=_is_dino,
        needs=TOKENS,
        interpolation="offset",
    ),
)
sources.add(
    "ibot",
    Source(
        title="iBOT, teacher and full checkpoints",
        where="https://github.com/bytedance/ibot",
        licence="Apache-2.0",
        verified="timm's ViT; another image size: iBOT's rule, which is that of DINOv2",
        fits=_is_ibot,
        names=(*GAMMAS, (r"masked_embed$", "mask_token")),
        needs=TOKENS,
        interpolation="offset",
    ),
)
sources.add(
    "mae",
    Source(
        title="MAE, encoders and full checkpoints",
        where="https://github.com/facebookresearch/mae",
        licence="CC-BY-NC-4.0",
        commercial=False,
        verified="timm's ViT",
        fits=_is_mae,
        drops=(
            (r"decoder_", "of the decoder"),
            (r"mask_token$", "as wide as the decoder"),
            (r"fc_norm\.", "stands behind the mean of the patches"),
            HEAD,
        ),
        needs=TOKENS,
    ),
)
sources.add(
    "usfm",
    Source(
        title="USFM",
        where="https://github.com/openmedlab/USFM",
        licence="CC-BY-NC-4.0",
        commercial=False,
        modality="ultrasound",
        verified="timm's BEiT with a shared table",
        inexact="the table for another image size: linear between BEiT's places, where BEiT has splines",
        fits=_is_usfm,
        names=(
            *GAMMAS,
            (r"rel_pos_bias\.relative_position_bias_table$", "table"),
        ),
        drops=(
            (r".*relative_position_index$", "is computed"),
            (r"fc_norm\.", "stands behind the mean of the patches"),
            (r"lm_head\.", "of its pretraining"),
            HEAD,
        ),
        needs=("cls_token", "patch_embed.proj.bias"),
        fold=_fold_mask_token,
    ),
)
