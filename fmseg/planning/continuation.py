"""Plan a pretraining that goes on from a checkpoint: its network as it is, a length for the new images, and caution.

How careful to be follows what the checkpoint has seen, as in finetuning: weights that are as good as random have
nothing to lose. The caution itself is assumed: one run from DINOv2's weights on, with all of it, gained (LOG.md,
2026-11-22); nothing else was tried.
"""

import math
from collections.abc import Sequence
from typing import Any

from fmseg.errors import UnknownName, UsageError
from fmseg.planning.budget import predict_cost
from fmseg.planning.finetuning import pretraining_strength
from fmseg.planning.ladder import RUNGS, Climb, Rung, default_budget_s, most_within, useful_samples
from fmseg.planning.pretraining import MIN_ITERATIONS, CorpusFacts, build_recipe, fit_into_memory
from fmseg.planning.reasons import Reasons, between, between_powers
from fmseg.planning.starting_point import Found
from fmseg.records.foundation import Foundation
from fmseg.records.plans import Hardware, Pretraining, Reason
from fmseg.registry import unknown

#: of well pretrained weights: share of the usual learning rate, layer decay, factor of the patch embedding
CAREFUL_RATE, CAREFUL_DECAY, CAREFUL_PATCHES = 0.25, 0.8, 0.1
#: the teacher's first momentum, so that it does not follow a student that is still warming up
CAREFUL_MOMENTUM = 0.996
#: numbers that the heads are made of
HEADS = (
    "num_prototypes",
    "head_hidden",
    "head_bottleneck",
    "shared_head",
    "trainable_gain",
    "centering",
    "pixel_weight",
)


def find_parent(found: Sequence[Found], modality: str, channels: int, name: str) -> Found:
    """Return the checkpoint called ``name``, or ``modality/name``.

    Raises UnknownName if there is none, UsageError if it is of another modality, unless that was typed too or it was
    imported, or if it cannot take so many channels.
    """
    typed, _, short = name.rpartition("/")
    named = [pair for pair in found if pair[1].name == short and typed in ("", pair[1].modality)]
    if not named:
        raise UnknownName(
            f"{unknown('foundation checkpoint', name, [card.name for _, card in found])} See: fmseg list foundations"
        )
    same = [pair for pair in named if pair[1].origin or pair[1].modality.split("-")[0] == modality.split("-")[0]]
    folder, card = (same or named)[0]
    if not same and not typed:
        raise UsageError(
            f"--init {name}: that checkpoint is of {card.modality}, and the images are of {modality}. "
            f"If you mean it, type --init {card.modality}/{card.name}"
        )
    return folder, card.for_channels(channels)


def plan_continuation(
    parent: Foundation,
    facts: CorpusFacts,
    hardware: Hardware,
    *,
    keeps_heads: bool,
    budget_s: float | None = None,
    measured_step_s: float | None = None,
) -> tuple[Pretraining, tuple[Reason, ...]]:
    """Return the recipe and a reason for each of its numbers. See ``plan_pretraining`` for the rest."""
    seconds = default_budget_s(hardware) if budget_s is None else budget_s
    useful = useful_samples(facts.num_images)

    def build(rung: Rung, samples: int) -> tuple[Pretraining, tuple[Reason, ...]]:
        reached = Climb(rung, samples, seconds, useful, None, math.inf)
        return _continued(parent, *build_recipe(facts, hardware, reached, seed=0), hardware, keeps_heads=keeps_heads)

    def clock(rung: Rung, samples: int) -> float:
        return predict_cost(build(rung, samples)[0], hardware).seconds

    if measured_step_s is not None:
        guess, _ = plan_continuation(parent, facts, hardware, keeps_heads=keeps_heads, budget_s=seconds)
        speed = predict_cost(guess, hardware).step_s / measured_step_s
        hardware = hardware.evolve(gflops=hardware.gflops * speed)
    first, *larger = _rungs_of(parent)
    fitting = [rung for rung in larger if clock(rung, min(rung.samples, useful)) <= seconds]
    rung = fitting[-1] if fitting else first
    samples = most_within(seconds, 1, useful, lambda samples: clock(rung, samples))
    return build(rung, max(samples, MIN_ITERATIONS))


def _rungs_of(parent: Foundation) -> list[Rung]:
    """Return the parent's network with each size of views that it may go on with, the smallest first.

    Its own, if it was pretrained here. Other people's weights were made for large images: they get the views of the
    ladder up to that size, so that here too time goes into length first.
    """
    vit = parent.architecture
    network = (vit.name, vit.width, vit.depth, vit.num_heads, vit.num_registers)
    if parent.recipe is not None:
        views = parent.recipe.views
        return [Rung(*network, views.global_size[0], views.local_size[0], 0)]
    native = parent.origin.input_px if parent.origin else vit.image_size[0]
    sizes: dict[tuple[int, int], int] = {}
    for rung in RUNGS:
        if rung.global_px <= native:
            sizes.setdefault((rung.global_px, rung.local_px), rung.samples)
    sizes = sizes or {(native, round(native * 96 / 224)): 0}
    return [Rung(*network, *pixels, samples) for pixels, samples in sizes.items()]


def _continued(
    parent: Foundation,
    recipe: Pretraining,
    because: tuple[Reason, ...],
    hardware: Hardware,
    *,
    keeps_heads: bool,
) -> tuple[Pretraining, tuple[Reason, ...]]:
    """Return a fresh recipe made into one that goes on, with the reasons of what differs."""
    reasons = Reasons("pretraining")
    changes: dict[str, Any] = {"architecture": parent.architecture, "mean": parent.mean, "std": parent.std}
    inner = tuple(f"architecture.{name}" for name in type(parent.architecture).model_fields)
    reasons.share((*inner, "mean", "std"), f"those of {parent.name}, whose weights are made for them")
    if parent.recipe is not None:
        sizes = {"global_size": parent.recipe.views.global_size, "local_size": parent.recipe.views.local_size}
        changes["views"] = recipe.views.evolve(**sizes)
        reasons.share(tuple(f"views.{name}" for name in sizes), f"those that {parent.name} was trained with")
    else:
        patch = parent.architecture.patch_size
        sizes = {
            "global_size": _whole_patches(recipe.views.global_size, patch, 4),
            "local_size": _whole_patches(recipe.views.local_size, patch, 2),
        }
        changes["views"] = recipe.views.evolve(**sizes)
        because_of_patch = f"as far as time, images and {parent.name} allow, in whole patches of its {patch} pixels"
        reasons.share(tuple(f"views.{name}" for name in sizes), because_of_patch)
    if keeps_heads and parent.recipe is not None:
        changes |= {name: getattr(parent.recipe, name) for name in HEADS}
        last = parent.recipe.teacher_temperature[1]
        changes["teacher_temperature"] = (last, last)
        reasons.share((*HEADS, "teacher_temperature"), f"the heads of {parent.name} go on, at their last temperature")
    changes |= _caution(parent, recipe, reasons)
    made = recipe.evolve(**changes)
    accumulation, checkpointing, why = fit_into_memory(made, hardware)
    reasons.share(("accumulation", "checkpointing"), why)
    told = {reason.key for reason in reasons.all()}
    others = tuple(reason for reason in because if reason.key not in told)
    return made.evolve(accumulation=accumulation, checkpointing=checkpointing), (*reasons.all(), *others)


def _whole_patches(size: tuple[int, int], patch: int, least: int) -> tuple[int, int]:
    """Return (height, width) as the nearest whole numbers of patches, ``least`` of them at least."""
    height, width = (max(least, round(side / patch)) * patch for side in size)
    return height, width


def _caution(parent: Foundation, recipe: Pretraining, reasons: Reasons) -> dict[str, Any]:
    """Return the numbers that keep what the parent has learned, as far as it has learned something."""
    strength = pretraining_strength(parent)
    known = "an unknown number of" if any(parent.foreign) else f"{parent.total_samples:,}"
    seen = f"{parent.name} has seen {known} samples, {strength:.0%} of the way to well pretrained"
    rate = recipe.learning_rate * between_powers(1, CAREFUL_RATE, strength)
    reasons.share(("learning_rate",), f"{seen}: from the usual peak down to a quarter of it (assumed, not tried)")
    because = f"{seen}: the first layers, which hold what all such images share, are slowed more (assumed, not tried)"
    reasons.share(("layer_decay", "patch_embed_factor"), because)
    reasons.share(("warmup_iterations",), "a tenth of the run: the optimizer's moments begin anew")
    because = f"{seen}: the teacher follows slowly while the student warms up (assumed, not tried)"
    reasons.share(("teacher_momentum",), because)
    first, last = recipe.teacher_momentum
    return {
        "learning_rate": float(f"{rate:.3g}"),
        "layer_decay": between(recipe.layer_decay, CAREFUL_DECAY, strength, 3),
        "patch_embed_factor": between(recipe.patch_embed_factor, CAREFUL_PATCHES, strength, 3),
        "teacher_momentum": (between(first, max(first, CAREFUL_MOMENTUM), strength, 4), last),
    }
