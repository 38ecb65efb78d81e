"""The end of a pretraining on views of more pixels, as DINOv2's last steps at 518: whether it pays, and how long.

What is small in an image (a layer of tissue, a valve) is gone in a crop scaled to 224 pixels. A network learns to see
it in a few steps at the end, for much less than a whole run on large views would take [1]. The schedules begin anew,
pressed into these steps, with a smaller learning rate; shares and sizes here are assumed, not tried.
[1] Oquab et al., DINOv2, 2023, section 5. https://arxiv.org/abs/2304.07193
"""

import math

from fmseg.planning.reasons import Reasons
from fmseg.records.plans import FinePhase, Pretraining

#: a shorter run gains more from going on as it is; from here on, weights count as well pretrained
MIN_SAMPLES = 10_000_000
#: of the samples; DINOv2 took 10,000 steps after 625,000
SHARE = 0.02
#: how much longer the sides of the views are: DINOv2's 518 instead of 224 where the images have so many pixels
MOST_TIMES, LEAST_TIMES = 518 / 224, 1.5
#: of the batch, and of the learning rate of such a batch
BATCH_SHARE, RATE_SHARE = 0.5, 0.25
#: the teacher's first momentum, so that it does not follow a student that is still warming up
MOMENTUM = 0.996


def plan_fine(
    recipe: Pretraining, prepared_size: tuple[int, int], num_devices: int, reasons: Reasons
) -> FinePhase | None:
    """Return the phase at the end of a planned run, not yet fitted into the memory; None where it does not pay.

    prepared_size: (height, width) of the stored images.
    """
    samples, patch = recipe.batch_size * recipe.iterations, recipe.architecture.patch_size
    side = recipe.views.global_size[0]
    finer = min(round(side * MOST_TIMES / patch), min(prepared_size) // patch) * patch
    if samples < MIN_SAMPLES:
        because = f"only runs of {MIN_SAMPLES:,} samples and more end on finer views, and this one has {samples:,}"
        return reasons.keep("fine", (None, because))
    if finer < LEAST_TIMES * side:
        have = f"the prepared images, {prepared_size[0]}x{prepared_size[1]}, are hardly finer than views of {side} px"
        return reasons.keep("fine", (None, f"{have}; larger ones would be prepared by another plan"))
    locally = max(2, round(recipe.views.local_size[0] * finer / side / patch)) * patch
    per_device = max(2, round(recipe.batch_size * BATCH_SHARE / num_devices))
    batch = per_device * num_devices
    sizes = f"{finer / side:.2g} times as long, as far as images of {prepared_size[0]}x{prepared_size[1]} go"
    reasons.share(("fine.global_size", "fine.local_size"), f"sides {sizes}; DINOv2 ended on 518 instead of 224")
    because = f"{SHARE:.0%} of the samples, as DINOv2's 10,000 steps were; half of the batch, for more steps"
    reasons.share(("fine.iterations", "fine.batch_size"), because)
    because = f"{RATE_SHARE} of the rate that a batch of {batch} began with, warmed up anew (assumed, not tried)"
    reasons.share(("fine.learning_rate",), because)
    rate = recipe.learning_rate * RATE_SHARE * math.sqrt(batch / recipe.batch_size)
    return FinePhase(
        global_size=(finer, finer),
        local_size=(locally, locally),
        iterations=math.ceil(SHARE * samples / batch),
        batch_size=batch,
        accumulation=1,
        checkpointing=False,
        learning_rate=float(f"{rate:.3g}"),
    )


def fine_recipe(recipe: Pretraining) -> Pretraining | None:
    """Return the recipe of the last phase of a run; None if it has none."""
    fine = recipe.fine
    if fine is None:
        return None
    _, warmest = recipe.teacher_temperature
    _, heaviest = recipe.weight_decay
    start, end = recipe.teacher_momentum
    return recipe.evolve(
        architecture=recipe.architecture.evolve(image_size=fine.global_size),
        views=recipe.views.evolve(global_size=fine.global_size, local_size=fine.local_size),
        batch_size=fine.batch_size,
        accumulation=fine.accumulation,
        checkpointing=fine.checkpointing,
        iterations=fine.iterations,
        warmup_iterations=max(1, fine.iterations // 10),
        temperature_warmup_iterations=1,
        freeze_last_layer_iterations=0,
        learning_rate=fine.learning_rate,
        min_learning_rate=min(recipe.min_learning_rate, fine.learning_rate),
        teacher_temperature=(warmest, warmest),
        teacher_momentum=(max(start, min(MOMENTUM, end)), end),
        weight_decay=(heaviest, heaviest),
        # other crops and another order than those of the first steps
        seed=recipe.seed + 1,
        fine=None,
    )
