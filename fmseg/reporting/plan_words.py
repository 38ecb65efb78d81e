"""The plan in sentences."""

from collections.abc import Iterable

from fmseg.records.labels import ClassScheme
from fmseg.records.plans import Architecture, Hardware, Plans, Preprocessing, Pretraining
from fmseg.records.recipe import Recipe

INTENSITIES = {
    "eight_bit": "Their grey values are taken as they are, from 0 to 255",
    "image_percentiles": "Each image is stretched between its own 0.5 and 99.5 percentiles",
    "fixed_window": "All images are cut to one window of intensities",
}


def plan_sentences(plans: Plans) -> tuple[str, ...]:
    """Return the plan as paragraphs: how images are prepared, pretrained on, and learned from."""
    paragraphs = [_prepared(plans.preprocessing), _pretrained(plans.pretraining)]
    if plans.finetuning is not None:
        paragraphs.append(_finetuned(plans, plans.finetuning))
    paragraphs.append(f"The plan was made for {hardware_words(plans.hardware)}.")
    return tuple(paragraphs)


def network_words(vit: Architecture) -> str:
    """Return what a network is."""
    return f"{vit.name}, {vit.depth} blocks of width {vit.width} on patches of {vit.patch_size} pixels"


def hardware_words(hardware: Hardware) -> str:
    """Return what a machine is."""
    if hardware.device == "cpu":
        cores = "1 processor core" if hardware.num_cores == 1 else f"{hardware.num_cores} processor cores"
        return f"{cores} with {hardware.memory_gb:.0f} GB of memory"
    return f"{hardware.num_devices} x {hardware.device} with {hardware.memory_gb:.0f} GB of memory each"


def _prepared(preprocessing: Preprocessing) -> str:
    height, width = preprocessing.image_size
    if preprocessing.size_mode == "fit":
        size = f"Images are scaled, their proportions kept, until they fit into {height} x {width} pixels"
    else:
        spacing = " x ".join(f"{each:.3g}" for each in preprocessing.spacing_mm or ())
        size = f"Images are resampled to pixels of {spacing} mm, and the network sees {height} x {width} of them"
    colours = {1: "one channel", 3: "three channels"}.get(preprocessing.channels, f"{preprocessing.channels} channels")
    means = _list(f"{each:.3f}" for each in preprocessing.mean)
    deviations = _list(f"{each:.3f}" for each in preprocessing.std)
    return (
        f"{size}, with {colours}. {INTENSITIES[preprocessing.intensity]}; the network sees them less their mean "
        f"({means}) and divided by their standard deviation ({deviations})."
    )


def _pretrained(recipe: Pretraining) -> str:
    views = recipe.views
    return (
        f"Pretraining is DINOv2 on a {network_words(recipe.architecture)}: {recipe.iterations:,} steps of "
        f"{recipe.batch_size} images, each seen as 2 views of {views.global_size[0]} pixels and {views.num_locals} of "
        f"{views.local_size[0]}."
    )


def _finetuned(plans: Plans, recipe: Recipe) -> str:
    height, width = recipe.input_size
    names = " and ".join(plans.recipes)
    if recipe.learned_by == "grid":
        how = "the best of a grid of linear heads on frozen features"
    else:
        how = (
            f"{recipe.iterations:,} steps of {recipe.batch_size} images of {height} x {width} pixels, learning rate "
            f"{recipe.learning_rate:g}"
        )
        if recipe.layer_decay < 1:
            how += f", times {recipe.layer_decay:g} with each layer away from the head"
    goal = "label maps"
    if isinstance(plans.labels, ClassScheme):
        goal = "one class a case" if plans.labels.is_exclusive else "any number of classes a case"
    outputs = _list(plans.labels.names) if plans.labels is not None else ""
    return f"It learns {goal} ({outputs}) with the recipe {names}: {how}."


def _list(parts: Iterable[str]) -> str:
    return ", ".join(parts)
