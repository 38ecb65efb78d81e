"""What cases are trained and scored toward, as a digest: scores on other labels are never set beside each other."""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from fmseg.errors import BadData, NotReady
from fmseg.files import sha256
from fmseg.imaging.case import content_hash
from fmseg.imaging.measure import read_facts, stamp_of
from fmseg.imaging.readers import read_case, read_label
from fmseg.records.dataset import CaseFiles, Dataset
from fmseg.records.fingerprint import CaseFacts
from fmseg.records.plans import Fold, Plans
from fmseg.workspace import Workspace, dataset_id

logger = logging.getLogger(__name__)


def digest_of_targets(workspace: Workspace, plans: Plans, cases: Fold) -> str:
    """Return the digest of what a fold is trained and scored toward. Raises what ``read_targets`` does."""
    return digest_of(read_targets(workspace, plans, (*cases.train, *cases.val)), cases)


def digest_of(targets: Mapping[str, str], cases: Fold) -> str:
    """Return the SHA-256 of the targets of some cases. targets: as of ``read_targets``."""
    found = {case: targets[case] for case in (*cases.train, *cases.val)}
    return sha256(json.dumps(found, sort_keys=True).encode())


def read_targets(workspace: Workspace, plans: Plans, cases: Iterable[str]) -> dict[str, str]:
    """Return case -> digest of the content of its label map, or its class.

    Files that were touched since they were measured are read again. Raises NotReady with the command that mends it
    if one of them is another one, or gone.
    """
    dataset = Dataset.load(workspace.raw_dataset(plans.dataset))
    wanted = set(cases)
    path = workspace.prepared(plans.dataset) / "cases.jsonl"
    facts = {fact.case: fact for fact in read_facts(path) if fact.case in wanted}
    _need_unchanged(dataset, facts, path)
    if plans.task == "classification":
        given = dataset.classes_of_cases()
        return {case: given.get(case, "") for case in wanted}
    return {case: facts[case].label_hash for case in wanted}


def _need_unchanged(dataset: Dataset, facts: dict[str, CaseFacts], path: Path) -> None:
    """Raise NotReady unless the raw files are still those that were measured."""
    labels = dataset.labels if dataset.task == "segmentation" else None
    reader = dataset.declaration.overwrite_image_reader_writer
    left = dict(facts)
    for files in dataset.training_cases():
        fact = left.pop(files.name, None)
        if fact is None or fact.stamp == stamp_of(files, labels):
            continue
        if not _holds(files, fact, reader):
            _refuse(dataset, files.name, "was changed since it was measured")
        logger.debug("%s: touched, but the same", files.name)
    if left:
        _refuse(dataset, next(iter(left)), f"is not there any more, though {path.name} knows it")


def _holds(files: CaseFiles, fact: CaseFacts, reader: str | None) -> bool:
    """Return whether image and label map hold what was measured."""
    try:
        image = content_hash(read_case(files, reader).voxels)
        label = content_hash(read_label(files.label, reader)[0]) if files.label and fact.label_hash else ""
    except BadData:
        return False
    return (image, label) == (fact.content_hash, fact.label_hash)


def _refuse(dataset: Dataset, case: str, problem: str) -> None:
    command = f"fmseg plan_and_preprocess -d {dataset_id(dataset.name)}"
    raise NotReady(f"{dataset.folder}: the case '{case}' {problem}. Bring everything up to date with: {command}")
