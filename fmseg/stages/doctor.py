"""Say what is wrong with a raw dataset: each finding with its file and its mend.

The findings about single files were made when the cases were measured; here come those about the set: files that
do not belong together, names that clash, duplicates, and images or patients that are in training and test alike.
Duplicates are warnings, also with different label maps: two people may have drawn the same image. Overlap with
the test set is an error as soon as there is a labelsTs, since scores on it would be wrong.
"""

import functools
import logging
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from fmseg.errors import BadData
from fmseg.files import write_json, writing
from fmseg.imaging.alike import KeyColumns
from fmseg.imaging.case import content_hash
from fmseg.imaging.measure import read_facts, refuse_errors
from fmseg.imaging.readers import read_case
from fmseg.imaging.survey import Colours, finding, listed, odd_kind, repetitions, summed_up
from fmseg.planning.patients import patients_of
from fmseg.records.cases import CaseNames, key_of
from fmseg.records.dataset import CaseFiles, Dataset, group_channels, visible_files
from fmseg.records.fingerprint import CaseFacts, Finding, Fingerprint, Severity
from fmseg.records.labels import is_labelled
from fmseg.sampling.distinct import TESTS
from fmseg.sampling.workers import Workers
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


def doctor(workspace: Workspace, name: str, *, num_processes: int = 0) -> tuple[Finding, ...]:
    """Return all findings about a measured dataset, errors first, and save them in doctor.json.

    Raises NotReady if it was not measured yet.
    """
    dataset = Dataset.load(workspace.raw_dataset(name))
    folder = workspace.prepared(name)
    command = f"fmseg fingerprint -d {name}"
    path = workspace.need(folder / "cases.jsonl", command)
    measured = Fingerprint.load(workspace.need(folder / "dataset_fingerprint.json", command))
    tests = _hashed_tests(workspace, dataset, num_processes)
    _save_tests(folder / TESTS, tests)
    if dataset.task == "unlabelled":
        found = list(_corpus(dataset, measured, path, tests))
    else:
        facts = list(read_facts(path))
        found = [
            *(finding for fact in facts for finding in fact.findings),
            *_names(dataset),
            *_declaration(dataset, facts, measured),
            *_duplicates(facts),
            *_tests_in_training(dataset, facts, tests),
            *_patients(dataset, measured, facts, tests),
        ]
    findings = tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))
    write_json(folder / "doctor.json", [finding.model_dump(mode="json") for finding in findings])
    return findings


def check(findings: Iterable[Finding]) -> None:
    """Raise BadData that lists all errors, if there are any."""
    refuse_errors(findings)


def _corpus(dataset: Dataset, measured: Fingerprint, path: Path, tests: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """Find what there is to say about an unlabelled set of any size; what many of its files share is told once.

    Nothing is an error: what cannot be used is left out, and listed.
    """
    declared, colours, keys = len(dataset.channel_names), Colours(), KeyColumns()

    def of_files() -> Iterator[Finding]:
        for fact in read_facts(path):
            colours.add(fact)
            keys.add(fact)
            yield from fact.findings
            yield from odd_kind(fact, declared, measured)

    for each in summed_up(chain(of_files(), _names(dataset)), dataset.source):
        yield each.evolve(severity="warning") if each.severity == "error" else each
    yield from _number(dataset, keys.num_cases)
    yield from colours.findings(declared, measured.channels)
    for each in repetitions(keys.done(), dataset.source):
        logger.info("%s: %s", dataset.name, each.problem)
        yield each
    yield from _tests_in_training(dataset, read_facts(path) if tests else (), tests)
    yield from _patients(dataset, measured, read_facts(path) if tests else (), tests)


def _names(dataset: Dataset) -> Iterator[Finding]:
    """Find label maps without image, and case names that some file system takes for one."""
    for path in dataset.orphan_labels():
        problem, mend = "this label map has no image", "Add its image to imagesTr, or remove it."
        yield finding("error", f"labelsTr/{path.name}", problem, mend)
    cases_of = dataset.training_cases()
    folded = (unicodedata.normalize("NFC", name).casefold() for name in CaseNames(cases_of))
    keys = np.fromiter(map(key_of, folded), np.uint64, len(cases_of))
    _, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    alike = defaultdict(list)
    for number in np.flatnonzero(counts[group] > 1).tolist():
        alike[int(group[number])].append(cases_of[number])
    for cases in alike.values():
        names = sorted({case.name for case in cases})
        if len(names) > 1:
            problem = f"the case names {listed(names)} differ only in case or accents"
            yield finding("error", names[0], problem, "Rename all but one: some file systems take them for one.")
        elif len(cases) > 1:
            files = listed([path.name for case in cases for path in case.images])
            yield finding("warning", names[0], f"{files} give one case name; only the first is used", "Rename them.")


def _declaration(dataset: Dataset, facts: Sequence[CaseFacts], measured: Fingerprint) -> Iterator[Finding]:
    """Compare the files with dataset.json."""
    declared, colours = len(dataset.channel_names), Colours()
    yield from _number(dataset, len(facts))
    for fact in facts:
        colours.add(fact)
        yield from odd_kind(fact, declared, measured)
    yield from colours.findings(declared, measured.channels)
    if dataset.task == "classification":
        yield from _classes(dataset, facts)


def _number(dataset: Dataset, num_cases: int) -> Iterator[Finding]:
    number = dataset.declaration.numTraining
    if number is not None and number != num_cases:
        problem = f"'numTraining' is {number}, but there are {num_cases} cases"
        yield finding("warning", "dataset.json", problem, f"Write {num_cases}, or look for the missing files.")


def _classes(dataset: Dataset, facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Compare labelsTr.csv with the images."""
    given, cases = dataset.classes_of_cases(), {fact.case for fact in facts}
    for case in sorted(cases - set(given)):
        yield finding("error", case, "this image has no row in labelsTr.csv", "Add it, or remove the image.")
    scheme = dataset.class_scheme
    for case in sorted(case for case in cases & set(given) if not is_labelled(given[case], scheme)):
        yield finding("error", case, "its label in labelsTr.csv is empty", "Write its class, or remove the image.")
    if len(scheme.names) < 2 and scheme.is_exclusive:
        problem = f"labelsTr.csv has one class alone ({listed(list(scheme.names))}), so there is nothing to learn"
        yield finding("error", "labelsTr.csv", problem, "Add cases of another class.")
    for case in sorted(set(given) - cases):
        yield finding("warning", "labelsTr.csv", f"the case '{case}' has no image", "Add its image, or remove the row.")


def _duplicates(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Find images that are in the set more than once."""
    same = defaultdict(list)
    for fact in facts:
        if fact.content_hash:
            same[fact.content_hash].append(fact)
    for group in same.values():
        if len(group) < 2:
            continue
        names = [fact.case for fact in group]
        labels = {fact.label_hash for fact in group}
        problem = f"the same image is there {len(group)} times: {listed(names)}"
        if len(labels) > 1:
            problem += ", with different label maps"
        if len({fact.patient for fact in group}) > 1:
            problem += ", under different patients"
        yield finding("warning", names[0], problem, "Keep one of them.")


def _tests_in_training(
    dataset: Dataset, facts: Iterable[CaseFacts], tests: Sequence[tuple[str, str]]
) -> Iterator[Finding]:
    """Find test images that cannot be read, or that are training images too."""
    wanted = {digest for _, digest in tests}
    training = {fact.content_hash: fact.case for fact in facts if fact.content_hash in wanted} if wanted else {}
    for case, digest in tests:
        if digest.startswith("!"):
            yield finding("warning", f"imagesTs/{case}", digest[1:], "Copy or export it again.")
        elif digest in training:
            problem = f"the same image is in imagesTr, as '{training[digest]}'"
            yield finding(_overlap(dataset), f"imagesTs/{case}", problem, "Remove one of them.")


def _patients(
    dataset: Dataset, measured: Fingerprint, facts: Iterable[CaseFacts], tests: Sequence[tuple[str, str]]
) -> Iterator[Finding]:
    """Say how patients were found, and find those that are in training and test."""
    if not measured.patients_declared:
        problem = f"patients were not declared; {measured.patient_source}"
        mend = "If that is wrong, add patients.csv (case,patient) or 'group_regex' to dataset.json."
        yield finding("note", "dataset.json", problem, mend)
    training = {fact.case: fact.patient for fact in facts}
    names = [case for case, _ in tests]
    if not names:
        return
    try:
        found = patients_of(dataset, [*training, *(name for name in names if name not in training)])
    except BadData as error:
        yield finding("note", "imagesTs", f"patients of the test images are unknown ({error})", "Declare them too.")
        return
    patients = {found.of_case[case] for case in training}
    shared = sorted({found.of_case[name] for name in names if name not in training} & patients)
    if shared:
        severity = _overlap(dataset) if found.declared else "warning"
        problem = f"{len(shared)} patients have images in imagesTr and in imagesTs: {listed(shared)}"
        yield finding(severity, "imagesTs", problem, "Move all images of a patient to one side.")


def _overlap(dataset: Dataset) -> Severity:
    return "error" if (dataset.folder / "labelsTs").is_dir() else "warning"


def _hashed_tests(workspace: Workspace, dataset: Dataset, num_processes: int) -> list[tuple[str, str]]:
    """Return name and content hash of each case of imagesTs; "!" and the problem for one that cannot be read."""
    folder = dataset.folder / "imagesTs"
    if not folder.is_dir():
        return []
    groups = group_channels(visible_files(folder), dataset.file_ending)
    hashed = functools.partial(_hashed, reader=dataset.declaration.overwrite_image_reader_writer)
    workers = Workers(hashed, _dead, num_processes, "fmseg.stages.doctor", workspace.plugins)
    return list(workers.map([CaseFiles(name, images, None) for name, images in groups.items()]))


def _save_tests(path: Path, tests: Sequence[tuple[str, str]]) -> None:
    """Keep the content of the test images, so that no pretraining ever uses them, wherever it finds them."""
    content = np.unique(np.array([int(digest[:16], 16) for _, digest in tests if digest[0] != "!"], np.uint64))
    if len(content):
        with writing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, content)
    else:
        path.unlink(missing_ok=True)


def _hashed(files: CaseFiles, *, reader: str | None) -> tuple[str, str]:
    try:
        return files.name, content_hash(read_case(files, reader).voxels)
    except BadData as error:
        return files.name, f"!{error}"


def _dead(files: CaseFiles) -> tuple[str, str]:
    return files.name, "!the process that read it was killed twice"
