"""Prepare every image of a dataset as its plan says, and pack them into a store.

Processes read, prepare and compress; this one writes, in the order of the dataset. A killed run continues. Of an
unlabelled set, files that cannot be read are left out and listed in ``skipped.jsonl``; a labelled one must be whole.
"""

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from fmseg.console import track
from fmseg.errors import BadData, NotReady
from fmseg.files import locked, write_bytes
from fmseg.imaging.case import BadFile
from fmseg.imaging.measure import read_facts, refuse_errors, stamp_of
from fmseg.imaging.prepare import prepare, prepare_label
from fmseg.imaging.readers import read_case, read_label
from fmseg.records.dataset import CaseFiles, Dataset
from fmseg.records.fingerprint import CaseFacts, Fingerprint
from fmseg.records.plans import Plans, Preprocessing
from fmseg.sampling.store import store_digest, store_folder
from fmseg.sampling.store_writer import EncodedCase, StoreWriter, encode_case
from fmseg.sampling.workers import Workers
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

#: of an unlabelled set may be unreadable; more of them point to something else than bad files
MAX_SKIPPED_SHARE = 0.05
ALWAYS_SKIPPED = 10


def preprocess(workspace: Workspace, name: str, plans: Plans | None = None, *, num_processes: int) -> Path:
    """Make the store of a plan (plans.json if none is given) and return its folder.

    Raises NotReady if the plan is missing, or older than the fingerprint, or the fingerprint older than the
    images; BadData for bad files of a labelled set.
    """
    dataset = Dataset.load(workspace.raw_dataset(name))
    folder = workspace.prepared(name)
    if plans is None:
        plans = Plans.load(workspace.need(folder / "plans.json", f"fmseg plan -d {name}"))
    files = {case.name: case for case in reversed(dataset.training_cases())}
    facts = _current_facts(workspace, dataset, plans, files)
    with locked(folder, "its images"):
        writer = StoreWriter(store_folder(folder, plans), store_digest(plans.preprocessing, plans.content_hash))
        if writer.is_complete:
            logger.info("%s: the images of plan %s are prepared already", name, plans.name)
            return writer.folder
        done = writer.done_cases
        for case, reason in _broken(dataset, facts).items():
            if case not in done:
                writer.skip(case, reason)
        done = writer.done_cases
        waiting = [files[fact.case] for fact in facts if fact.case not in done]
        has_volumes = any(fact.shape[0] > 1 for fact in facts)
        results = _workers(workspace, dataset, plans, num_processes, chunk_size=1 if has_volumes else 8).map(waiting)
        for case, result in track(results, "preparing", len(facts), len(done)):
            if isinstance(result, EncodedCase):
                writer.append_encoded(case, result)
            elif dataset.task == "unlabelled":
                writer.skip(case, result)
            else:
                raise BadData(result)
        _check_share(dataset, writer.skipped, len(facts))
        _list_skipped(folder, writer.skipped, facts)
        writer.finish()
    return writer.folder


def _current_facts(
    workspace: Workspace, dataset: Dataset, plans: Plans, files: dict[str, CaseFiles]
) -> list[CaseFacts]:
    """Return the facts of all cases, if plan, fingerprint and raw files belong together."""
    folder, again = workspace.prepared(dataset.name), f"fmseg plan_and_preprocess -d {dataset.name}"
    fingerprint = Fingerprint.load(workspace.need(folder / "dataset_fingerprint.json", again))
    if plans.content_hash != fingerprint.content_hash:
        raise NotReady(f"The plan '{plans.name}' was made for other images or labels than those measured. Run: {again}")
    facts = read_facts(workspace.need(folder / "cases.jsonl", again))
    labels = dataset.labels if dataset.task == "segmentation" else None
    changed = {fact.case for fact in facts} ^ set(files)
    changed |= {fact.case for fact in facts if fact.case in files and fact.stamp != stamp_of(files[fact.case], labels)}
    if changed:
        raise NotReady(
            f"{dataset.folder}: {len(changed)} cases were changed, added or removed since they were measured, for "
            f"example '{min(changed)}'. Run: {again}"
        )
    return facts


def _broken(dataset: Dataset, facts: Sequence[CaseFacts]) -> dict[str, str]:
    """Return case -> reason for the cases of an unlabelled set that have errors; raise BadData for a labelled one."""
    errors = {fact.case: [f for f in fact.findings if f.severity == "error"] for fact in facts}
    if dataset.task != "unlabelled":
        refuse_errors(finding for findings in errors.values() for finding in findings)
    reasons = {case: findings[0].problem for case, findings in errors.items() if findings}
    _check_share(dataset, reasons, len(facts))
    return reasons


def _workers(
    workspace: Workspace, dataset: Dataset, plans: Plans, num_processes: int, *, chunk_size: int
) -> Workers[CaseFiles, tuple[str, EncodedCase | str]]:
    prepared = functools.partial(
        _prepared,
        preprocessing=plans.preprocessing,
        with_labels=dataset.task == "segmentation",
        reader=dataset.declaration.overwrite_image_reader_writer,
    )
    return Workers(prepared, _dead, num_processes, "fmseg.stages.preprocess", workspace.plugins, chunk_size)


def _prepared(
    files: CaseFiles, *, preprocessing: Preprocessing, with_labels: bool, reader: str | None
) -> tuple[str, EncodedCase | str]:
    """Return the case's name with its compressed images, or with what is wrong."""
    try:
        case = read_case(files, reader)
        images = prepare(case.voxels, case.geometry, preprocessing)
        labels = None
        if with_labels and files.label is not None:
            labels = prepare_label(read_label(files.label, reader)[0], case.geometry, preprocessing)
        return files.name, encode_case(images, labels)
    except BadFile as error:
        return files.name, str(error)
    except BadData as error:
        return files.name, f"{files.images[0]}: {error}"


def _dead(files: CaseFiles) -> tuple[str, EncodedCase | str]:
    return files.name, f"{files.images[0]}: the process that prepared it was killed twice. Too little memory, perhaps."


def _check_share(dataset: Dataset, skipped: Mapping[str, str], num_cases: int) -> None:
    if len(skipped) > max(ALWAYS_SKIPPED, MAX_SKIPPED_SHARE * num_cases):
        case, reason = next(iter(skipped.items()))
        raise BadData(
            f"{dataset.folder}: {len(skipped)} of {num_cases} images cannot be used, for example '{case}': {reason}. "
            "Mend or remove them; fmseg goes on without a few, but not without so many."
        )


def _list_skipped(folder: Path, skipped: Mapping[str, str], facts: Sequence[CaseFacts]) -> None:
    lines = [{"case": f.case, "stamp": f.stamp, "reason": skipped[f.case]} for f in facts if f.case in skipped]
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_bytes(folder / "skipped.jsonl", content.encode())
    if lines:
        logger.warning("%d images were left out; they are listed in %s", len(lines), folder / "skipped.jsonl")
