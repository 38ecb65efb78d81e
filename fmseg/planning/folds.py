"""Folds for cross-validation: no patient in two of them, every class in each, the same on every machine.

Kept as nnU-Net's ``splits_final.json``, a list of {"train": [...], "val": [...]}. A file that is there already is
checked and kept: new cases join its folds, and no case changes its side.
"""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from fmseg.errors import BadData, BadRecord
from fmseg.files import natural_key, read_json, write_json
from fmseg.records.fingerprint import CaseFacts
from fmseg.records.labels import LabelScheme
from fmseg.records.plans import Fold

logger = logging.getLogger(__name__)

NUM_FOLDS = 5
#: from this many cases on, folds are balanced in the size of the foreground too, not only in the classes
MIN_CASES_FOR_SIZES = 30
SIZE_BINS = ("small", "medium", "large")
#: as nnU-Net's; any other number would do
SEED = 12345
POOLED = "pooled"


def make_folds(patients: Mapping[str, str], strata: Mapping[str, str], *, source: str) -> tuple[Fold, ...]:
    """Return five folds, or one per patient with fewer than five patients.

    patients, strata: of each case. Folds have alike shares of each stratum. source: names the dataset in errors.
    Raises BadData if all cases belong to one patient.
    """
    cases = sorted(patients, key=natural_key)
    num_patients = len(set(patients.values()))
    if num_patients < 2:
        raise BadData(
            f"{source}: all {len(cases)} cases belong to one patient ('{next(iter(patients.values()), '')}'), so none "
            "is left to validate on. Add another patient, or say in patients.csv (case,patient) whose each case is."
        )
    if num_patients < NUM_FOLDS:
        validation = [
            [case for case in cases if patients[case] == patient]
            for patient in sorted(set(patients.values()), key=natural_key)
        ]
    else:
        validation = _stratified(cases, patients, strata)
    return tuple(_fold(cases, set(val)) for val in validation)


def make_centre_folds(patients: Mapping[str, str], centres: Mapping[str, str], *, source: Path) -> tuple[Fold, ...]:
    """Return one fold per centre, which is validated on that centre alone.

    patients: of each case. source: the table of the centres, for errors. Raises BadData for a case without a centre,
    a patient of two centres, or a single centre.
    """
    cases = sorted(patients, key=natural_key)
    lacking = [case for case in cases if not centres.get(case)]
    if lacking:
        raise BadData(f"{source}: {len(lacking)} cases have no centre, such as '{lacking[0]}'. Add them.")
    home: dict[str, str] = {}
    for case in cases:
        if home.setdefault(patients[case], centres[case]) != centres[case]:
            raise BadData(
                f"{source}: patient '{patients[case]}' is of the centres '{home[patients[case]]}' and "
                f"'{centres[case]}' (case '{case}'), so one of them cannot be left out. Give the patient one centre."
            )
    names = sorted(set(home.values()), key=natural_key)
    if len(names) < 2:
        raise BadData(
            f"{source}: all {len(cases)} cases are of one centre ('{''.join(names)}'), so none is left to validate on. "
            "Take 'split_by' out of dataset.json."
        )
    return tuple(_fold(cases, {case for case in cases if centres[case] == name}) for name in names)


def _stratified(cases: list[str], patients: Mapping[str, str], strata: Mapping[str, str]) -> list[list[str]]:
    from sklearn.model_selection import StratifiedGroupKFold

    pooled = _pool_rare([strata[case] for case in cases])
    splitter = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=SEED)
    parts = splitter.split(np.zeros(len(cases)), pooled, [patients[case] for case in cases])
    return [[cases[index] for index in val] for _, val in parts]


def _pool_rare(strata: list[str]) -> list[str]:
    """Return the strata, those with fewer cases than folds put together; a stratum needs a case in each fold."""
    counts = Counter(strata)
    rare = {name for name, count in counts.items() if count < NUM_FOLDS}
    if 0 < sum(counts[name] for name in rare) < NUM_FOLDS and len(rare) < len(counts):
        rare.add(min((count, name) for name, count in counts.items() if name not in rare)[1])
    return [POOLED if name in rare else name for name in strata]


def _fold(cases: Sequence[str], val: Collection[str]) -> Fold:
    return Fold(train=tuple(case for case in cases if case not in val), val=tuple(c for c in cases if c in val))


def strata_of_masks(facts: Sequence[CaseFacts], labels: LabelScheme) -> dict[str, str]:
    """Return a stratum per case: the classes that it shows and, in larger sets, the size of its foreground."""
    foreground = {value for group in labels.values for value in group}
    shown, shares = {}, {}
    for case in facts:
        present = [name for name, (pixels, _) in zip(labels.names, case.class_counts, strict=True) if pixels]
        shown[case.case] = "+".join(present) or "nothing"
        pixels = sum(count for value, count, _ in case.label_counts if value in foreground)
        shares[case.case] = pixels / max(1, int(np.prod(case.shape)))
    if len(facts) < MIN_CASES_FOR_SIZES:
        return shown
    edges = np.quantile(list(shares.values()), [1 / 3, 2 / 3])
    return {case: f"{shown[case]}, {SIZE_BINS[int(np.searchsorted(edges, shares[case]))]}" for case in shown}


def adopt_folds(
    folds: Sequence[Fold],
    patients: Mapping[str, str],
    strata: Mapping[str, str],
    *,
    known: Collection[str],
    source: Path,
) -> tuple[Fold, ...]:
    """Return folds that were there before, checked, with new cases added and unusable ones left out.

    known: names of all cases of the dataset, those that cannot be used (an unreadable file) among them. New cases
    join only folds that divide their cases among them; others (a few-shot split, say) leave cases out on purpose.
    Raises BadData for an unknown case, a patient in train and val, or a side without cases.
    """
    kept = check_folds(folds, patients, known=known, source=source)
    mentioned = {case for fold in folds for case in (*fold.train, *fold.val)}
    unusable = mentioned - set(patients)
    if unusable:
        logger.warning("%s: %d of its cases cannot be used and are left out of the folds", source, len(unusable))
    new = sorted(set(patients) - mentioned, key=natural_key)
    if not new:
        return tuple(kept)
    if not _divides(kept):
        logger.warning("%s: %d cases are in none of its folds, and stay out of them", source, len(new))
        return tuple(kept)
    return _extended(kept, new, patients, strata)


def check_folds(
    folds: Sequence[Fold], patients: Mapping[str, str], *, known: Collection[str], source: Path
) -> list[Fold]:
    """Return folds without the cases that cannot be used. Raises BadData as ``adopt_folds`` does."""
    unknown = sorted({case for fold in folds for case in (*fold.train, *fold.val)} - set(known), key=natural_key)
    if unknown:
        raise BadData(f"{source}: no case of the dataset is called '{unknown[0]}'. Correct the name, or remove it.")
    kept = [
        Fold(train=tuple(c for c in fold.train if c in patients), val=tuple(c for c in fold.val if c in patients))
        for fold in folds
    ]
    for index, fold in enumerate(kept):
        _check_fold(fold, patients, f"{source}: fold {index}")
    return kept


def _check_fold(fold: Fold, patients: Mapping[str, str], where: str) -> None:
    if not fold.train or not fold.val:
        raise BadData(f"{where} has no case in '{'val' if fold.train else 'train'}'. Give both sides some cases.")
    for name, cases in (("train", fold.train), ("val", fold.val)):
        if len(set(cases)) < len(cases):
            twice = Counter(cases).most_common(1)[0][0]
            raise BadData(f"{where} names '{twice}' twice in '{name}'. Name each case once.")
    owners = {patients[case]: case for case in fold.train}
    for case in fold.val:
        if patients[case] in owners:
            raise BadData(
                f"{where}: patient '{patients[case]}' is in train (case '{owners[patients[case]]}') and in val (case "
                f"'{case}'). Move all cases of a patient to one side, or remove the file to have folds made."
            )


def _divides(folds: Sequence[Fold]) -> bool:
    """Return whether each case is validated exactly once and trained on in all other folds."""
    validated = Counter(case for fold in folds for case in fold.val)
    return set(validated.values()) == {1} and all(
        len(fold.train) + len(fold.val) == len({*fold.train, *fold.val}) == len(validated)
        and {*fold.train, *fold.val} == set(validated)
        for fold in folds
    )


def _extended(
    folds: Sequence[Fold], new: Sequence[str], patients: Mapping[str, str], strata: Mapping[str, str]
) -> tuple[Fold, ...]:
    """Return the folds with new cases: with their patient, or where their stratum, then anything, is fewest."""
    validation = [list(fold.val) for fold in folds]
    home = {patients[case]: index for index, val in enumerate(validation) for case in val}
    for case in new:
        if patients[case] not in home:
            alike = [sum(strata[other] == strata[case] for other in val) for val in validation]
            home[patients[case]] = min(range(len(folds)), key=lambda i: (alike[i], len(validation[i]), i))
        validation[home[patients[case]]].append(case)
    cases = sorted((case for val in validation for case in val), key=natural_key)
    return tuple(_fold(cases, set(val)) for val in validation)


def fold_balance(
    folds: Sequence[Fold], patients: Mapping[str, str], strata: Mapping[str, str]
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Return columns and rows of a table: cases and patients of each fold, and its share of each stratum."""
    names = sorted(set(strata.values()), key=natural_key)
    columns = ("fold", "train cases", "val cases", "val patients", *names)
    rows: list[tuple[object, ...]] = []
    for index, fold in enumerate(folds):
        counts = Counter(strata[case] for case in fold.val)
        people = {patients[case] for case in fold.val}
        rows.append((index, len(fold.train), len(fold.val), len(people), *(counts[name] for name in names)))
    return columns, rows


def load_folds(path: Path) -> tuple[Fold, ...]:
    """Read a splits_final.json. Raises BadRecord naming the file if it is not a list of train and val."""
    value = read_json(path)
    if not isinstance(value, list) or not value:
        raise BadRecord(f'{path}: this must be a list of folds, as [{{"train": ["a"], "val": ["b"]}}].')
    return tuple(Fold.parse(fold, f"{path}, fold {index}") for index, fold in enumerate(value))


def save_folds(folds: Sequence[Fold], path: Path) -> None:
    """Write a splits_final.json, as nnU-Net reads it."""
    write_json(path, [fold.model_dump(mode="json") for fold in folds])
