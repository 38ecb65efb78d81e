"""What people wrote beside their images: how many there are, of which class and patient, and in which fold."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence

from fmseg.errors import BadData
from fmseg.imaging.survey import finding, listed
from fmseg.planning.folds import check_folds, load_folds, make_centre_folds
from fmseg.records.dataset import SPACINGS, Dataset
from fmseg.records.fingerprint import CaseFacts, Finding, Fingerprint
from fmseg.records.labels import is_labelled, split_classes
from fmseg.records.tables import read_spacings

CLASSES, PATIENTS, SPLITS = "labelsTr.csv", "patients.csv", "splits_final.json"
FOLDS = 5
#: groups of patients that are told one by one
MAX_ALIKE = 20
LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
LOST = "A file was lost, or a name is written in another way."
#: what programs write into cells in which there is nothing
MISSING = frozenset(("nan", "none", "null", "na", "n/a", "#n/a", "nil", "?", "missing"))
#: what cells begin with that spreadsheets compute
FORMULA = ("=", "+", "-", "@")
LEAK = "Images of one patient are alike: on both sides of a fold, scores are too good."


def number(dataset: Dataset, num_cases: int) -> Iterator[Finding]:
    """Compare the number of cases with the declared one."""
    declared = dataset.declaration.numTraining
    if declared is not None and declared != num_cases:
        problem = f"'numTraining' is {declared}, but there are {num_cases} cases"
        mend = f"Write {num_cases}, or look for the missing files."
        yield finding("warning", "dataset.json", problem, mend, LOST)


def classes(dataset: Dataset, facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Compare the classes with the images."""
    given, cases = dataset.classes_of_cases(), {fact.case for fact in facts}
    unclassed = "Without a class, an image cannot be trained on."
    for case in sorted(cases - set(given)):
        problem = f"this image has no row in {CLASSES}"
        yield finding("error", case, problem, "Add it, or remove the image.", unclassed, [case], "leave_out")
    scheme = dataset.class_scheme
    for case in sorted(case for case in cases & set(given) if not is_labelled(given[case], scheme)):
        mend = "Write its class, or remove the image."
        yield finding("error", case, f"its label in {CLASSES} is empty", mend, unclassed, [case], "leave_out")
    if len(scheme.names) < 2 and scheme.is_exclusive:
        problem = f"{CLASSES} has one class alone ({listed(list(scheme.names))}), so there is nothing to learn"
        yield finding("error", CLASSES, problem, "Add cases of another class.", "A network always answers the same.")
    for case in sorted(set(given) - cases):
        mend = "Add its image, or remove the row."
        yield finding("warning", CLASSES, f"the case '{case}' has no image", mend, LOST)
    yield from names_of_classes(scheme.names, CLASSES)
    yield from _rare_classes(given, {fact.case: fact.patient for fact in facts})


def names_of_classes(found: Sequence[str], where: str) -> Iterator[Finding]:
    """Find names of classes that may not be meant as they are written."""
    folded = defaultdict(list)
    for name in found:
        folded[_as_number(name) or " ".join(name.casefold().split())].append(name)
        if name.casefold() in MISSING:
            problem = f"the class '{name}' looks like a value that is missing"
            mend = "Leave the cell empty where nobody knows the class, or rename the class."
            yield finding("warning", where, problem, mend, "It is learned as a class.")
        if name.startswith(FORMULA) and not _as_number(name):
            problem = f"the class '{name}' may be taken for a formula by programs for spreadsheets"
            why = "It is written as it is into tables, such as predictions.csv, and they compute it when they open one."
            yield finding("warning", where, problem, f"Rename it: no {name[0]} in front.", why)
    for alike in folded.values():
        if len(alike) > 1:
            problem = f"the classes {', '.join(alike)} differ only in case, spaces or as numbers are written"
            yield finding("warning", where, problem, "Write them alike.", "They are learned as different classes.")


def _as_number(name: str) -> str:
    """Return a number as it is written everywhere; an empty text for what is none."""
    try:
        return repr(float(name)) if name.isascii() else ""
    except ValueError:
        return ""


def _rare_classes(given: dict[str, str], patients: dict[str, str]) -> Iterator[Finding]:
    """Find classes that cannot be learned from some patients and tested on others. patients: of the cases."""
    cases, people = Counter[str](), defaultdict[str, set[str]](set)
    for case in patients.keys() & given.keys():
        for name in split_classes(given[case]):
            cases[name] += 1
            people[name].add(patients[case])
    for name, owners in sorted(people.items()):
        if len(owners) == 1:
            count = "1 case" if cases[name] == 1 else f"{cases[name]} cases of one patient"
            problem = f"the class '{name}' has {count}, so it is either trained on or validated"
            yield finding("warning", CLASSES, problem, "Add cases, or put it to another class.", "It has no score.")


def patients_table(dataset: Dataset, measured: Fingerprint, cases: Sequence[str]) -> Iterator[Finding]:
    """Say how patients were found, and compare patients.csv with the cases."""
    if not measured.patients_declared:
        problem = f"patients were not declared; {measured.patient_source}"
        mend = "If that is wrong, add patients.csv (case,patient) or 'group_regex' to dataset.json."
        yield finding("note", "dataset.json", problem, mend, LEAK)
    if dataset.task == "unlabelled" or not (dataset.folder / PATIENTS).exists():
        return
    table = dataset.patients_of_cases()
    yield from _alike(table.values())
    missing = [case for case in cases if case not in table]
    if missing:
        problem = f"{len(missing)} cases are not in it: {listed(missing)}; each counts as a patient of its own"
        yield finding("warning", PATIENTS, problem, "Add their lines.", LEAK, missing)
    yield from _unknown(PATIENTS, table, dataset, cases)


def spacings_table(dataset: Dataset, cases: Sequence[str]) -> Iterator[Finding]:
    """Compare spacings.csv with the cases."""
    yield from _unknown(SPACINGS, read_spacings(dataset.folder / SPACINGS), dataset, cases)


def _unknown(where: str, table: Collection[str], dataset: Dataset, cases: Sequence[str]) -> Iterator[Finding]:
    """Find rows of cases that are not there."""
    unknown = sorted(set(table) - {*cases, *(case.name for case in dataset.test_cases())}) if table else []
    if unknown:
        problem = f"{len(unknown)} of its cases are not in the dataset: {listed(unknown)}"
        yield finding("warning", where, problem, "Correct their names (without _0000 and ending).", LOST)


def _alike(patients: Collection[str]) -> Iterator[Finding]:
    """Find patients that are probably one, written in two ways."""
    written = defaultdict(set)
    for patient in patients:
        written[re.sub(r"[\s_-]+", "_", LEADING_ZEROS.sub("", patient.casefold()))].add(patient)
    groups = [sorted(group) for group in written.values() if len(group) > 1]
    for group in groups[:MAX_ALIKE]:
        problem = f"the patients {listed(group)} differ only in case, separators or leading zeros"
        yield finding("warning", PATIENTS, problem, "Write them alike, if they are one person.", LEAK)
    if len(groups) > MAX_ALIKE:
        problem = f"{len(groups) - MAX_ALIKE:,} more groups of patients differ in nothing else"
        yield finding("warning", PATIENTS, problem, "Write them alike, where they are one person.", LEAK)


def folds(dataset: Dataset, facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Check the owner's folds, and whether folds can be made at all."""
    patients = {fact.case: fact.patient for fact in facts}
    if len(patients) > 1 and len(set(patients.values())) == 1:
        problem = (
            f"all {len(patients)} cases belong to one patient ('{facts[0].patient}'), so none is left to validate on"
        )
        mend = f"Add another patient, or say in {PATIENTS} (case,patient) whose each case is."
        yield finding("error", dataset.name, problem, mend, LEAK)
    if dataset.declaration.split_by == "centre" and patients:
        try:
            make_centre_folds(patients, dataset.centres_of_cases(), source=dataset.folder / PATIENTS)
        except BadData as error:
            problem, _, mend = str(error).removeprefix(f"{dataset.folder / PATIENTS}").lstrip(":, ").partition(". ")
            yield finding("error", PATIENTS, problem, mend, "No fold can be validated on a centre of its own.")
    path = dataset.folder / SPLITS
    if not path.exists():
        return
    try:
        checked = check_folds(load_folds(path), patients, known=set(patients), source=path)
    except BadData as error:
        problem, _, mend = str(error).removeprefix(f"{path}").lstrip(":, ").partition(". ")
        yield finding("error", SPLITS, problem, mend or "Write it anew, or remove it.", LEAK)
    else:
        times = Counter(case for fold in checked for case in fold.val)
        several, never = [case for case in patients if times[case] > 1], [case for case in patients if not times[case]]
        if several:
            problem = f"{len(several)} cases are validated in several folds ({listed(several)}); the first one counts"
            yield finding("warning", SPLITS, problem, "Nothing to do if that is meant.", "Scores count each case once.")
        if never:
            problem = f"{len(never)} cases are validated in no fold: {listed(never)}"
            yield finding("note", SPLITS, problem, "Nothing to do if that is meant.", "Scores do not speak of them.")
