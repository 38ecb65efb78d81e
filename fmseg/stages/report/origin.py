"""The chapters for whoever must trust the figures: what was seen before, what ran, how to cite it."""

from pathlib import Path

from fmseg.files import read_json, sha256_file
from fmseg.inference.outcome import FoldOutcome, Outcome
from fmseg.records.foundation import Foundation
from fmseg.records.plans import Plans
from fmseg.reporting.page import Block, Facts, Section, Table, Words
from fmseg.reporting.run_words import Spent, provenance_rows, spent_rows
from fmseg.stages.report.training import seconds_of

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
    first = outcome.chosen[0].config
    spent = [_spent(fold, plans) for fold in outcome.folds]
    rows = [
        *provenance_rows(first.provenance),
        ("seed", str(first.recipe.seed)),
        ("precision", first.recipe.precision),
        *spent_rows("training of all folds", spent),
        ("plan", first.plans.digest()[:12]),
    ]
    table = Table("Weights that predict", ("recipe", "fold", "started from", "SHA-256"),
                  tuple(_weights(fold) for fold in outcome.chosen))  # fmt: skip
    blocks: list[Block] = [Facts(tuple(rows)), table]
    lead = "What is needed to make it again: the same images, versions and seeds give the same bytes on a CPU."
    return Section("Run record", lead, tuple(blocks))


def foundation_section(folder: Path, card: Foundation) -> Section:
    """Return the chapter on what made a checkpoint."""
    made = card.provenance
    rows = [
        *provenance_rows(made),
        *([("seed", str(card.recipe.seed))] if card.recipe else []),
        *spent_rows("training", [Spent(card.seconds, made.device, made.num_devices)]),
        ("weights, SHA-256", card.weights_sha256),
        ("licence", card.licence),
    ]
    lead = f"All numbers are in foundation.json and run.json, in {folder.parent.name}/{folder.name}."
    return Section("Run record", lead, (Facts(tuple(rows)),))


def cite_section() -> Section:
    """Return the chapter on citing."""
    return Section("How to cite", "Cite the tool, and the work that it rests on.", (Words(CITATIONS),))


def _spent(fold: FoldOutcome, plans: Plans | None) -> Spent:
    """Return what a fold took; older runs have not noted the machine, which then is taken for that of the plan."""
    made = fold.config.provenance
    if not made.device and plans is not None:
        return Spent(seconds_of(fold), plans.hardware.device, plans.hardware.num_devices)
    return Spent(seconds_of(fold), made.device, made.num_devices)


def _seen_of(fold: FoldOutcome) -> int | None:
    found = read_json(fold.run.path / "finished.json").get("seen_in_pretraining")
    return found if isinstance(found, int) else None


def _weights(fold: FoldOutcome) -> tuple[str, int, str, str]:
    path = fold.run.path / "model.safetensors"
    sha256 = sha256_file(path) if path.exists() else "not here any more"
    return fold.runs.partition("__")[0], fold.number, fold.config.init.name, sha256[:16]
