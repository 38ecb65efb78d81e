"""Report: all that is known of a dataset and its models, or of a foundation checkpoint, as one HTML page.

The page is made from files alone, so it can be made anew at any time, and shows half-done work as far as it is. Each
file beside this one writes a chapter or two.
"""

from datetime import UTC, datetime
from pathlib import Path

from fmseg.errors import UnknownName
from fmseg.files import write_bytes
from fmseg.inference.outcome import Outcome
from fmseg.planning.planner import plans_file
from fmseg.records.fingerprint import Fingerprint
from fmseg.records.foundation import Foundation, find_foundations
from fmseg.records.plans import Plans
from fmseg.registry import unknown
from fmseg.reporting.page import Page, Section, render
from fmseg.stages.report import data, gallery, origin, plan, pretraining, scores, training
from fmseg.workspace import Workspace, dataset_id

REPORT = "report.html"

#: columns of a table of headlines
Headline = tuple[str, str, str]


def report(workspace: Workspace, name: str, *, plans_name: str) -> Path:
    """Write the page of a dataset, report.html among its results, and return its path.

    Raises NotReady for a dataset that was not measured yet.
    """
    prepared, results = workspace.prepared(name), workspace.results_of(name)
    command = f"fmseg plan_and_preprocess -d {dataset_id(name)}"
    measured = Fingerprint.load(workspace.need(prepared / "dataset_fingerprint.json", command))
    path = prepared / plans_file(plans_name)
    plans = Plans.load(path) if path.exists() else None
    outcome = Outcome.load(results)
    starts = {(fold.config.init.sha256, fold.config.init.name) for fold in outcome.chosen if fold.config.init.sha256}
    cards = [
        (folder, card)
        for folder, card in find_foundations(workspace.foundations())
        if (card.weights_sha256, card.name) in starts
    ]
    made = [
        data.section(prepared, measured),
        plan.section(plans, dataset_id(name)),
        *(pretraining.section(folder, card, is_one_of_several=len(cards) > 1) for folder, card in cards),
        training.section(outcome, dataset_id(name)),
        scores.section(outcome),
        gallery.section(workspace, name, outcome),
        origin.seen_section(outcome),
        origin.run_section(outcome, plans),
        origin.cite_section(),
    ]
    page = Page(
        title=name.partition("_")[2].replace("_", " "),
        subtitle=_subtitle(name, measured),
        headlines=_headlines(measured, outcome, cards[0][1] if cards else None),
        sections=[each for each in made if each is not None],
        date=_today(),
        warnings=_warnings(outcome),
    )
    write_bytes(results / REPORT, render(page))
    return results / REPORT


def report_foundation(workspace: Workspace, name: str) -> Path:
    """Write the page of a foundation checkpoint, report.html in its folder. Raises UnknownName naming the nearest."""
    found = find_foundations(workspace.foundations())
    named = [(folder, card) for folder, card in found if card.name == name]
    if not named:
        raise UnknownName(unknown("foundation checkpoint", name, [card.name for _, card in found]))
    folder, card = named[0]
    made: list[Section | None] = [
        pretraining.section(folder, card),
        pretraining.recipe_section(card),
        pretraining.seen_section(card),
        origin.foundation_section(folder, card),
        origin.cite_section(),
    ]
    page = Page(
        title=card.name,
        subtitle=f"A foundation checkpoint for {card.modality}: a network that has learned what such images look "
        "like, without labels. Models for a task start from it.",
        headlines=pretraining.headlines(card),
        sections=[each for each in made if each is not None],
        date=_today(),
        warnings=tuple(f"Step {each.step:,}: {each.text}." for each in card.troubles if not each.is_over),
    )
    write_bytes(folder / REPORT, render(page))
    return folder / REPORT


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _subtitle(name: str, measured: Fingerprint) -> str:
    tasks = {
        "segmentation": "Label maps",
        "classification": "Classes of whole images",
        "unlabelled": "Unlabelled images",
    }
    names = ", ".join(each.name for each in measured.classes[:8])
    return f"{tasks[measured.task]} in {measured.modality}{': ' + names if names else ''}. {name}."


def _headlines(measured: Fingerprint, outcome: Outcome, card: Foundation | None) -> tuple[Headline, ...]:
    """Return the figures that one looks for first."""
    found: list[Headline] = []
    if outcome.pooled is not None:
        measure, value = outcome.pooled.headline
        found.append(
            (f"{value.mean:.3f}", f"{measure}, out of fold", f"95 % interval {value.low:.3f} to {value.high:.3f}")
        )
    patients = f"of {measured.num_patients:,} patients" if measured.patients_declared else "patients not declared"
    images = f"{measured.num_images:,} images, " if measured.num_images != measured.num_cases else ""
    found.append((f"{measured.num_cases:,}", "cases", images + patients))
    if outcome.chosen:
        recipes = sorted({fold.runs.partition("__")[0] for fold in outcome.chosen})
        found.append((str(len(outcome.chosen)), "networks that predict", " + ".join(recipes)))
    if card is not None:
        found.append((f"{card.num_images:,}", "unlabelled images learned from", f"by {card.name}"))
    return tuple(found)


def _warnings(outcome: Outcome) -> tuple[str, ...]:
    """Return what should not be overlooked."""
    found = []
    if outcome.folds and outcome.selection is None:
        found.append("Not all is trained and chosen yet: the figures are of the folds that are finished.")
    if outcome.pooled is not None and len(outcome.pooled.cases) < 50:
        number = len(outcome.pooled.cases)
        found.append(f"The scores rest on {number} cases. Their intervals are wide, and should be read first.")
    return tuple(found)
