"""Plan DINOv2 for any amount of images and time: between two known regimes, along one variable, the samples seen.

From 40 million samples on, that is 40 passes over a million images, this is the recipe of [1], which is DINOv2's [2].
Below 100,000 samples it is the recipe that learned most in trials on two cores, where DINOv2's own learns nothing.
Between the two each number moves with the logarithm of the samples. What was tried, and what is only assumed, is in
docs/explanation/planning.md.
[1] Ambsdorf et al., General Methods Make Great Domain-specific Foundation Models, 2025.
    https://arxiv.org/abs/2506.19552
[2] Oquab et al., DINOv2, 2023. https://arxiv.org/abs/2304.07193
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fmseg.console import duration
from fmseg.planning.augmentation import sided_labels
from fmseg.planning.budget import memory_gb, predict_cost
from fmseg.planning.fine_views import fine_recipe, plan_fine
from fmseg.planning.ladder import Climb, Rung, climb, default_budget_s
from fmseg.planning.pretraining_rules import (
    MIN_STD,
    Scale,
    explain_constants,
    plan_architecture,
    plan_batch,
    plan_contrast,
    plan_heads,
    plan_length,
    plan_optimisation,
    plan_views,
)
from fmseg.planning.reasons import Decision, Reasons
from fmseg.records.fingerprint import Fingerprint
from fmseg.records.labels import OutputScheme
from fmseg.records.plans import Architecture, FinePhase, Hardware, Precision, Preprocessing, Pretraining, Reason

#: a run of fewer steps is none
MIN_ITERATIONS = 20
#: share of a device's memory that a plan may fill
MEMORY_SHARE = 0.8
MEMORY_SHARE_CPU = 0.5
#: of a run whose layers are compiled
MIN_COMPILED_S = 1800.0
#: of a ViT-L
SHARDED_WIDTH = 1024


@dataclass(frozen=True, slots=True)
class CorpusFacts:
    """What the plan of a pretraining depends on: the images of one modality, of one dataset or of several."""

    num_images: int
    channels: int
    #: per channel, of the images in [0, 1]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    modality: str
    #: (height, width) of the files
    median_size: tuple[int, int]
    #: labels that speak of left or right, so that a mirrored image is another one
    sided: tuple[str, ...] = ()
    #: (height, width) of the prepared images; None for that of the files
    prepared_size: tuple[int, int] | None = None


def corpus_facts(
    fingerprint: Fingerprint, preprocessing: Preprocessing, labels: OutputScheme | None = None
) -> CorpusFacts:
    """Return what a pretraining must know of a prepared dataset. labels: of its masks, if it has any."""
    return CorpusFacts(
        num_images=fingerprint.num_images,
        channels=preprocessing.channels,
        mean=preprocessing.mean,
        std=preprocessing.std,
        modality=fingerprint.modality,
        median_size=fingerprint.median_size,
        sided=sided_labels(labels),
        prepared_size=preprocessing.image_size,
    )


def pool_facts(parts: Sequence[CorpusFacts]) -> CorpusFacts:
    """Return the facts of several sets of one modality and channel number together, weighted by their images."""
    total = sum(part.num_images for part in parts)
    shares = [part.num_images / total for part in parts]

    def channel(index: int) -> tuple[float, float]:
        mean = sum(share * part.mean[index] for share, part in zip(shares, parts, strict=True))
        square = sum(
            share * (part.std[index] ** 2 + part.mean[index] ** 2) for share, part in zip(shares, parts, strict=True)
        )
        return mean, math.sqrt(max(0.0, square - mean**2))

    moments = [channel(index) for index in range(parts[0].channels)]
    largest = max(parts, key=lambda part: part.num_images)
    return replace(
        largest,
        num_images=total,
        mean=tuple(round(mean, 4) for mean, _ in moments),
        std=tuple(round(std, 4) for _, std in moments),
        sided=tuple(dict.fromkeys(name for part in parts for name in part.sided)),
    )


def plan_pretraining(
    facts: CorpusFacts,
    hardware: Hardware,
    *,
    budget_s: float | None = None,
    measured_step_s: float | None = None,
    seed: int = 0,
) -> tuple[Pretraining, tuple[Reason, ...]]:
    """Return the recipe and a reason for each of its numbers.

    budget_s: time for the whole run; None for the machine's usual one. measured_step_s: seconds of a step of the
    recipe that this function returns without it; the length is then planned from it instead of a rule of thumb.
    """
    seconds = default_budget_s(hardware) if budget_s is None else budget_s
    if measured_step_s is not None:
        guess, _ = plan_pretraining(facts, hardware, budget_s=seconds, seed=seed)
        speed = predict_cost(guess, hardware).step_s / measured_step_s
        hardware = hardware.evolve(gflops=hardware.gflops * speed)
    reached = climb(facts.num_images, seconds, lambda rung, n: _seconds(facts, hardware, rung, n))
    return build_recipe(facts, hardware, reached, seed=seed)


def _seconds(facts: CorpusFacts, hardware: Hardware, rung: Rung, samples: int) -> float:
    reached = Climb(rung, samples, 0.0, 0, None, math.inf)
    return predict_cost(build_recipe(facts, hardware, reached, seed=0)[0], hardware).seconds


def build_recipe(
    facts: CorpusFacts, hardware: Hardware, reached: Climb, *, seed: int
) -> tuple[Pretraining, tuple[Reason, ...]]:
    """Return the recipe of a rung and a number of samples."""
    reasons = Reasons("pretraining")
    scale = Scale.of(reached.samples)
    size = facts.median_size
    views = plan_views(facts.modality, facts.channels, size, reached.rung, scale, facts.sided, reasons)
    architecture = plan_architecture(reached, views, facts.channels, facts.median_size, scale, reasons)
    batch = plan_batch(facts.num_images, hardware.num_devices, scale, reasons)
    iterations = max(MIN_ITERATIONS, math.ceil(reached.samples / batch))
    because = "mean and spread of the whole set's pixels, scaled to [0, 1]: the network sees (value - mean) / std"
    reasons.share(("mean", "std"), because)
    recipe = Pretraining(
        architecture=architecture,
        views=views,
        mean=facts.mean,
        std=tuple(max(MIN_STD, value) for value in facts.std),
        batch_size=batch,
        accumulation=1,
        sharding=reasons.keep("sharding", sharding_for(architecture, hardware)),
        precision=reasons.keep("precision", precision_for(hardware)),
        compile=reasons.keep("compile", compile_for(hardware, reached.budget_s)),
        seed=seed,
        **plan_length(reached, facts.num_images, batch, iterations, reasons),
        **plan_heads(scale, reasons),
        **plan_contrast(scale, reasons),
        **plan_optimisation(scale, batch, reasons),
        **explain_constants(reasons),
    )
    accumulation, checkpointing, because = fit_into_memory(recipe, hardware)
    reasons.share(("accumulation", "checkpointing"), because)
    recipe = recipe.evolve(accumulation=accumulation, checkpointing=checkpointing)
    return recipe.evolve(fine=_fitted_fine(recipe, facts, hardware, reasons)), reasons.all()


def _fitted_fine(recipe: Pretraining, facts: CorpusFacts, hardware: Hardware, reasons: Reasons) -> FinePhase | None:
    """Return the phase on finer views at the end of a run, as much of it at a time as the memory holds."""
    fine = plan_fine(recipe, facts.prepared_size or facts.median_size, hardware.num_devices, reasons)
    finer = fine_recipe(recipe.evolve(fine=fine))
    if fine is None or finer is None:
        return None
    accumulation, checkpointing, because = fit_into_memory(finer, hardware)
    reasons.share(("fine.accumulation", "fine.checkpointing"), because)
    return fine.evolve(accumulation=accumulation, checkpointing=checkpointing)


def precision_for(hardware: Hardware) -> tuple[Precision, str]:
    """Return the number format of the matrix products."""
    if hardware.has_bfloat16:
        return "bfloat16", f"this {hardware.device} multiplies bfloat16 at least twice as fast as float32"
    if hardware.device == "cuda":
        return "float16", "this GPU has no bfloat16; float16 needs loss scaling, which is done"
    return "float32", f"this {hardware.device} has no fast half precision"


def compile_for(hardware: Hardware, budget_s: float) -> Decision[bool]:
    """Return whether each layer is compiled."""
    if hardware.device != "cuda":
        return (
            False,
            f"on this {hardware.device} compiled layers are no faster, and the first step takes a minute longer",
        )
    if budget_s < MIN_COMPILED_S:
        return False, f"compiling takes about a minute, too much for a run below {duration(MIN_COMPILED_S)}"
    return True, "CUDA: norms, activations and residuals of a layer are done in few passes (not measured on this GPU)"


def sharding_for(vit: Architecture, hardware: Hardware) -> tuple[Literal["ddp", "fsdp"], str]:
    """Return whether each device holds the whole network or a part of it."""
    if hardware.num_devices == 1:
        return "ddp", "there is one device"
    if vit.width >= SHARDED_WIDTH:
        return "fsdp", f"from a ViT-L on, parameters and moments are shared out among {hardware.num_devices} devices"
    return "ddp", "parameters and moments of a network below a ViT-L are small beside its activations"


def fit_into_memory(recipe: Pretraining, hardware: Hardware) -> tuple[int, bool, str]:
    """Return into how many parts a device's share of the batch is cut, and whether layers are computed anew.

    Computing anew costs a third more time, but leaves the images that KoLeo compares together: it comes first.
    """
    share = recipe.batch_size // hardware.num_devices
    room = hardware.memory_gb * (MEMORY_SHARE_CPU if hardware.device == "cpu" else MEMORY_SHARE)
    anew = recipe.evolve(checkpointing=True)
    if memory_gb(recipe, share, hardware) <= room:
        need = memory_gb(recipe, share, hardware)
        return 1, False, f"{share} images at a time take about {need:.1f} GB, of {room:.0f} GB that may be used"
    # KoLeo looks for the nearest other image, so a part has at least two
    parts = [n for n in range(1, max(1, share // 2) + 1) if share % n == 0]
    accumulation = next((n for n in parts if memory_gb(anew, share // n, hardware) <= room), parts[-1])
    need = memory_gb(anew, share // accumulation, hardware)
    return (
        accumulation,
        True,
        (
            f"{share // accumulation} images at a time take about {need:.1f} GB with each layer computed anew in the "
            f"backward pass, of {room:.0f} GB that may be used; {memory_gb(recipe, share, hardware):.0f} GB otherwise"
        ),
    )
