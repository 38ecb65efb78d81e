"""Decide: from a dataset's fingerprint and this machine to plans.json, and the folds to splits_final.json."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fmseg.errors import BadRecord
from fmseg.files import locked
from fmseg.imaging.measure import read_facts
from fmseg.planning.explain import compare_plans
from fmseg.planning.folds import (
    adopt_folds,
    fold_balance,
    load_folds,
    make_centre_folds,
    make_folds,
    save_folds,
    strata_of_masks,
)
from fmseg.planning.hardware import detect_hardware
from fmseg.planning.planner import DEFAULT_NAME, plans_file
from fmseg.planning.planner import plan as decide
from fmseg.planning.preprocessing import Options
from fmseg.records.dataset import Dataset
from fmseg.records.fingerprint import Fingerprint
from fmseg.records.labels import OutputScheme, is_labelled
from fmseg.records.plans import Fold, Plans, Preprocessing
from fmseg.records.settings import apply_settings
from fmseg.sampling.store import store_folder
from fmseg.workspace import Workspace, dataset_id

logger = logging.getLogger(__name__)

SPLITS = "splits_final.json"


@dataclass(frozen=True, slots=True)
class Cases:
    """The cases of a labelled dataset that folds are made of."""

    #: of each usable case
    patients: dict[str, str]
    strata: dict[str, str]
    #: all names, those of cases with errors too
    known: set[str]


def plan(
    workspace: Workspace,
    name: str,
    *,
    plans_name: str = DEFAULT_NAME,
    planner: str = "standard",
    budget_s: float | None = None,
    settings: Mapping[str, str] | None = None,
) -> Plans:
    """Plan a dataset and write its plans and folds. budget_s: time of the pretraining. settings: ``Options``.

    Raises NotReady without a fingerprint, BadData if the cases cannot be divided into folds.
    """
    folder = workspace.prepared(name)
    command = f"fmseg fingerprint -d {dataset_id(name)}"
    fingerprint = Fingerprint.load(workspace.need(folder / "dataset_fingerprint.json", command))
    dataset = Dataset.load(workspace.raw_dataset(name))
    labels = _labels(dataset)
    hardware = detect_hardware()
    path = folder / plans_file(plans_name)
    plans = decide(
        *(fingerprint, labels, hardware, dataset.channel_names),
        name=plans_name,
        planner=planner,
        budget_s=budget_s,
        options=apply_settings(Options(), dict(settings or {})),
        former=_former(path, fingerprint),
    ).evolve(reader=dataset.declaration.overwrite_image_reader_writer)
    with locked(folder, "the plans"):
        if dataset.task != "unlabelled":
            cases = _cases(dataset, folder)
            folds = _folds(dataset, folder, cases)
            save_folds(folds, folder / SPLITS)
            _log_balance(fingerprint, folds, cases)
        _log_changes(path, plans)
        plans.save(path)
    return plans


def current_plan(workspace: Workspace, name: str, plans_name: str = DEFAULT_NAME) -> Plans | None:
    """Return the plan that is there if it was made for the images as they were measured last."""
    folder = workspace.prepared(name)
    path = folder / plans_file(plans_name)
    if not path.exists():
        return None
    plans = Plans.load(path)
    fingerprint = Fingerprint.load(folder / "dataset_fingerprint.json")
    return plans if plans.content_hash == fingerprint.content_hash else None


def _former(path: Path, fingerprint: Fingerprint) -> Preprocessing | None:
    """Return how a set was prepared that has changed since; None if it has not, or was never prepared."""
    try:
        before = Plans.load(path) if path.exists() else None
    except BadRecord:
        return None  # told when it is replaced
    if before is None or before.content_hash == fingerprint.content_hash:
        return None
    return before.preprocessing if (store_folder(path.parent, before) / "store.json").exists() else None


def _labels(dataset: Dataset) -> OutputScheme | None:
    """Return what the outputs of a network for this dataset mean."""
    if dataset.task == "unlabelled":
        return None
    return dataset.labels if dataset.task == "segmentation" else dataset.class_scheme


def _cases(dataset: Dataset, folder: Path) -> Cases:
    """Return patients and strata of the cases without errors, as they were measured."""
    known = {case.name for case in dataset.training_cases()}
    usable = [
        facts
        for facts in read_facts(folder / "cases.jsonl")
        if facts.case in known and not any(finding.severity == "error" for finding in facts.findings)
    ]
    if dataset.task == "classification":
        classes, scheme = dataset.classes_of_cases(), dataset.class_scheme
        usable = [facts for facts in usable if is_labelled(classes.get(facts.case, ""), scheme)]
        strata = {facts.case: classes[facts.case] for facts in usable}
    else:
        usable = [facts for facts in usable if facts.label_counts]
        strata = strata_of_masks(usable, dataset.labels)
    if len(usable) < len(known):
        logger.warning("%s: %d cases cannot be used and are in no fold", dataset.name, len(known) - len(usable))
    return Cases({facts.case: facts.patient for facts in usable}, strata, known)


def _folds(dataset: Dataset, folder: Path, cases: Cases) -> tuple[Fold, ...]:
    """Return the folds: the owner's, beside dataset.json, else those made before, else new ones."""
    given, made = dataset.folder / SPLITS, folder / SPLITS
    if dataset.declaration.split_by == "centre" and not given.exists():
        # no choice is in them, so a new case of a centre finds its fold without the folds made before
        return make_centre_folds(cases.patients, dataset.centres_of_cases(), source=dataset.folder / "patients.csv")
    base = load_folds(made) if made.exists() else None
    source = made
    if given.exists():
        owners = load_folds(given)
        # what was made before may be the owner's folds and cases added since: those keep their places
        if base is None or not _contains(base, owners):
            base, source = owners, given
    if base is None:
        return make_folds(cases.patients, cases.strata, source=dataset.name)
    removed = set() if source == given else {c for f in base for c in (*f.train, *f.val)} - cases.known
    return adopt_folds(base, cases.patients, cases.strata, known=cases.known | removed, source=source)


def _contains(folds: tuple[Fold, ...], others: tuple[Fold, ...]) -> bool:
    """Return whether ``folds`` are ``others`` with cases added."""
    return len(folds) == len(others) and all(
        set(other.train) <= set(fold.train) and set(other.val) <= set(fold.val)
        for fold, other in zip(folds, others, strict=True)
    )


def _log_balance(fingerprint: Fingerprint, folds: tuple[Fold, ...], cases: Cases) -> None:
    columns, rows = fold_balance(folds, cases.patients, cases.strata)
    counts = (len(folds), len(cases.patients), len(set(cases.patients.values())))
    source = fingerprint.patient_source
    logger.info("%s: %d folds of %d cases of %d patients (%s)", fingerprint.dataset, *counts, source)
    for row in rows:
        logger.debug("%s", ", ".join(f"{key} {value}" for key, value in zip(columns, row, strict=True)))


def _log_changes(path: Path, plans: Plans) -> None:
    if not path.exists():
        return
    try:
        before = Plans.load(path)
    except BadRecord as error:
        logger.warning("%s is replaced, since it cannot be read: %s", path, error)
        return
    changed = [row.number for row in compare_plans(plans, before) if not row.number.startswith("predicted.")]
    if changed:
        names = ", ".join(changed[:5]) + (" ..." if len(changed) > 5 else "")
        logger.info("%s: %d numbers changed since the last plan (%s)", plans.dataset, len(changed), names)
