"""The optimizer of a pretraining, and what it does when: AdamW with layer decay, cosines, frozen prototypes."""

import torch
from torch import nn

from fmseg.learning.optim import adamw, cosine, parameter_groups, set_step, warmup_cosine
from fmseg.records.plans import Pretraining


def pretraining_optimizer(model: nn.Module, recipe: Pretraining) -> torch.optim.AdamW:
    """Return the optimizer of a student."""
    groups = parameter_groups(
        model.named_parameters(),
        depth=recipe.architecture.depth,
        layer_decay=recipe.layer_decay,
        patch_embed_factor=recipe.patch_embed_factor,
    )
    return adamw(groups)


def set_pretraining_step(optimizer: torch.optim.Optimizer, recipe: Pretraining, step: int) -> dict[str, float]:
    """Write learning rate and weight decay of one step; return what is logged."""
    total = recipe.iterations
    lr = warmup_cosine(
        step,
        total=total,
        warmup=recipe.warmup_iterations,
        start=0.0,
        peak=recipe.learning_rate,
        end=recipe.min_learning_rate,
    )
    weight_decay = cosine(step, total, *recipe.weight_decay)
    is_frozen = step < recipe.freeze_last_layer_iterations
    set_step(optimizer, lr, weight_decay, last_layer_lr=0.0 if is_frozen else lr)
    return {"learning_rate": lr, "weight_decay": weight_decay}
