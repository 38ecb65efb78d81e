"""Tell what was planned: a row for each number with its value, its reason, and how to have it otherwise."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from fmseg.console import duration
from fmseg.planning.benefit import expected_benefit
from fmseg.planning.budget import predict_cost
from fmseg.planning.finetuning import predicted_fold_seconds
from fmseg.planning.length import for_start
from fmseg.planning.planner import plans_file
from fmseg.records.plans import Plans, Reason
from fmseg.records.recipe import resolve
from fmseg.records.record import Part

#: parts of the plans that hold planned numbers
_NO_NUMBER = object()
PARTS = ("preprocessing", "pretraining", "finetuning", "recipes", "mirror_axes")


class Row(NamedTuple):
    """One planned or predicted number."""

    number: str
    value: str
    because: str
    override: str


def explain_plans(plans: Plans) -> list[Row]:
    """Return a row for every planned number, then what the plan is predicted to cost."""
    rows = [
        Row(key, show_value(value), reason_of(key, plans.because), how_to_override(key, plans))
        for key, value in planned_numbers(plans).items()
    ]
    return rows + predictions(plans)


def compare_plans(plans: Plans, other: Plans) -> list[Row]:
    """Return a row for every number that differs: ``here (there in the other)``, and the reason here."""
    there = {row.number: row.value for row in explain_plans(other)}
    return [
        row._replace(value=f"{row.value} ({there.get(row.number, 'not there')} in {other.dataset} {other.name})")
        for row in explain_plans(plans)
        if there.get(row.number) != row.value
    ]


def planned_numbers(plans: Plans) -> dict[str, Any]:
    """Return dotted name -> value of every planned number."""
    tree = plans.model_dump(mode="json", include=set(PARTS))
    numbers = {key: value for part in PARTS for key, value in _leaves(part, tree[part]) if value is not None}
    # numbers that change nothing are left out of the file, but may have been thought about
    omitted = {reason.key: _at(plans, reason.key) for reason in plans.because if reason.key not in numbers}
    numbers |= {key: value for key, value in omitted.items() if value is not _NO_NUMBER}
    return dict(sorted(numbers.items(), key=lambda item: PARTS.index(item[0].partition(".")[0])))


def _at(plans: Plans, key: str) -> Any:
    """Return the number of a dotted name, None where there is none to be; _NO_NUMBER for a part or an unknown name."""
    value: Any = plans
    for name in key.split("."):
        value = getattr(value, name, _NO_NUMBER)
    if isinstance(value, Part):
        return _NO_NUMBER
    return list(value) if isinstance(value, tuple) else value


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, value


def reason_of(key: str, reasons: tuple[Reason, ...]) -> str:
    """Return why a number is what it is; numbers changed by hand have the reason of the planned one."""
    return next((reason.because for reason in reasons if reason.key == key), "")


def show_value(value: Any) -> str:
    """Return a value as people write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(show_value(item) for item in value) or "none"
    return str(value)


def how_to_override(key: str, plans: Plans) -> str:
    """Return the shortest way to another value."""
    part, _, name = key.partition(".")
    number = plans.dataset.split("_")[0].removeprefix("Dataset")
    if key == "pretraining.iterations":
        return "fmseg pretrain --budget 2h"
    if part == "pretraining":
        return f"fmseg pretrain --set {name}=..."
    if part == "recipes" or name in ("name", "decoder", "freeze_backbone"):
        return f"fmseg train {number} -r NAME"
    if name.startswith("unet."):
        return f"fmseg train {number} -r unet --set {name}=..."
    if name.startswith("unet_optimisation."):
        return f"fmseg train {number} -r unet --set {name.removeprefix('unet_optimisation.')}=..."
    if part == "finetuning":
        return f"fmseg train {number} --set {name}=..."
    if part == "mirror_axes":
        return f"fmseg predict --no-mirror, or edit {plans_file(plans.name)}"
    if part == "preprocessing":
        return f"edit {plans_file(plans.name)}, then: fmseg preprocess -d {number}"
    return f"edit {plans_file(plans.name)}"


def predictions(plans: Plans) -> list[Row]:
    """Return what pretraining and finetuning are predicted to take on the hardware of the plans."""
    hardware = plans.hardware
    cost = predict_cost(plans.pretraining, hardware)
    machine = (
        f"{hardware.num_devices} {hardware.device}, {hardware.num_cores} cores, {hardware.gflops:,.0f} GFLOP/s each"
    )
    pace = "making views sets the pace" if cost.waits_for_views else "the network sets the pace"
    batch = f"{plans.pretraining.iterations:,} steps of {plans.pretraining.batch_size}"
    budget = "fmseg pretrain --budget 2h"
    rows = [
        Row("predicted.samples_seen", f"{cost.samples_seen:,}", batch, budget),
        Row(
            "predicted.images_per_s",
            f"{cost.images_per_s:.3g}",
            f"{cost.gflop_per_image:.3g} GFLOP an image; {pace}",
            "-",
        ),
        Row("predicted.pretraining_time", duration(cost.seconds), f"a rule of thumb for {machine}", budget),
        Row("predicted.pretraining_memory", f"{cost.memory_gb:.2g} GB", "of one device, an estimate", "-"),
    ]
    benefit = expected_benefit(cost.samples_seen)
    value = f"{benefit.dice_gain:+.2f} Dice, {benefit.probe_gain:+.2f} macro F1"
    rows.append(Row("predicted.benefit", value, benefit.describe(cost.images_per_s), budget))
    if plans.finetuning is not None:
        because = "training of one fold, validation apart; a rule of thumb"
        for name in plans.recipes:
            network = resolve(name, plans.finetuning, {}).network
            recipe = resolve(name, for_start(plans.finetuning, {}, plans, None, network=network)[0], {})
            if recipe.learned_by == "steps":
                seconds = predicted_fold_seconds(recipe, plans.pretraining.architecture, hardware)
                changed_by = "fmseg train --set iterations=..."
                rows.append(Row(f"predicted.fold_time.{name}", duration(seconds), because, changed_by))
    return rows
