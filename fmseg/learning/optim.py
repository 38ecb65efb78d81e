"""Which parameters learn how fast, and when: groups, schedules, clipping, the step.

Groups carry factors, schedules are functions of the step; ``set_step`` multiplies them. So nothing about them
need be saved, and a schedule can be drawn without training.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from fmseg.learning.parallel import whole

#: parts of a name that belong to what comes before the first block
STEM = {"patch_embed", "pos_embed", "cls_token", "mask_token", "reg_token", "register_tokens", "norm_pre"}
#: parts of a name that belong to the weight-normed prototypes of a DINO head
PROTOTYPES = {"last_layer", "prototypes"}
BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


def layer_of(name: str, depth: int) -> int:
    """Return how far a parameter is from the image: 0 the patch embedding and tokens, i + 1 block i.

    Everything behind the blocks (final norm, decoders, heads) is depth + 1. The name may have any prefix, as
    in ``backbone.vit.blocks.3.norm1.weight``.
    """
    parts = name.split(".")
    if any(part == "decoder" or part.endswith("head") for part in parts):
        return depth + 1
    if STEM.intersection(parts):
        return 0
    block = BLOCK.search(name)
    return int(block[1]) + 1 if block else depth + 1


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    depth: int,
    layer_decay: float = 1.0,
    patch_embed_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Return optimizer groups of the trainable parameters, one for each different treatment.

    Besides ``params`` a group has ``lr_factor`` (layer_decay to the power of the layers above it, times
    patch_embed_factor for the patch embedding), ``wd_factor`` and ``last_layer`` (the prototypes).

    ``wd_factor`` is 0 for all vectors, that is biases, norms and LayerScale, else 1: DINOv2 decays tokens,
    position embedding and the gain of the prototypes, and so do we.
    """
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        parts = set(name.split("."))
        lr_factor = layer_decay ** (depth + 1 - layer_of(name, depth))
        if "patch_embed" in parts:
            lr_factor *= patch_embed_factor
        key = (lr_factor, float(parameter.ndim > 1), bool(PROTOTYPES & parts))
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr_factor": lr_factor, "wd_factor": wd_factor, "last_layer": last_layer}
        for (lr_factor, wd_factor, last_layer), parameters in groups.items()
    ]


def adamw(groups: list[dict[str, Any]], *, betas: tuple[float, float] = (0.9, 0.999)) -> torch.optim.AdamW:
    """Return AdamW over ``groups``; learning rate and weight decay come from ``set_step``.

    The fused kernel is three times as fast as the others on a CPU too, and can leave out a step without
    the host knowing.
    """
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0, betas=betas, fused=True)


def sgd(groups: list[dict[str, Any]], *, momentum: float) -> torch.optim.SGD:
    """Return SGD with Nesterov's momentum over ``groups``; learning rate and weight decay come from ``set_step``.

    Not torch's fused kernel: where that leaves out a first step, it leaves momentum behind that nobody has written.
    """
    return torch.optim.SGD(groups, lr=0.0, weight_decay=0.0, momentum=momentum, nesterov=momentum > 0)


def set_step(
    optimizer: torch.optim.Optimizer, lr: float, weight_decay: float, last_layer_lr: float | None = None
) -> None:
    """Write this step's learning rate and weight decay into the groups, times their factors.

    last_layer_lr: of the prototypes, 0 while they are frozen; None for the same as all.
    """
    for group in optimizer.param_groups:
        frozen_lr = last_layer_lr if group["last_layer"] else None
        group["lr"] = (lr if frozen_lr is None else frozen_lr) * group["lr_factor"]
        group["weight_decay"] = weight_decay * group["wd_factor"]


def linear(step: int, total: int, start: float, end: float) -> float:
    """Return a value that goes from ``start`` at step 0 to ``end`` at step total - 1, and stays there."""
    if step >= total:
        return end
    return start if total == 1 else start + (end - start) * step / (total - 1)


def cosine(step: int, total: int, start: float, end: float) -> float:
    """Return a value that goes from ``start`` at step 0 to ``end`` at step ``total`` along half a cosine."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * min(step / total, 1.0))) if total else end


def warmup_cosine(step: int, *, total: int, warmup: int, start: float, peak: float, end: float) -> float:
    """Return a value that rises linearly over ``warmup`` steps, then falls along a cosine (DINOv2's)."""
    if step < warmup:
        return linear(step, warmup, start, peak)
    return cosine(step - warmup, total - warmup, peak, end)


def warmup_poly(step: int, *, total: int, warmup: int, peak: float, end: float = 0.0, power: float = 1.0) -> float:
    """Return a value that rises linearly from peak / warmup, then falls as (1 - progress) ** power."""
    if step < warmup:
        return peak * (step + 1) / warmup
    left = max(1 - (step - warmup) / max(total - warmup, 1), 0.0)
    return end + (peak - end) * left**power


def clip_groups(modules: Sequence[nn.Module], optimizer: torch.optim.Optimizer) -> list[list[Tensor]]:
    """Return the lists of parameters whose gradients are clipped together: one a module, one for the rest."""
    trained = {id(parameter): parameter for group in optimizer.param_groups for parameter in group["params"]}
    groups = [[trained.pop(id(p)) for p in module.parameters() if id(p) in trained] for module in modules]
    return [group for group in [*groups, list(trained.values())] if group]


def clip_and_step(
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Sequence[Tensor]],
    clip_norm: float,
    scaler: torch.amp.GradScaler,
) -> Tensor:
    """Clip each group's gradients to ``clip_norm`` (0: not at all) and step, unless one of them is not finite.

    Returns the norm of all gradients before clipping, a 0-d tensor; not finite means that the step was left
    out, moments and all. The host does not wait for the device to learn that: the kernel is told.
    """
    scaler.unscale_(optimizer)
    norms = []
    for group in groups:
        gradients = [parameter.grad for parameter in group if parameter.grad is not None]
        if not gradients:
            continue
        norms.append(whole(get_total_norm(gradients)))
        if clip_norm > 0:
            clip_grads_with_norm_(group, clip_norm, norms[-1])
    norm = torch.linalg.vector_norm(torch.stack(norms))
    if scaler.is_enabled():
        scaler.step(optimizer)
        scaler.update()
        return norm
    _step_if(torch.isfinite(norm), optimizer)
    return norm


def _step_if(is_finite: Tensor, optimizer: torch.optim.Optimizer) -> None:
    is_sharded = any(isinstance(p, DTensor) for group in optimizer.param_groups for p in group["params"])
    if is_sharded or not optimizer.defaults.get("fused"):
        if is_finite:
            optimizer.step()
        return
    # how GradScaler tells a fused kernel: it leaves the parameters, the moments and the step count alone
    optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.step()
    del optimizer.found_inf, optimizer.grad_scale  # type: ignore[attr-defined]
