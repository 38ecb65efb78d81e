"""Which cases belong to one patient: declared, or guessed from the names with care.

Images of one patient resemble each other, so they must not lie on both sides of a split. A declared table or
expression is followed to the letter. A guess only ever groups what names say plainly (a patient's or exam's
number that all names carry), since a wrong group costs balance while a missed one costs honesty of the scores;
where names say nothing, each case stands for itself and the source says so.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from fmseg.errors import BadData
from fmseg.records.dataset import Dataset

#: below this many groups a bare number in front is more likely a class or a batch than an exam
MIN_GUESSED_GROUPS = 5

_PERSON = re.compile(
    r"(?:^|[/_.\s-])((?:patient|subject|subj|sub|pat|pt|exam|study|p)[_-]?\d+)(?=[/_.\s-]|$)", re.IGNORECASE
)
_NUMBER_IN_FRONT = re.compile(r"^(\d+)[_-].")
_FRAME_AT_END = re.compile(r"^(.*\d.*?)[_.\s-](?:frame|slice|image|img|fr|im)[_-]?\d+$", re.IGNORECASE)


class Patients(NamedTuple):
    """The patient of each case, and how that is known."""

    of_case: dict[str, str]
    #: in words
    source: str
    #: by the owner of the data, rather than guessed here
    declared: bool


def patients_of(dataset: Dataset, case_names: Sequence[str]) -> Patients:
    """Return the patient of every case: from patients.csv, else by ``group_regex``, else guessed from the names.

    Raises BadData naming case and expression if ``group_regex`` does not fit a case.
    """
    table = dataset.patients_of_cases()
    if table:
        return _from_table(table, case_names)
    if dataset.declaration.group_regex is not None:
        return _from_expression(dataset.declaration.group_regex, case_names, str(dataset.folder / "dataset.json"))
    return guess_patients(case_names)


def guess_patients(case_names: Sequence[str]) -> Patients:
    """Return the patients that the names speak of; each case for itself if they speak of none."""
    for rule in (_named_person, _number_in_front, _frames_of_a_clip):
        found = rule(case_names)
        if found is not None:
            return found
    because = "guessed: the names tell of no patients, so each case counts as one; declare them in patients.csv"
    return Patients({name: name for name in case_names}, because, False)


def _from_table(table: dict[str, str], case_names: Sequence[str]) -> Patients:
    missing = [name for name in case_names if name not in table]
    source = "patients.csv"
    if missing:
        source += f"; {len(missing)} cases that are not in it, such as {missing[0]}, count as patients of their own"
    return Patients({name: table.get(name, name) for name in case_names}, source, True)


def _from_expression(expression: str, case_names: Sequence[str], path: str) -> Patients:
    pattern = re.compile(expression)
    groups: dict[str, str] = {}
    for name in case_names:
        match = pattern.search(name)
        if match is None or match[1] is None:
            raise BadData(
                f"{path}: 'group_regex' {expression!r} does not fit the case '{name}'. "
                "Widen the expression, or list the patients in patients.csv."
            )
        groups[name] = match[1]
    return Patients(groups, f"group_regex {expression!r} of dataset.json", True)


def _named_person(case_names: Sequence[str]) -> Patients | None:
    groups = _matched(_PERSON, case_names)
    return _guess(groups, 2, "the names carry a patient, as {case} that of {patient}")


def _number_in_front(case_names: Sequence[str]) -> Patients | None:
    groups = _matched(_NUMBER_IN_FRONT, case_names)
    return _guess(
        groups, MIN_GUESSED_GROUPS, "several names begin with one number, taken for an exam, as {case}: {patient}"
    )


def _frames_of_a_clip(case_names: Sequence[str]) -> Patients | None:
    groups = _matched(_FRAME_AT_END, case_names)
    return _guess(groups, 2, "the names count images of one clip or exam, as {case} of {patient}")


def _matched(pattern: re.Pattern[str], case_names: Sequence[str]) -> dict[str, str] | None:
    found = {name: pattern.search(name) for name in case_names}
    if not all(found.values()):
        return None
    return {name: match[1] for name, match in found.items() if match is not None}


def _guess(groups: dict[str, str] | None, min_groups: int, sentence: str) -> Patients | None:
    """Return the guess, unless it separates all cases or hardly any."""
    if groups is None or not min_groups <= len(set(groups.values())) < len(groups):
        return None
    members = list(groups.values())
    case = next(name for name, patient in groups.items() if members.count(patient) > 1)
    return Patients(groups, f"guessed: {sentence.format(case=case, patient=groups[case])}", False)
