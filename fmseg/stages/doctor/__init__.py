"""Say what is wrong with a raw dataset: each finding with its file, why it matters, and its mend.

The findings about single files were made when the cases were measured. Here come those about the set: ``layout.py``
looks at what lies in its folders, ``tables.py`` at what people wrote about it, ``likeness.py`` for images that are
there twice, ``tests.py`` at the test set. ``mending.py`` writes a mended copy, ``sheet.py`` pictures of the worst.

Duplicates are warnings, also with different label maps: two people may have drawn the same image. Overlap with
the test set is an error as soon as there is a labelsTs, since scores on it would be wrong.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from fmseg.errors import BadData, UnknownName
from fmseg.files import write_json
from fmseg.imaging.alike import KeyColumns
from fmseg.imaging.measure import read_facts, refuse_errors
from fmseg.imaging.survey import Colours, finding, is_too_many, odd_kind, repetitions, summed_up
from fmseg.records.dataset import Dataset
from fmseg.records.declaration import BadDeclaration
from fmseg.records.fingerprint import CaseFacts, Finding, Fingerprint, Severity
from fmseg.stages.doctor.layout import layout, names, outlined
from fmseg.stages.doctor.likeness import copied_labels, duplicates, near_duplicates
from fmseg.stages.doctor.mending import copy_mended, leave_out
from fmseg.stages.doctor.outliers import absent_classes, odd_labels, odd_planes, odd_sizes, odd_spacings, of_usual_plane
from fmseg.stages.doctor.sheet import draw_sheet
from fmseg.stages.doctor.tables import classes, folds, names_of_classes, number, patients_table, spacings_table
from fmseg.stages.doctor.tests import TestCase, measure_tests, patients_on_both_sides, save_tests, tests_findings
from fmseg.workspace import Workspace

__all__ = ["check", "copy_mended", "doctor", "leave_out", "refused", "tell"]

logger = logging.getLogger(__name__)

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
REPORT, SHEET = "doctor.json", "doctor.png"
#: of the warnings that are logged one by one
MAX_TOLD = 20


def doctor(workspace: Workspace, name: str, *, num_processes: int = 0) -> tuple[Finding, ...]:
    """Return all findings about a measured dataset, errors first; save them in doctor.json, the worst in doctor.png.

    Raises NotReady if it was not measured yet.
    """
    dataset = Dataset.load(workspace.raw_dataset(name))
    folder = workspace.prepared(name)
    command = f"fmseg fingerprint -d {name}"
    path = workspace.need(folder / "cases.jsonl", command)
    measured = Fingerprint.load(workspace.need(folder / "dataset_fingerprint.json", command))
    tests = measure_tests(workspace, dataset, num_processes)
    save_tests(folder, tests)
    if dataset.task == "unlabelled":
        findings = _sorted(_corpus(dataset, measured, path, tests))
    else:
        facts = list(read_facts(path))
        findings = _sorted(_labelled(dataset, measured, facts, tests, folder))
    _save(folder, findings)
    draw_sheet(dataset, findings, folder / SHEET)
    return findings


def refused(workspace: Workspace, name: str, error: BadData | UnknownName) -> tuple[Finding, ...]:
    """Return the findings about a dataset that cannot even be measured, and save them in doctor.json."""
    folder = workspace.raw_dataset(name)
    why = "Nothing can be measured before that is mended."
    if isinstance(error, UnknownName):  # of a reader
        found = [finding("error", f"{name}/dataset.json", str(error).rstrip("."), "Correct the name.", why)]
    elif isinstance(error, BadDeclaration):
        where = f"{name}/dataset.json"
        found = [finding("error", where, problem, mend, why) for problem, mend in error.problems]
    else:
        where, _, rest = str(error).removeprefix(f"{folder.parent}/").partition(": ")
        problem, _, mend = rest.partition(". ")
        found = [finding("error", where, problem.removesuffix("."), mend or "Mend it, then check again.", why)]
    try:
        found += layout(Dataset.load(folder))
    except BadData:
        logger.debug("%s: its files are looked at once dataset.json is right", name)
    findings = _sorted(found)
    _save(workspace.prepared(name), findings)
    return findings


def tell(findings: Sequence[Finding]) -> None:
    """Log the warnings, the first ones one by one."""
    warnings = [each for each in findings if each.severity == "warning"]
    for each in warnings[:MAX_TOLD]:
        logger.warning("warning: %s: %s. %s", each.where, each.problem, each.mend)
    if len(warnings) > MAX_TOLD:
        logger.warning("... and %d more warnings; all of them are in %s", len(warnings) - MAX_TOLD, REPORT)


def check(findings: Iterable[Finding]) -> None:
    """Raise BadData that lists all errors, if there are any."""
    refuse_errors(findings)


def _sorted(found: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=lambda each: SEVERITIES.index(each.severity)))


def _save(folder: Path, findings: Sequence[Finding]) -> None:
    write_json(folder / REPORT, [each.model_dump(mode="json") for each in findings])


def _labelled(
    dataset: Dataset, measured: Fingerprint, facts: Sequence[CaseFacts], tests: Sequence[TestCase], folder: Path
) -> Iterator[Finding]:
    """Find what there is to say about a set that a network is trained on."""
    declared, colours = len(dataset.channel_names), Colours()
    yield from layout(dataset)
    for fact in facts:
        for each in fact.findings:
            remedy = "leave_out" if each.severity == "error" else ""
            yield each.model_copy(update={"cases": (fact.case,), "remedy": remedy})
        colours.add(fact)
        yield from odd_kind(fact, declared, measured)
    yield from names(dataset)
    yield from number(dataset, len(facts))
    yield from colours.findings(declared, measured.channels)
    yield from odd_planes(facts)
    yield from odd_sizes(of_usual_plane(facts))
    yield from odd_spacings(of_usual_plane(facts))
    if dataset.task == "classification":
        yield from classes(dataset, facts)
    else:
        yield from names_of_classes(dataset.labels.names, "dataset.json")
        yield from absent_classes(dataset, facts)
        yield from odd_labels(facts, dataset.labels.ignore)
        yield from copied_labels(facts)
        yield from outlined(dataset, facts)
    yield from patients_table(dataset, measured, [fact.case for fact in facts])
    yield from spacings_table(dataset, [fact.case for fact in facts])
    yield from folds(dataset, facts)
    yield from duplicates(dataset, facts, folder)
    yield from near_duplicates(facts, tests, folder)
    yield from tests_findings(dataset, facts, tests)
    yield from patients_on_both_sides(dataset, facts, tests)


def _corpus(dataset: Dataset, measured: Fingerprint, path: Path, tests: Sequence[TestCase]) -> Iterator[Finding]:
    """Find what there is to say about an unlabelled set of any size; what many of its files share is told once.

    Nothing is an error: what cannot be used is left out, and listed.
    """
    declared, colours, keys = len(dataset.channel_names), Colours(), KeyColumns()
    num_bad = 0

    def of_files() -> Iterator[Finding]:
        nonlocal num_bad
        for fact in read_facts(path):
            colours.add(fact)
            keys.add(fact)
            num_bad += any(each.severity == "error" for each in fact.findings)
            yield from fact.findings
            yield from odd_kind(fact, declared, measured)

    for each in summed_up(chain(of_files(), names(dataset)), dataset.source):
        yield each.evolve(severity="warning") if each.severity == "error" else each
    if is_too_many(num_bad, keys.num_cases):
        problem = f"{num_bad:,} of {keys.num_cases:,} images cannot be used"
        mend = "Mend or remove them; fmseg goes on without a few, but not without so many."
        yield finding("error", dataset.source, problem, mend, "So many bad files point to something else.")
    yield from number(dataset, keys.num_cases)
    yield from colours.findings(declared, measured.channels)
    for each in repetitions(keys.done(), dataset.source):
        logger.info("%s: %s", dataset.name, each.problem)
        yield each
    yield from patients_table(dataset, measured, ())
    yield from tests_findings(dataset, read_facts(path) if tests else (), tests)
    yield from patients_on_both_sides(dataset, read_facts(path) if tests else (), tests)
