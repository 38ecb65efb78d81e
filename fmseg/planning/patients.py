"""Which cases belong to one patient: declared, or guessed from the names with care.

Images of one patient resemble each other, so they must not lie on both sides of a split. A declared table or
expression is followed to the letter. A guess only ever groups what names say plainly (a patient's or exam's
number that all names carry), since a wrong group costs balance while a missed one costs honesty of the scores;
where names say nothing, each case stands for itself and the source says so. A DICOM header that names a patient
comes before a guess; what is kept of it is a salted hash.
"""

import contextlib
import errno
import logging
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fmseg.errors import BadData
from fmseg.files import remove_strays, writable
from fmseg.imaging.case import BadFile
from fmseg.imaging.measure import read_facts
from fmseg.imaging.readers import is_dicom, read_patient
from fmseg.records.dataset import Dataset
from fmseg.records.fingerprint import CaseFacts, Fingerprint
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

#: below this many groups a bare number in front is more likely a class or a batch than an exam
MIN_GUESSED_GROUPS = 5
#: what file systems answer that have no links
WITHOUT_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
#: of the hashes of patients, in the folder of prepared data; only its owner may read it
SALT, SALT_BYTES = ".patient_salt", 32

_PERSON = re.compile(
    r"(?:^|[/_.\s-])((?:patient|subject|subj|sub|pat|pt|exam|study|p)[_-]?\d+)(?=[/_.\s-]|$)", re.IGNORECASE
)
_NUMBER_IN_FRONT = re.compile(r"^(\d+)[_-].")
_FRAME_AT_END = re.compile(r"^(.*\d.*?)[_.\s-](?:frame|slice|image|img|fr|im)[_-]?\d+$", re.IGNORECASE)


class Patients(NamedTuple):
    """The patient of each case, and how that is known."""

    of_case: Mapping[str, str]
    #: in words
    source: str
    #: by the owner of the data, rather than guessed here
    declared: bool


def patients_of(dataset: Dataset, case_names: Sequence[str]) -> Patients:
    """Return the patient of every case: from patients.csv, else by ``group_regex``, else guessed from the names.

    Raises BadData naming case and expression if ``group_regex`` does not fit a case.
    """
    table, declared = dataset.patients_of_cases(), dataset.declaration
    if table:
        found = _from_table(table, case_names, _source_of_table(dataset))
    elif declared.group_regex is not None:
        found = _from_expression(declared.group_regex, case_names, str(dataset.folder / "dataset.json"))
    else:
        return guess_patients(case_names)
    if declared.patient_unit != "patient":
        found = found._replace(source=f"{found.source}, where a {declared.patient_unit} counts as a patient")
    return found


def known_patients(workspace: Workspace, dataset: Dataset, case_names: Collection[str]) -> Mapping[str, str]:
    """Return the patient of each of these cases as the dataset's folds know it: whoever asks must ask here.

    Declared ones come first; a case of which nothing is declared, such as a new image, is a patient of its own, and a
    warning says so. Else those of measured cases are as they were measured, by DICOM headers where these name somebody;
    headers of other cases, such as test images, are read here. What is left is guessed from the names.
    """
    declared = _declared(dataset)
    if declared is not None:
        return _one_each_where_unknown(declared, case_names)
    path = workspace.prepared(dataset.name) / "cases.jsonl"
    measured = {fact.case: fact.patient for fact in read_facts(path)}
    others = [name for name in case_names if name not in measured]
    guessed = patients_of(dataset, [*measured, *others]).of_case  # a rule must fit all of them
    headers = _patients_of_headers(workspace, dataset, set(others))
    return {name: measured.get(name) or headers.get(name) or guessed[name] for name in case_names}


class _Declared(NamedTuple):
    """What the owner of the data says of patients."""

    #: the patient of a case, or None
    rule: Callable[[str], str | None]
    #: in words
    source: str
    #: for cases that the rule says nothing of
    mend: str


def _declared(dataset: Dataset) -> _Declared | None:
    table = dataset.patients_of_cases()
    if table:
        return _Declared(table.get, _source_of_table(dataset), "add them there")
    if dataset.declaration.group_regex is None:
        return None
    expression = dataset.declaration.group_regex
    return _Declared(_group_of(expression), f"group_regex {expression!r} of dataset.json", "name them so that it fits")


def _one_each_where_unknown(declared: _Declared, case_names: Collection[str]) -> dict[str, str]:
    found = {name: declared.rule(name) for name in case_names}
    unknown = [name for name, patient in found.items() if patient is None]
    if unknown:
        logger.warning(
            "%s says nothing of the patient of %d of %d cases, such as %s: each counts as a patient of its own. "
            "If some are of one patient, intervals are too narrow: %s",
            *(declared.source, len(unknown), len(found), unknown[0], declared.mend),
        )
    return {name: name if patient is None else patient for name, patient in found.items()}


def _patients_of_headers(workspace: Workspace, dataset: Dataset, names: Collection[str]) -> dict[str, str]:
    """Return the patients that the DICOM headers of cases name; a file that cannot be read names none."""
    folders = {"imagesTr": dataset.training_cases, "imagesTs": dataset.test_cases}
    there = [cases for folder, cases in folders.items() if names and (dataset.folder / folder).is_dir()]
    wanted = [files for cases in there for files in cases() if files.name in names and is_dicom(files.images[0])]
    found: dict[str, str] = {}
    for files in wanted:
        with contextlib.suppress(BadFile):
            patient = read_patient(files, patient_salt(workspace.preprocessed))
            found |= {files.name: patient} if patient else {}
    return found


def patient_salt(folder: Path) -> bytes:
    """Return the salt of a workspace's prepared data, made at random the first time."""
    path = folder / SALT
    with writable(folder):
        remove_strays(folder)
        if not path.exists():
            part = path.with_name(f"{SALT}.{os.getpid()}.tmp")
            part.touch(mode=0o600)
            try:
                part.write_bytes(secrets.token_bytes(SALT_BYTES))
                os.link(part, path)
            except FileExistsError:
                pass  # another process was first
            except OSError as error:
                if error.errno not in WITHOUT_LINKS:
                    raise  # never half a salt in its place
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
        return path.read_bytes()


def source_with_headers(measured: Fingerprint, facts: Iterable[CaseFacts]) -> Fingerprint:
    """Say that patients come from DICOM headers, where they do; all of them together are as good as declared."""
    readable = [bool(fact.header_patient) for fact in facts if fact.shape[0]]
    if not any(readable):
        return measured
    source = "PatientID of the DICOM headers, kept as a salted hash"
    if not all(readable):
        source += f"; of {len(readable) - sum(readable)} cases, whose header names none, {measured.patient_source}"
    return measured.evolve(patient_source=source, patients_declared=all(readable))


def guess_patients(case_names: Sequence[str]) -> Patients:
    """Return the patients that the names speak of; each case for itself if they speak of none."""
    rules = (
        (_named_person, 2, "the names carry a patient, as {case} that of {patient}"),
        (
            _number_in_front,
            MIN_GUESSED_GROUPS,
            "several names begin with one number, taken for an exam, as {case}: {patient}",
        ),
        (_clip_of_frame, 2, "the names count images of one clip or exam, as {case} of {patient}"),
    )
    for rule, min_groups, sentence in rules:
        example = _plain_example(rule, case_names, min_groups)
        if example is not None:
            source = f"guessed: {sentence.format(case=example, patient=rule(example))}"
            return Patients(_Derived(case_names, rule), source, False)
    because = "guessed: the names tell of no patients, so each case counts as one; declare them in patients.csv"
    return Patients(_Derived(case_names, lambda name: name), because, False)


class _Derived(Mapping[str, str]):
    """Case -> patient, found in the name when asked for: millions of cases take no memory."""

    def __init__(self, names: Sequence[str], rule: Callable[[str], str | None]) -> None:
        self._names, self._rule = names, rule

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, name: str) -> str:
        patient = self._rule(name)
        if patient is None:
            raise KeyError(name)
        return patient


def _source_of_table(dataset: Dataset) -> str:
    is_own = (dataset.folder / "patients.csv").exists()
    return "patients.csv" if is_own else f"column 'patient' of {dataset.source}"


def _from_table(table: Mapping[str, str], case_names: Sequence[str], source: str) -> Patients:
    first, count = "", 0
    for name in case_names:
        if name not in table:
            first, count = first or name, count + 1
    if count:
        source += f"; {count} cases that are not in it, such as {first}, count as patients of their own"
    return Patients(_Derived(case_names, lambda name: table.get(name, name)), source, True)


def _from_expression(expression: str, case_names: Sequence[str], path: str) -> Patients:
    rule = _group_of(expression)
    for name in case_names:
        if rule(name) is None:
            raise BadData(
                f"{path}: 'group_regex' {expression!r} does not fit the case '{name}'. "
                "Widen the expression, or list the patients in patients.csv."
            )
    return Patients(_Derived(case_names, rule), f"group_regex {expression!r} of dataset.json", True)


def _group_of(expression: str) -> Callable[[str], str | None]:
    """Return the rule that finds the first group of an expression in a name."""
    pattern = re.compile(expression)

    def rule(name: str) -> str | None:
        match = pattern.search(name)
        return match[1] if match else None

    return rule


def _named_person(name: str) -> str | None:
    match = _PERSON.search(name)
    return match[1] if match else None


def _number_in_front(name: str) -> str | None:
    match = _NUMBER_IN_FRONT.search(name)
    return match[1] if match else None


def _clip_of_frame(name: str) -> str | None:
    match = _FRAME_AT_END.search(name)
    return match[1] if match else None


def _plain_example(rule: Callable[[str], str | None], case_names: Sequence[str], min_groups: int) -> str | None:
    """Return the first case that shares its patient; None if the rule fits not all, or separates all or hardly any."""
    first: dict[str, int] = {}
    shared = len(case_names)
    for number, name in enumerate(case_names):
        patient = rule(name)
        if patient is None:
            return None
        if first.setdefault(patient, number) != number:
            shared = min(shared, first[patient])
    return case_names[shared] if min_groups <= len(first) < len(case_names) else None
