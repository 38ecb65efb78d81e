"""Images that are there more than once: equal ones, nearly equal ones, and label maps that were copied."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fmseg.errors import BadData
from fmseg.imaging.alike import NEAR_BITS
from fmseg.imaging.looks import parse_looks, similar_pairs
from fmseg.imaging.survey import finding, listed
from fmseg.planning.folds import load_folds
from fmseg.records.dataset import Dataset
from fmseg.records.fingerprint import CaseFacts, Finding, Remedy, Severity
from fmseg.stages.doctor.tests import TestCase

COPY = "Copies on both sides of a fold make scores too good; copies with different labels teach two things at once."
#: pairs of nearly equal images that are told one by one
MAX_PAIRS = 20


def duplicates(dataset: Dataset, facts: Sequence[CaseFacts], folder: Path) -> Iterator[Finding]:
    """Find images that are in the set more than once. folder: of the folds, where they were made before."""
    same = defaultdict(list)
    for fact in facts:
        if fact.content_hash:
            same[fact.content_hash].append(fact)
    repeated = [group for group in same.values() if len(group) > 1]
    if not repeated:
        return
    given = dataset.classes_of_cases() if dataset.task == "classification" else {}
    fold_of = _folds_of(folder)
    for group in repeated:
        cases = [fact.case for fact in group]
        problem = f"the same image is there {len(group)} times: {listed(cases)}"
        remedy: Remedy = "keep_first"
        if len({fact.label_hash for fact in group}) > 1:
            problem, remedy = f"{problem}, with different label maps", ""
        if len({given.get(case) for case in cases}) > 1:
            problem, remedy = f"{problem}, with different classes", ""
        if len({fact.patient for fact in group}) > 1:
            problem += ", under different patients"
        if len({fold_of.get(case) for case in cases}) > 1:
            problem += ", in different folds"
        yield finding("warning", cases[0], problem, "Keep one of them.", COPY, cases, remedy)


def near_duplicates(facts: Sequence[CaseFacts], tests: Sequence[TestCase], folder: Path) -> Iterator[Finding]:
    """Find single images that nearly equal one of another patient, or one of the test set."""
    there = [fact for fact in facts if fact.shape[0] == 1 and fact.looks and not _is_plain(fact)]
    tested = [test for test in tests if len(test.looks) == 16]
    if not there:
        return
    looks = np.concatenate(
        [parse_looks("".join(fact.looks for fact in there)), *(parse_looks(t.looks) for t in tested)]
    )
    owner = [fact.patient for fact in there] + [""] * len(tested)
    content = [fact.content_hash for fact in there] + [test.content_hash for test in tested]
    names = [fact.case for fact in there] + [f"imagesTs/{test.case}" for test in tested]
    fold_of, count = _folds_of(folder), 0
    for one, other in similar_pairs(looks, NEAR_BITS):
        # equal ones are told elsewhere; a patient's own images may be alike; tests among themselves as well
        if content[one] == content[other] or owner[one] == owner[other]:
            continue
        count += 1
        if count > MAX_PAIRS:
            continue
        first, second = names[one], names[other]
        apart = ", in different folds" if fold_of.get(first) != fold_of.get(second) and other < len(there) else ""
        problem = f"it looks nearly like {first}, of another patient{apart}"
        if other >= len(there):
            problem = f"it looks nearly like the training image {first}"
        mend = "Look at both: remove one, or say in patients.csv that they are of one patient."
        yield finding("warning", second, problem, mend, COPY, [first, second] if other < len(there) else [first])
    if count > MAX_PAIRS:
        problem = f"{count - MAX_PAIRS:,} more pairs of images look nearly alike"
        yield finding("warning", "imagesTr", problem, "Look for copies and for frames of one clip.", COPY)


def copied_labels(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Find label maps with something in them that stand at different images."""
    same = defaultdict(list)
    for fact in facts:
        if any(pixels for pixels, _ in fact.class_counts):
            same[fact.label_hash].append(fact)
    for group in same.values():
        if len({fact.content_hash for fact in group}) > 1:
            cases = [fact.case for fact in group]
            problem = f"the same label map stands at different images: {listed(cases)}"
            severity: Severity = "warning" if len({fact.patient for fact in group}) > 1 else "note"
            mend = "Look at them: one was probably saved under the name of another."
            yield finding(severity, cases[0], problem, mend, "All but one of them would be wrong.", cases)


def _is_plain(fact: CaseFacts) -> bool:
    """Return whether an image is of one value, so that its look says nothing."""
    return all(each.minimum == each.maximum for each in fact.intensity)


def _folds_of(folder: Path) -> Mapping[str, int]:
    """Return case -> fold that validates it, of folds made before."""
    path = folder / "splits_final.json"
    if not path.exists():
        return {}
    try:
        return {case: number for number, fold in enumerate(load_folds(path)) for case in fold.val}
    except BadData:
        return {}  # told when folds are made
