"""Say what is wrong with a raw dataset: each finding with its file and its mend.

The findings about single files were made when the cases were measured; here come those about the set: files that
do not belong together, names that clash, duplicates, and images or patients that are in training and test alike.
Duplicates are warnings, also with different label maps: two people may have drawn the same image. Overlap with
the test set is an error as soon as there is a labelsTs, since scores on it would be wrong.
"""

import functools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fmseg.errors import BadData
from fmseg.files import write_json
from fmseg.imaging.alike import NEAR_BITS, ImageKeys, is_repeated, keys_of
from fmseg.imaging.case import content_hash
from fmseg.imaging.looks import num_alike
from fmseg.imaging.measure import read_facts, refuse_errors
from fmseg.imaging.readers import read_case
from fmseg.planning.patients import patients_of
from fmseg.records.cases import CaseNames, key_of
from fmseg.records.dataset import CaseFiles, Dataset, group_channels, visible_files
from fmseg.records.fingerprint import CaseFacts, Finding, Fingerprint, Severity
from fmseg.sampling.workers import Workers
from fmseg.workspace import Workspace

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MAX_NAMES = 5
#: findings of one kind about single files of an unlabelled set
MAX_ALIKE = 20
NUMBER = re.compile(r"\d[\d.,]*")


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
    if dataset.task == "unlabelled":
        found = _corpus(dataset, measured, path, tests)
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


def _corpus(dataset: Dataset, measured: Fingerprint, path: Path, tests: Sequence[tuple[str, str]]) -> list[Finding]:
    """Return the findings about an unlabelled set of any size; what many of its files share is told once.

    Nothing is an error: what cannot be used is left out, and listed.
    """
    found: list[Finding] = []
    counts: Counter[str] = Counter()
    declared, num_cases = len(dataset.channel_names), 0
    for fact in read_facts(path):
        num_cases += 1
        for finding in (*fact.findings, *_odd_kind(fact, declared, measured)):
            kind = NUMBER.sub("N", finding.problem)
            counts[kind] += 1
            if counts[kind] <= MAX_ALIKE:
                found.append(finding.evolve(severity="warning") if finding.severity == "error" else finding)
    for kind, count in counts.items():
        if count > MAX_ALIKE:
            problem = f"{count - MAX_ALIKE} more files are like those listed: {kind}"
            found.append(_finding("warning", dataset.source, problem, "See cases.jsonl for all of them."))
    clashes = list(_names(dataset))
    if len(clashes) > MAX_ALIKE:
        problem = f"{len(clashes) - MAX_ALIKE} more names clash like those listed"
        clashes[MAX_ALIKE:] = [_finding("warning", dataset.source, problem, "Rename them.")]
    found += [finding.evolve(severity="warning") for finding in clashes]
    return [
        *found,
        *_number(dataset, num_cases),
        *_colours(read_facts(path), declared, measured.channels),
        *_alike(dataset, keys_of(read_facts(path))),
        *_tests_in_training(dataset, read_facts(path), tests),
        *_patients(dataset, measured, read_facts(path) if tests else (), tests),
    ]


def _alike(dataset: Dataset, keys: ImageKeys) -> Iterator[Finding]:
    """Count images that are there more than once, and those that nearly are."""
    repeated = is_repeated(keys.content)
    if repeated.any():
        problem = f"{repeated.sum():,} of {len(repeated):,} images are equal to another one"
        yield _finding("note", dataset.source, problem, "Nothing to do: each is pretrained on once.")
    num_near = num_alike(keys.looks[~repeated & (keys.looks > 0)], NEAR_BITS)
    if num_near:
        problem = f"{num_near:,} of {len(repeated):,} images look nearly like another one"
        mend = "Those of one patient are thinned in pretraining. If there are many others, look for copies."
        yield _finding("note", dataset.source, problem, mend)


def _names(dataset: Dataset) -> Iterator[Finding]:
    """Find label maps without image, and case names that some file system takes for one."""
    for path in dataset.orphan_labels():
        problem, mend = "this label map has no image", "Add its image to imagesTr, or remove it."
        yield _finding("error", f"labelsTr/{path.name}", problem, mend)
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
            problem = f"the case names {_listed(names)} differ only in case or accents"
            yield _finding("error", names[0], problem, "Rename all but one: some file systems take them for one.")
        elif len(cases) > 1:
            files = _listed([path.name for case in cases for path in case.images])
            yield _finding("warning", names[0], f"{files} give one case name; only the first is used", "Rename them.")


def _declaration(dataset: Dataset, facts: Sequence[CaseFacts], measured: Fingerprint) -> Iterator[Finding]:
    """Compare the files with dataset.json."""
    declared = len(dataset.channel_names)
    yield from _number(dataset, len(facts))
    for fact in facts:
        yield from _odd_kind(fact, declared, measured)
    yield from _colours(facts, declared, measured.channels)
    if dataset.task == "classification":
        yield from _classes(dataset, facts)


def _number(dataset: Dataset, num_cases: int) -> Iterator[Finding]:
    number = dataset.declaration.numTraining
    if number is not None and number != num_cases:
        problem = f"'numTraining' is {number}, but there are {num_cases} cases"
        yield _finding("warning", "dataset.json", problem, f"Write {num_cases}, or look for the missing files.")


def _odd_kind(fact: CaseFacts, declared: int, measured: Fingerprint) -> Iterator[Finding]:
    """Find an image of other channels or another type than the set's."""
    if not fact.shape[0]:
        return
    if fact.channels != declared and not {fact.channels, declared} <= {1, 3}:
        problem = f"it has {fact.channels} channels, dataset.json declares {declared}"
        yield _finding("error", fact.case, problem, "Give one file per channel, or correct 'channel_names'.")
    if fact.dtype != measured.dtype == "uint8":
        problem = f"its values are {fact.dtype}, those of most images uint8"
        yield _finding("error", fact.case, problem, "Save it with 8 bits per channel, as the others.")


def _colours(facts: Iterable[CaseFacts], declared: int, used: int) -> Iterator[Finding]:
    """Find sets that mix grey and colour, or are declared as one and are the other."""
    names: dict[str, list[str]] = {"grey": [], "coloured": []}
    counts: Counter[str] = Counter()
    for fact in facts:
        kind = "grey" if fact.channels == 1 or fact.is_grey else "coloured" if fact.channels == 3 else ""
        counts[kind] += 1
        if kind and len(names[kind]) < MAX_NAMES:
            names[kind].append(fact.case)
    grey, coloured = (f"{counts[kind]} images are {kind} ({_listed(names[kind], counts[kind])})" for kind in names)
    if used == 1 and counts["coloured"]:
        problem = f"{coloured}, {counts['grey']} are grey"
        yield _finding("warning", "imagesTr", problem, "Nothing to do: only their brightness is used.")
    if used == 3 and declared == 1:
        problem = (
            f"'channel_names' has one channel, but {counts['coloured']} images are coloured; three channels are used"
        )
        yield _finding("warning", "dataset.json", problem, 'Write {"0": "red", "1": "green", "2": "blue"}.')
    elif used == 3 and counts["grey"]:
        problem = f"{grey}, {counts['coloured']} are coloured"
        yield _finding("note", "imagesTr", problem, "Nothing to do: grey is used as three equal channels.")


def _classes(dataset: Dataset, facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Compare labelsTr.csv with the images."""
    given, cases = dataset.classes_of_cases(), {fact.case for fact in facts}
    for case in sorted(cases - set(given)):
        yield _finding("error", case, "this image has no row in labelsTr.csv", "Add it, or remove the image.")
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
    dataset: Dataset, facts: Iterable[CaseFacts], tests: Sequence[tuple[str, str]]
) -> Iterator[Finding]:
    """Find test images that cannot be read, or that are training images too."""
    wanted = {digest for _, digest in tests}
    training = {fact.content_hash: fact.case for fact in facts if fact.content_hash in wanted} if wanted else {}
    for case, digest in tests:
        if digest.startswith("!"):
            yield _finding("warning", f"imagesTs/{case}", digest[1:], "Copy or export it again.")
        elif digest in training:
            problem = f"the same image is in imagesTr, as '{training[digest]}'"
            yield _finding(_overlap(dataset), f"imagesTs/{case}", problem, "Remove one of them.")


def _patients(
    dataset: Dataset, measured: Fingerprint, facts: Iterable[CaseFacts], tests: Sequence[tuple[str, str]]
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


def _listed(names: Sequence[str], count: int | None = None) -> str:
    """Return the first of ``count`` names; by default of those given."""
    more = (len(names) if count is None else count) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _finding(severity: Severity, where: str | Path, problem: str, mend: str) -> Finding:
    return Finding(severity=severity, where=str(where), problem=problem, mend=mend)
