"""A finetuning of another length than planned: what was derived from the number of steps is derived anew."""

from collections.abc import Mapping

from fmseg.planning.classification import mixed
from fmseg.planning.finetuning import (
    FOLD_SECONDS,
    MIN_ITERATIONS,
    adapt_finetuning,
    drop_path_of,
    ema_decay_of,
    finetuning_images_per_s,
    learning_rate_of,
    predicted_fold_seconds,
)
from fmseg.planning.reasons import Reasons
from fmseg.planning.step_cost import CNN_GFLOP, step_gflop
from fmseg.planning.unet import optimisation_of
from fmseg.records.foundation import Foundation
from fmseg.records.plans import Plans, Reason
from fmseg.records.recipe import Recipe
from fmseg.records.settings import apply_settings, parse_setting


def for_start(
    planned: Recipe,
    settings: Mapping[str, str],
    plans: Plans,
    foundation: Foundation | None,
    num_classified: int | None = None,
    network: str = "vit",
) -> tuple[Recipe, tuple[Reason, ...]]:
    """Return the numbers common to all recipes for the weights that a run starts from, with the reasons.

    settings: as typed; the ``iterations`` among them go before any rule. foundation: None for random weights.
    num_classified: the training images, where whole images have classes. network: of the recipe.
    """
    because: tuple[Reason, ...] = ()
    if "iterations" in settings:
        planned = of_settings(planned, settings, num_classified)
    elif foundation is not None or network in CNN_GFLOP:
        planned, because = of_network(planned, plans, foundation, num_classified, network)
    adapted, careful = adapt_finetuning(planned, foundation)
    return adapted, (*because, *careful)


def of_length(planned: Recipe, iterations: int, num_classified: int | None = None) -> Recipe:
    """Return the numbers common to all recipes for a run of so many steps from random weights.

    num_classified: the training images, where whole images have classes; how often each is seen decides on mixing.
    """
    if iterations == planned.iterations:
        return planned
    rate, _ = learning_rate_of(iterations)
    drop_path, _ = drop_path_of(iterations)
    found = apply_settings(planned, {"iterations": str(iterations)})  # schedules are stretched
    found = found.evolve(learning_rate=rate, drop_path=drop_path, ema_decay=ema_decay_of(iterations))
    if num_classified:
        found = mixed(found, num_classified)
    if planned.unet_optimisation is None:
        return found
    return found.evolve(unet_optimisation=optimisation_of(iterations, rate)[0])


def of_settings(planned: Recipe, settings: Mapping[str, str], num_classified: int | None = None) -> Recipe:
    """Return the numbers for the ``iterations`` that ``--set`` gives; a wrong value is refused where it is applied."""
    steps = parse_setting(settings.get("iterations", ""))
    return of_length(planned, steps, num_classified) if type(steps) is int and steps > 0 else planned


def of_network(
    planned: Recipe,
    plans: Plans,
    foundation: Foundation | None,
    num_classified: int | None = None,
    network: str = "vit",
) -> tuple[Recipe, tuple[Reason, ...]]:
    """Return the numbers for a network that costs more than the planned one: steps that take as long.

    A plan gives a fold so many minutes, and as many steps as the planned network does in them. A larger one, such as
    other people's or a CNN, would take several times as long; well pretrained it also needs fewer steps.
    """
    architecture = plans.pretraining.architecture
    own = predicted_fold_seconds(planned, architecture, plans.hardware)
    theirs = foundation.architecture if foundation else architecture
    seconds = predicted_fold_seconds(planned.evolve(network=network), theirs, plans.hardware)
    allowed = max(own, FOLD_SECONDS[plans.hardware.device])
    steps = min(planned.iterations, max(MIN_ITERATIONS, int(round(planned.iterations * allowed / seconds, -1))))
    if seconds <= allowed or steps == planned.iterations:
        return planned, ()
    reasons = Reasons("finetuning")
    name = foundation.name if foundation else network
    because = f"a step of {name} takes {seconds / own:.1f} times as long as one of the planned network"
    reasons.share(("iterations",), f"{because}; {planned.iterations:,} with --set iterations")
    return of_length(planned, steps, num_classified), reasons.all()


def run_seconds(recipe: Recipe, plans: Plans, foundation: Foundation | None, num_images: int, num_tested: int) -> float:
    """Return the time of a run by rule of thumb: its steps, or features of all images, and the test."""
    architecture = foundation.architecture if foundation else plans.pretraining.architecture
    images_per_s = finetuning_images_per_s(plans.hardware, step_gflop(recipe, architecture) / 3)
    mirrored = num_tested * 2 ** len(plans.mirror_axes)
    if recipe.learned_by != "steps":
        return (num_images + mirrored) / images_per_s
    return predicted_fold_seconds(recipe, architecture, plans.hardware) + mirrored / images_per_s
