"""The chapters on a foundation checkpoint: how it learned, what it is worth, what it looks at, what it has seen."""

from pathlib import Path

import numpy as np

from fmseg.console import duration
from fmseg.records.foundation import Foundation, ProbeScore
from fmseg.reporting.case_pictures import file_uri
from fmseg.reporting.charts import Line, lines
from fmseg.reporting.curves import Curve, read_curves, smoothed
from fmseg.reporting.model_card import CAPTIONS
from fmseg.reporting.page import Block, Facts, Figure, Figures, Section, Table, Words
from fmseg.reporting.plan_words import network_words

PICTURE_PX = 1500
PICTURES = {"attention": "What the class token looks at", "features": "Which patches are alike to it"}


def section(folder: Path, card: Foundation, *, is_one_of_several: bool = False) -> Section:
    """Return the chapter on how a checkpoint learned. folder: of the checkpoint."""
    curves = read_curves(folder / "metrics.jsonl")
    blocks: list[Block] = [_facts(card)]
    figures = [*_loss(curves), *_probes(curves), *_dimensions(curves)]
    if figures:
        blocks.append(Figures(tuple(figures)))
    if card.probes:
        blocks.append(_worth(card.probes))
    pictures = tuple(
        Figure(
            title,
            CAPTIONS[name],
            picture=file_uri(folder / f"{name}.png", PICTURE_PX),
            alt=CAPTIONS[name],
            is_wide=True,
        )
        for name, title in PICTURES.items()
        if (folder / f"{name}.png").exists()
    )
    if pictures:
        blocks.append(Figures(pictures))
    if card.troubles:
        rows = tuple(
            (each.step, "gone at the end" if each.is_over else "to the end", each.text) for each in card.troubles
        )
        blocks.append(Table("Troubles on the way", ("step", "lasted", "what"), rows))
    title = f"Pretraining of {card.name}" if is_one_of_several else "Pretraining"
    return Section(title, _lead(card), tuple(blocks))


def headlines(card: Foundation) -> tuple[tuple[str, str, str], ...]:
    """Return the figures that one looks for first."""
    found = [(f"{card.num_images:,}", "images learned from", ", ".join(card.datasets)),
             (f"{card.total_samples:,}", "samples seen", f"in {card.iterations:,} steps")]  # fmt: skip
    if card.probes:
        probe = max(card.probes, key=lambda each: each.score - each.random)
        found.insert(0, (f"{probe.score:.3f}", f"{probe.measure} of frozen features",
                         f"on {probe.dataset}; random weights {probe.random:.3f}"))  # fmt: skip
    if card.seconds:
        found.append((duration(card.seconds), "of training", card.finished[:10]))
    return tuple(found)


def recipe_section(card: Foundation) -> Section | None:
    """Return the chapter on its recipe; None for weights that were not made here."""
    if card.recipe is None:
        return None
    recipe = card.recipe
    rows = (
        ("network", network_words(recipe.architecture)),
        ("batch, steps", f"{recipe.batch_size}, {recipe.iterations:,}"),
        ("learning rate", f"{recipe.learning_rate:g}"),
        ("prototypes", f"{recipe.num_prototypes:,}, {recipe.centering}"),
        ("teacher's momentum", "{:g} to {:g}".format(*recipe.teacher_momentum)),
        ("weight decay", "{:g} to {:g}".format(*recipe.weight_decay)),
        ("precision, seed", f"{recipe.precision}, {recipe.seed}"),
    )
    lead = "DINOv2 as it is, its numbers derived from the images, the machine and the time."
    return Section("Recipe", lead, (Facts(rows),))


def seen_section(card: Foundation) -> Section:
    """Return the chapter on what a checkpoint has seen."""
    text = (
        f"It learned from {card.num_images:,} images of {', '.join(card.datasets)}, chosen from {card.seen_count:,} of "
        "different pixels, without labels. seen.npy keeps a hash of each, from which nothing of an image can be read; "
        "by it fmseg tells which images of a test set were among them. It knows equal pixels, not equal patients."
    )
    return Section("What it has seen", f"{card.seen_count:,} different images.", (Words((text,)),))


def _lead(card: Foundation) -> str:
    if not card.probes:
        return f"{card.summary}. No labelled dataset of this modality was at hand, so nobody has looked at its worth."
    told = "; ".join(f"{each.measure} {each.score:.3f} on {each.dataset}, with random weights {each.random:.3f}"
                     for each in card.probes)  # fmt: skip
    verdict = "It has learned something" if card.has_learned else "It is no better than random weights"
    return f"{card.summary}. {verdict}: {told}."


def _facts(card: Foundation) -> Facts:
    rows = [
        ("network", network_words(card.architecture)),
        ("images", f"{card.num_images:,} of {', '.join(card.datasets)}"),
        ("samples seen", f"{card.total_samples:,}"),
        ("goes on from", card.parent.name if card.parent else "random weights"),
    ]
    return Facts(tuple(rows))


def _loss(curves: dict[str, Curve]) -> list[Figure]:
    if "loss" not in curves or len(curves["loss"][0]) < 2:
        return []
    steps, values = curves["loss"]
    line = smoothed(values)
    alt = f"Loss from {line[0]:.3g} to {line[-1]:.3g} over {int(steps[-1])} steps."
    return [Figure("Loss", "All its parts together, smoothed. It need not fall much: its teacher gets harder.",
                   lines([Line("", steps, values, "quiet"), Line("loss", steps, line)], alt=alt))]  # fmt: skip


def _probes(curves: dict[str, Curve]) -> list[Figure]:
    """Return a figure for each labelled dataset: the probe on the way, beside random weights."""
    found = []
    for name, (steps, values) in curves.items():
        if not name.startswith("probe_") or len(steps) < 2:
            continue
        shown = [Line("learned", steps, values)]
        if f"random_{name}" in curves:
            reference = float(curves[f"random_{name}"][1][0])
            shown.append(Line("random", steps[[0, -1]], np.full(2, reference), "dashed"))
        title = f"Probe of {name.removeprefix('probe_').replace('_', ' ')}"
        alt = f"{title}: from {values[0]:.3f} to {values[-1]:.3f}."
        found.append(Figure(title, "Frozen features and a linear map, on patients that the map has not seen.",
                            lines(shown, alt=alt)))  # fmt: skip
    return found


def _dimensions(curves: dict[str, Curve]) -> list[Figure]:
    if "rankme_cls" not in curves or len(curves["rankme_cls"][0]) < 2:
        return []
    steps, values = curves["rankme_cls"]
    caption = "How many directions the class token uses (RankMe). A collapse would show as a fall to a few."
    chart = lines([Line("RankMe", steps, values)], alt=f"Effective dimensions end at {values[-1]:.3g}.")
    return [Figure("Effective dimensions", caption, chart)]


def _worth(probes: tuple[ProbeScore, ...]) -> Table:
    rows = tuple((each.dataset, each.measure, each.score, each.random, each.score - each.random) for each in probes)
    return Table(
        "What frozen features are worth", ("dataset", "measure", "this checkpoint", "random weights", "gain"), rows
    )
