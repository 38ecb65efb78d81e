"""The chapters for whoever must trust the figures: what was seen before, what ran, how to cite it."""

from pathlib import Path

from fmseg.files import read_json, sha256_file
from fmseg.inference.outcome import FoldOutcome, Outcome
from fmseg.records.foundation import Foundation
from fmseg.records.plans import Plans
from fmseg.records.run import Provenance
from fmseg.reporting.page import Block, Facts, Section, Table, Words
from fmseg.reporting.plan_words import energy_words, time_words, without_paths
from fmseg.stages.report.training import seconds_of

SHORT = 12

CITATIONS = (
    "fmseg: self-configuring foundation models for medical image segmentation. The fmseg developers. Apache-2.0.",
    "Ambsdorf et al. General Methods Make Great Domain-specific Foundation Models: A Case-study on Fetal Ultrasound. "
    "MICCAI 2025. arXiv:2506.19552.",
    "Oquab et al. DINOv2: Learning Robust Visual Features without Supervision. 2023. arXiv:2304.07193.",
    "Isensee et al. nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation. "
    "Nature Methods 2021. doi:10.1038/s41592-020-01008-z.",
)


def seen_section(outcome: Outcome) -> Section | None:
    """Return the chapter on what the models had met of the cases before; None where nothing is trained."""
    if not outcome.folds:
        return None
    rows = tuple(
        (fold.runs.partition("__")[0], fold.number, len(fold.config.cases.val), _seen_of(fold))
        for fold in outcome.folds
    )
    table = Table("Fold by fold", ("recipe", "fold", "validation cases", "seen in pretraining"), rows,
                  "A dash: not known, since the checkpoint's list of images is not here.")  # fmt: skip
    seen = outcome.selection.seen if outcome.selection else None
    lead = seen.sentence if seen else "Validation images that pretraining had met, always without their labels."
    text = (
        "Pretraining on the images of a validation case teaches nothing of its label, but can still flatter the score "
        "a little. Images of imagesTs are never pretrained on. Only scores on patients of another place say how the "
        "models do elsewhere."
    )
    return Section("Seen before", lead, (Words((text,)), table))


def run_section(outcome: Outcome, plans: Plans | None) -> Section | None:
    """Return the chapter on what ran; None where nothing has."""
    if not outcome.chosen:
        return None
    first = outcome.chosen[0]
    seconds = sum(map(seconds_of, outcome.folds))
    rows = [*_provenance(first.config.provenance), ("seed", str(first.config.recipe.seed)),
            ("precision", first.config.recipe.precision), ("training of all folds", time_words(seconds))]  # fmt: skip
    if plans is not None and seconds:
        rows.append(("energy, estimated", energy_words(seconds, plans.hardware)))
    rows.append(("plan", first.config.plans.digest()[:SHORT]))
    table = Table("Weights that predict", ("recipe", "fold", "started from", "SHA-256"),
                  tuple(_weights(fold) for fold in outcome.chosen))  # fmt: skip
    blocks: list[Block] = [Facts(tuple(rows)), table]
    lead = "What is needed to make it again: the same images, versions and seeds give the same bytes on a CPU."
    return Section("Run record", lead, tuple(blocks))


def foundation_section(folder: Path, card: Foundation) -> Section:
    """Return the chapter on what made a checkpoint."""
    rows = [*_provenance(card.provenance), ("training", time_words(card.seconds)),
            ("weights, SHA-256", card.weights_sha256), ("licence", card.licence)]  # fmt: skip
    if card.recipe is not None:
        rows.insert(-2, ("seed", str(card.recipe.seed)))
    lead = f"All numbers are in foundation.json and run.json, in {folder.parent.name}/{folder.name}."
    return Section("Run record", lead, (Facts(tuple(rows)),))


def cite_section() -> Section:
    """Return the chapter on citing."""
    return Section("How to cite", "Cite the tool, and the work that it rests on.", (Words(CITATIONS),))


def _provenance(made: Provenance) -> list[tuple[str, str]]:
    algorithms = {True: "deterministic", False: "fast: rounding may differ", None: "not noted"}
    packages = ", ".join(f"{name} {version}" for name, version in made.packages.items() if version)
    return [
        ("fmseg", f"{made.fmseg}{f', commit {made.commit[:SHORT]}' if made.commit else ''}"),
        ("command", without_paths(made.command)),
        ("algorithms", algorithms[made.deterministic]),
        ("packages", packages),
    ]


def _seen_of(fold: FoldOutcome) -> int | None:
    found = read_json(fold.run.path / "finished.json").get("seen_in_pretraining")
    return found if isinstance(found, int) else None


def _weights(fold: FoldOutcome) -> tuple[str, int, str, str]:
    path = fold.run.path / "model.safetensors"
    sha256 = sha256_file(path) if path.exists() else "not here any more"
    return fold.runs.partition("__")[0], fold.number, fold.config.init.name, sha256[:16]
