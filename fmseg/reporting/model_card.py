"""card.md: what a foundation checkpoint is, in words, for whoever finds its folder."""

from collections.abc import Sequence

from fmseg.console import duration
from fmseg.records.foundation import WEIGHTS, Foundation, ProbeScore
from fmseg.records.plans import Pretraining
from fmseg.reporting.foreign_card import foreign_card
from fmseg.reporting.run_words import Spent, provenance_rows, spent_rows

CAPTIONS = {
    "progress": "How it went: losses, scores of the labelled datasets, how much of its room the teacher uses.",
    "attention": "Where the class token looks in the last block, one column a head.",
    "features": "Patch features by their principal components: patches of one colour are alike to the network.",
}
PAPER = (
    "Ambsdorf et al., *General Methods Make Great Domain-specific Foundation Models: A Case-study on Fetal "
    "Ultrasound*, 2025, https://arxiv.org/abs/2506.19552"
)
METHOD = "Oquab et al., *DINOv2: Learning Robust Visual Features without Supervision*, 2023, https://arxiv.org/abs/2304.07193"


def model_card(card: Foundation, pictures: Sequence[str]) -> str:
    """Return the Markdown. pictures: names of the PNGs beside it, without the ending."""
    if card.origin is not None:
        return foreign_card(card)
    parts = [
        _what(card),
        _origin(card),
        _worth(card),
        _troubles(card),
        _recipe(card.recipe) if card.recipe else "",
        "\n\n".join(["## Pictures", *(f"![{CAPTIONS[name]}]({name}.png)\n\n{CAPTIONS[name]}" for name in pictures)])
        if pictures
        else "",
        _record(card),
        _use(card),
        _rights(card),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(card: Foundation) -> str:
    vit = card.architecture
    height, width = vit.image_size
    return (
        f"# {card.name}: a foundation checkpoint for {card.modality}\n\n"
        f"A ViT that has learned from {card.num_images:,} unlabelled images of {card.modality}: {vit.name} with "
        f"patches of {vit.patch_size} pixels, width {vit.width}, {vit.depth} blocks, {vit.num_heads} heads, "
        f"{vit.num_registers} registers, {vit.channels} channel(s). Its positions are made for images of "
        f"{height} x {width} pixels and are resampled for others. It has no head: it answers with features."
    )


def _origin(card: Foundation) -> str:
    took = f", in {duration(card.seconds)} of training" if card.seconds else ""
    when = f", finished {card.finished[:10]}" if card.finished else ""
    text = (
        "## What it was trained on\n\n"
        f"{', '.join(card.datasets)}: {card.num_images:,} images, chosen from {card.seen_count:,} of different pixels. "
        f"{card.samples_seen:,} samples in {card.iterations:,} steps{took}{when}, with fmseg "
        f"{card.provenance.fmseg}. Labels were not used."
    )
    if card.parent is not None:
        heads = "its heads too" if card.parent.keeps_heads else "with new heads"
        text += (
            f"\n\nIt goes on from `{card.parent.name}` ({card.parent.modality}, weights "
            f"`{card.parent.sha256[:12]}`), {heads}, which had seen {card.parent.samples_seen:,} samples: "
            f"{card.total_samples:,} in all."
        )
    return (
        f"{text}\n\n`seen.npy` holds a hash of each image seen, so that fmseg can say which images of a test set are "
        "among them; it knows equal pixels, not equal patients. Nothing of an image can be read from it."
    )


def _worth(card: Foundation) -> str:
    if not card.probes:
        return "## What it is worth\n\nNo labelled dataset of this modality was at hand, so nobody has looked."
    rows = "\n".join(_probe_row(probe) for probe in card.probes)
    text = (
        "## What it is worth\n\nFrozen features on labelled data of patients that the linear map has not seen:\n\n"
        f"| dataset | measure | this checkpoint | random weights | gain |\n|---|---|--:|--:|--:|\n{rows}"
    )
    if card.best is not None and card.best.is_used:
        text += (
            f"\n\nThe backbone is the teacher of step {card.best.step:,}, not the last one: {card.best.measure} "
            f"{card.best.score:.3f}, at the end {card.best.last_score:.3f}."
        )
    return text


def _probe_row(probe: ProbeScore) -> str:
    gain = probe.score - probe.random
    return f"| {probe.dataset} | {probe.measure} | {probe.score:.3f} | {probe.random:.3f} | {gain:+.3f} |"


def _troubles(card: Foundation) -> str:
    if not card.troubles:
        return "## Troubles\n\nNone was found: features spread, the teacher's answers differ, the loss fell."
    lines = [
        f"- Step {trouble.step:,}{', gone at the end' if trouble.is_over else ''}: {trouble.text}."
        for trouble in card.troubles
    ]
    return "\n".join(["## Troubles", "", *lines])


def _additions(recipe: Pretraining) -> str:
    """Return what a recipe asks beyond DINOv2."""
    tasks = {
        "telling images apart": recipe.contrast_weight,
        "telling masked patches apart": recipe.patch_contrast_weight,
        "grey values of masked patches": recipe.pixel_weight,
    }
    return "".join(f"; {task} (weight {weight:g})" for task, weight in tasks.items() if weight > 0)


def _recipe(recipe: Pretraining) -> str:
    views = recipe.views
    rows = {
        "method": f"DINOv2: DINO, iBOT and KoLeo losses{_additions(recipe)}",
        "views": f"2 of {views.global_size[0]} pixels, {views.num_locals} of {views.local_size[0]}",
        "batch, steps": f"{recipe.batch_size} images, {recipe.iterations:,}",
        "learning rate": f"{recipe.learning_rate:g}, warm-up {recipe.warmup_iterations:,} steps, then a cosine",
        "weight decay": f"{recipe.weight_decay[0]:g} to {recipe.weight_decay[1]:g}",
        "layer decay, patch embedding": f"{recipe.layer_decay:g}, times {recipe.patch_embed_factor:g}",
        "prototypes": f"{recipe.num_prototypes:,}, {recipe.centering}",
        "teacher's temperature": f"{recipe.teacher_temperature[0]:g} to {recipe.teacher_temperature[1]:g}",
        "teacher's momentum": f"{recipe.teacher_momentum[0]:g} to {recipe.teacher_momentum[1]:g}",
        "stochastic depth": f"{recipe.drop_path:g}",
        "precision, seed": f"{recipe.precision}, {recipe.seed}",
        "mean, std of the images in [0, 1]": f"{_numbers(recipe.mean)}; {_numbers(recipe.std)}",
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"## Recipe\n\n| | |\n|---|---|\n{lines}\n\n`run.json` has every number with its reason."


def _record(card: Foundation) -> str:
    made = card.provenance
    rows = [
        *provenance_rows(made),
        *spent_rows("training", [Spent(card.seconds, made.device, made.num_devices)]),
        (f"SHA-256 of `{WEIGHTS}`", f"`{card.weights_sha256}`"),
    ]
    return "\n".join(["## Run record", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _use(card: Foundation) -> str:
    return (
        "## How to use it\n\n"
        f"    fmseg train 501 --init {card.name}\n    fmseg pretrain --init {card.name} -d 502\n\n"
        "The first trains a segmentation from it, the second goes on with further images. In Python:\n\n"
        "```python\nfrom pathlib import Path\n\nfrom fmseg.networks.weights import load_backbone\n\n"
        'vit, card = load_backbone(Path("this/folder"))\n'
        "tokens = vit((image - card.mean[0]) / card.std[0])  # image: (B, C, H, W) in [0, 1]\n```"
    )


def _rights(card: Foundation) -> str:
    return (
        f"## Licence and citation\n\nLicence: {card.licence}. It is made for research, and is no medical device.\n\n"
        f"Cite the recipe and the method:\n\n- {PAPER}\n- {METHOD}"
    )
