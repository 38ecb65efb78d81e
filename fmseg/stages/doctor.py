"""Say what is wrong with a raw dataset: each finding with its file and its mend.

The findings about single files were made when the cases were measured; here come those about the set: files that
do not belong together, names that clash, duplicates, and images or patients that are in training and test alike.
Duplicates are warnings, also with different label maps: two people may have drawn the same image. Overlap with
the test set is an error as soon as there is a labelsTs, since scores on it would be wrong.
"""

import functools
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fmseg.errors import BadData
from fmseg.files import write_json
from fmseg.imaging.case import content_hash
from fmseg.imaging.measure import read_facts, refuse_errors
from fmseg.imaging.readers import read_case
from fmseg.planning.patients import patients_of
from fmseg.records.dataset import CaseFiles, Dataset, group_channels, visible_files
from fmseg.records.fingerprint import CaseFacts, Finding, Fingerprint, Severity
from fmseg.records.labels import is_labelled
from fmseg.sampling.workers import Workers
from fmseg.workspace import Workspace

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MAX_NAMES = 5


def doctor(workspace: Workspace, name: str, *, num_processes: int = 0) -> tuple[Finding, ...]:
    """Return all findings about a measured dataset, errors first, and save them in doctor.json.

    Raises NotReady if it was not measured yet.
    """
    dataset = Dataset.load(workspace.raw_dataset(name))
    folder = workspace.prepared(name)
    command = f"fmseg fingerprint -d {name}"
    facts = read_facts(workspace.need(folder / "cases.jsonl", command))
    measured = Fingerprint.load(workspace.need(folder / "dataset_fingerprint.json", command))
    tests = _hashed_tests(workspace, dataset, num_processes)
    found = [
        *(finding for fact in facts for finding in fact.findings),
        *_names(dataset),
        *_declaration(dataset, facts, measured),
        *_duplicates(facts),
        *_tests_in_training(dataset, facts, tests),
        *_patients(dataset, measured, facts, tests),
    ]
    if dataset.task == "unlabelled":  # what cannot be used is left out there, and listed
        found = [f.evolve(severity="warning") if f.severity == "error" else f for f in found]
    findings = tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))
    write_json(folder / "doctor.json", [finding.model_dump(mode="json") for finding in findings])
    return findings


def check(findings: Iterable[Finding]) -> None:
    """Raise BadData that lists all errors, if there are any."""
    refuse_errors(findings)


def _names(dataset: Dataset) -> Iterator[Finding]:
    """Find label maps without image, and case names that some file system takes for one."""
    for path in dataset.orphan_labels():
        problem, mend = "this label map has no image", "Add its image to imagesTr, or remove it."
        yield _finding("error", f"labelsTr/{path.name}", problem, mend)
    alike = defaultdict(list)
    for case in dataset.training_cases():
        alike[unicodedata.normalize("NFC", case.name).casefold()].append(case)
    for cases in alike.values():
        names = sorted({case.name for case in cases})
        if len(names) > 1:
            problem = f"the case names {_listed(names)} differ only in case or accents"
            yield _finding("error", names[0], problem, "Rename all but one: some file systems take them for one.")
        elif len(cases) > 1:
            files = _listed([path.name for case in cases for path in case.images])
            yield _finding("warning", names[0], f"{files} give one case name; only the first is used", "Rename them.")


def _declaration(dataset: Dataset, facts: Sequence[CaseFacts], measured: Fingerprint) -> Iterator[Finding]:
    """Compare the files with dataset.json."""
    number = dataset.declaration.numTraining
    if number is not None and number != len(facts):
        problem = f"'numTraining' is {number}, but there are {len(facts)} cases"
        yield _finding("warning", "dataset.json", problem, f"Write {len(facts)}, or look for the missing files.")
    declared = len(dataset.channel_names)
    for fact in facts:
        if not fact.shape[0]:
            continue
        if fact.channels != declared and not {fact.channels, declared} <= {1, 3}:
            problem = f"it has {fact.channels} channels, dataset.json declares {declared}"
            yield _finding("error", fact.case, problem, "Give one file per channel, or correct 'channel_names'.")
        if fact.dtype != measured.dtype == "uint8":
            problem = f"its values are {fact.dtype}, those of most images uint8"
            yield _finding("error", fact.case, problem, "Save it with 8 bits per channel, as the others.")
    yield from _colours(facts, declared, measured.channels)
    if dataset.task == "classification":
        yield from _classes(dataset, facts)


def _colours(facts: Sequence[CaseFacts], declared: int, used: int) -> Iterator[Finding]:
    """Find sets that mix grey and colour, or are declared as one and are the other."""
    coloured = [fact.case for fact in facts if fact.channels == 3 and not fact.is_grey]
    grey = [fact.case for fact in facts if fact.channels == 1 or fact.is_grey]
    if used == 1 and coloured:
        problem = f"{len(coloured)} images are coloured ({_listed(coloured)}), {len(grey)} are grey"
        yield _finding("warning", "imagesTr", problem, "Nothing to do: only their brightness is used.")
    if used == 3 and declared == 1:
        problem = f"'channel_names' has one channel, but {len(coloured)} images are coloured; three channels are used"
        yield _finding("warning", "dataset.json", problem, 'Write {"0": "red", "1": "green", "2": "blue"}.')
    elif used == 3 and grey:
        problem = f"{len(grey)} images are grey ({_listed(grey)}), {len(coloured)} are coloured"
        yield _finding("note", "imagesTr", problem, "Nothing to do: grey is used as three equal channels.")


def _classes(dataset: Dataset, facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Compare labelsTr.csv with the images."""
    given, cases = dataset.classes_of_cases(), {fact.case for fact in facts}
    for case in sorted(cases - set(given)):
        yield _finding("error", case, "this image has no row in labelsTr.csv", "Add it, or remove the image.")
    scheme = dataset.class_scheme
    for case in sorted(case for case in cases & set(given) if not is_labelled(given[case], scheme)):
        yield _finding("error", case, "its label in labelsTr.csv is empty", "Write its class, or remove the image.")
    if len(scheme.names) < 2 and scheme.is_exclusive:
        problem = f"labelsTr.csv has one class alone ({_listed(list(scheme.names))}), so there is nothing to learn"
        yield _finding("error", "labelsTr.csv", problem, "Add cases of another class.")
    for case in sorted(set(given) - cases):
        yield _finding(
            "warning", "labelsTr.csv", f"the case '{case}' has no image", "Add its image, or remove the row."
        )


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
        problem = f"the same image is there {len(group)} times: {_listed(names)}"
        if len(labels) > 1:
            problem += ", with different label maps"
        if len({fact.patient for fact in group}) > 1:
            problem += ", under different patients"
        yield _finding("warning", names[0], problem, "Keep one of them.")


def _tests_in_training(
    dataset: Dataset, facts: Sequence[CaseFacts], tests: Sequence[tuple[str, str]]
) -> Iterator[Finding]:
    """Find test images that cannot be read, or that are training images too."""
    training = {fact.content_hash: fact.case for fact in facts if fact.content_hash}
    for case, digest in tests:
        if digest.startswith("!"):
            yield _finding("warning", f"imagesTs/{case}", digest[1:], "Copy or export it again.")
        elif digest in training:
            problem = f"the same image is in imagesTr, as '{training[digest]}'"
            yield _finding(_overlap(dataset), f"imagesTs/{case}", problem, "Remove one of them.")


def _patients(
    dataset: Dataset, measured: Fingerprint, facts: Sequence[CaseFacts], tests: Sequence[tuple[str, str]]
) -> Iterator[Finding]:
    """Say how patients were found, and find those that are in training and test."""
    if not measured.patients_declared:
        problem = f"patients were not declared; {measured.patient_source}"
        mend = "If that is wrong, add patients.csv (case,patient) or 'group_regex' to dataset.json."
        yield _finding("note", "dataset.json", problem, mend)
    training = {fact.case: fact.patient for fact in facts}
    names = [case for case, _ in tests]
    if not names:
        return
    try:
        found = patients_of(dataset, [*training, *(name for name in names if name not in training)])
    except BadData as error:
        yield _finding("note", "imagesTs", f"patients of the test images are unknown ({error})", "Declare them too.")
        return
    patients = {found.of_case[case] for case in training}
    shared = sorted({found.of_case[name] for name in names if name not in training} & patients)
    if shared:
        severity = _overlap(dataset) if found.declared else "warning"
        problem = f"{len(shared)} patients have images in imagesTr and in imagesTs: {_listed(shared)}"
        yield _finding(severity, "imagesTs", problem, "Move all images of a patient to one side.")


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


def _hashed(files: CaseFiles, *, reader: str | None) -> tuple[str, str]:
    try:
        return files.name, content_hash(read_case(files, reader).voxels)
    except BadData as error:
        return files.name, f"!{error}"


def _dead(files: CaseFiles) -> tuple[str, str]:
    return files.name, "!the process that read it was killed twice"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _finding(severity: Severity, where: str | Path, problem: str, mend: str) -> Finding:
    return Finding(severity=severity, where=str(where), problem=problem, mend=mend)
