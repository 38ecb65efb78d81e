"""The test set: can it be read, was it trained on, and do its label maps fit."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmseg.errors import BadData
from fmseg.files import writing
from fmseg.imaging.case import BadFile, content_hash
from fmseg.imaging.looks import looks_of
from fmseg.imaging.measure import measure_case
from fmseg.imaging.readers import read_case, read_patient
from fmseg.imaging.survey import finding, listed
from fmseg.planning.patients import patient_salt, patients_of
from fmseg.records.dataset import CaseFiles, Dataset
from fmseg.records.fingerprint import CaseFacts, Finding, Severity
from fmseg.records.labels import LabelScheme
from fmseg.sampling.distinct import TESTS
from fmseg.sampling.workers import Workers
from fmseg.workspace import Workspace

LABELS = "labelsTs"
SEEN = "Scores on images that were trained on say nothing about new ones."


@dataclass(frozen=True, slots=True)
class TestCase:
    """What is known of a case of imagesTs."""

    __test__ = False  # not one of pytest's

    case: str
    #: empty if the image cannot be read
    content_hash: str
    looks: str
    findings: tuple[Finding, ...]
    #: a salted hash of the patient that its header names; empty where none is named
    header_patient: str = ""


def measure_tests(workspace: Workspace, dataset: Dataset, num_processes: int) -> list[TestCase]:
    """Read the images of imagesTs, and their label maps in labelsTs."""
    cases = dataset.test_cases()
    labels = dataset.labels if dataset.task == "segmentation" and any(case.label for case in cases) else None
    reader, salt = dataset.declaration.overwrite_image_reader_writer, patient_salt(workspace.preprocessed)
    measured = functools.partial(_measured, labels=labels, reader=reader, salt=salt)
    return list(Workers(measured, _dead, num_processes, "fmseg.stages.doctor", workspace.plugins).map(cases))


def save_tests(folder: Path, tests: Sequence[TestCase]) -> None:
    """Keep the content of the test images, so that no pretraining ever uses them, wherever it finds them."""
    content = np.unique(np.array([int(test.content_hash[:16], 16) for test in tests if test.content_hash], np.uint64))
    path = folder / TESTS
    if len(content):
        with writing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, content)
    else:
        path.unlink(missing_ok=True)


def tests_findings(dataset: Dataset, facts: Iterable[CaseFacts], tests: Sequence[TestCase]) -> Iterator[Finding]:
    """Find test images that cannot be read or are training images too, and label maps that do not fit."""
    wanted = {test.content_hash for test in tests if test.content_hash}
    training = {fact.content_hash: fact.case for fact in facts if fact.content_hash in wanted} if wanted else {}
    for test in tests:
        yield from test.findings
        if test.content_hash in training:
            case = training[test.content_hash]
            problem = f"the same image is in imagesTr, as '{case}'"
            where = f"imagesTs/{test.case}"
            yield finding(_overlap(dataset), where, problem, "Remove one of them.", SEEN, [case], "leave_out")
    if tests and dataset.task == "segmentation":
        known = {test.case for test in tests}
        for case, path in dataset.label_maps(LABELS).items():
            if case not in known:
                mend = "Add its image to imagesTs, or remove it."
                problem, why = "this label map has no image", "It is never scored."
                yield finding("error", f"{LABELS}/{path.name}", problem, mend, why, (), "remove")


def patients_on_both_sides(
    dataset: Dataset, facts: Iterable[CaseFacts], tests: Sequence[TestCase]
) -> Iterator[Finding]:
    """Find patients that are in training and test."""
    if not tests:
        return
    headers = {test.header_patient: test.case for test in tests if test.header_patient}
    training: list[str] = []
    told: set[str] = set()  # cases whose header names their patient
    met: dict[str, str] = {}  # patient of a header -> a training case
    for fact in facts:
        training.append(fact.case)
        if fact.header_patient:
            told.add(fact.case)
        if fact.header_patient in headers:
            met[fact.header_patient] = fact.case
    if met:
        patient, case = min(met.items(), key=lambda item: item[1])
        pairs = f"'{case}' and '{headers[patient]}', for one, are of one patient"
        problem = f"the headers of {len(met)} patients are on both sides, in imagesTr and in imagesTs: {pairs}"
        yield finding(_overlap(dataset), "imagesTs", problem, "Move all images of a patient to one side.", SEEN)
    names = [test.case for test in tests]
    there = set(training)
    try:
        found = patients_of(dataset, [*training, *(name for name in names if name not in training)])
    except BadData as error:
        problem = f"patients of the test images are unknown ({error})"
        yield finding("note", "imagesTs", problem, "Declare them too.", SEEN)
        return
    if not found.declared:  # then headers come before names
        training = [case for case in training if case not in told]
        names = [test.case for test in tests if not test.header_patient]
    patients = {found.of_case[case] for case in training}
    shared = sorted({found.of_case[name] for name in names if name not in there} & patients)
    if shared:
        severity = _overlap(dataset) if found.declared else "warning"
        problem = f"{len(shared)} patients have images in imagesTr and in imagesTs: {listed(shared)}"
        yield finding(severity, "imagesTs", problem, "Move all images of a patient to one side.", SEEN)


def _overlap(dataset: Dataset) -> Severity:
    return "error" if (dataset.folder / LABELS).is_dir() else "warning"


def _measured(files: CaseFiles, *, labels: LabelScheme | None, reader: str | None, salt: bytes) -> TestCase:
    """Read a test image; its label map is measured as those of the training are."""
    try:
        voxels = read_case(files, reader).voxels
        patient = read_patient(files, salt, reader)
    except BadFile as error:
        where = f"imagesTs/{files.name}"
        bad = finding("warning", where, error.problem, error.mend, "It cannot be predicted, nor scored.")
        return TestCase(files.name, "", "", (bad,))
    except BadData as error:
        bad = finding("warning", f"imagesTs/{files.name}", str(error), "Copy it again.", "It cannot be predicted.")
        return TestCase(files.name, "", "", (bad,))
    found: tuple[Finding, ...] = ()
    if labels is not None and files.label is not None:
        measured = measure_case(files, labels, files.name, reader=reader)
        found = tuple(each for each in measured.findings if each.where.startswith(f"{LABELS}/"))
    return TestCase(files.name, content_hash(voxels), looks_of(voxels), found, patient)


def _dead(files: CaseFiles) -> TestCase:
    problem = "the process that read it was killed twice"
    bad = finding("warning", f"imagesTs/{files.name}", problem, "Copy or export it again.", "It cannot be predicted.")
    return TestCase(files.name, "", "", (bad,))
