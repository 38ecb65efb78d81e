"""A finetuning of another length than planned: what was derived from the number of steps is derived anew."""

from collections.abc import Mapping

from fmseg.planning.finetuning import drop_path_of, ema_decay_of, learning_rate_of
from fmseg.planning.unet import optimisation_of
from fmseg.records.recipe import Recipe
from fmseg.records.settings import apply_settings, parse_setting


def of_length(planned: Recipe, iterations: int) -> Recipe:
    """Return the numbers common to all recipes for a run of so many steps from random weights."""
    if iterations == planned.iterations:
        return planned
    rate, _ = learning_rate_of(iterations)
    drop_path, _ = drop_path_of(iterations)
    found = apply_settings(planned, {"iterations": str(iterations)})  # schedules are stretched
    found = found.evolve(learning_rate=rate, drop_path=drop_path, ema_decay=ema_decay_of(iterations))
    if planned.unet_optimisation is None:
        return found
    return found.evolve(unet_optimisation=optimisation_of(iterations, rate)[0])


def of_settings(planned: Recipe, settings: Mapping[str, str]) -> Recipe:
    """Return the numbers for the ``iterations`` that ``--set`` gives; a wrong value is refused where it is applied."""
    steps = parse_setting(settings.get("iterations", ""))
    return of_length(planned, steps) if type(steps) is int and steps > 0 else planned
