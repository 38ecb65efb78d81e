"""Prepare every image of a dataset as its plan says, and pack them into a store.

Processes read, prepare and compress; this one writes, in the order of the dataset. A killed run continues, and a set
that has grown keeps what is prepared of it. Of an unlabelled set, files that cannot be read are left out and listed in
``skipped.jsonl``; a labelled one must be whole.
"""

import functools
import json
import logging
import shutil
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmseg.console import size, track
from fmseg.errors import BadData, EnvironmentProblem, NotReady
from fmseg.files import locked, write_bytes
from fmseg.imaging.case import BadFile
from fmseg.imaging.measure import read_facts, refuse_errors
from fmseg.imaging.prepare import prepare, prepare_label, prepared_size
from fmseg.imaging.readers import read_case, read_label
from fmseg.imaging.survey import is_too_many
from fmseg.records.cases import CaseFiles, CaseNames, Chosen, unique_cases
from fmseg.records.dataset import Dataset
from fmseg.records.fingerprint import CaseFacts, Fingerprint
from fmseg.records.plans import Plans, Preprocessing
from fmseg.sampling.case_journal import CaseJournal
from fmseg.sampling.cluster import cluster_at
from fmseg.sampling.presence import values_shown
from fmseg.sampling.store import Store, preparation_digest, store_digest, store_folder
from fmseg.sampling.store_growth import Wanted, case_key
from fmseg.sampling.store_writer import EncodedCase, StoreWriter, encode_case, is_finished
from fmseg.sampling.workers import Workers
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

#: cases whose prepared size is measured where the disk may be too small
SPACE_SAMPLE = 64
SPACE_MARGIN = 1.05

#: a prepared case, or what is wrong with it
Result = EncodedCase | str


def preprocess(
    workspace: Workspace, name: str, plans: Plans | None = None, *, num_processes: int, cluster: str | None = None
) -> Path:
    """Make the store of a plan (plans.json if none is given) and return its folder.

    cluster: address of a Dask scheduler, whose workers prepare the images instead of processes of this machine.

    Raises NotReady if the plan is missing, or older than the fingerprint, or the fingerprint older than the
    images; BadData for bad files of a labelled set.
    """
    dataset = Dataset.load(workspace.raw_dataset(name))
    folder = workspace.prepared(name)
    if plans is None:
        plans = Plans.load(workspace.need(folder / "plans.json", f"fmseg plan -d {name}"))
    cases = unique_cases(dataset.training_cases())
    with locked(folder, "its images"):
        _check_current(workspace, dataset, plans, cases)
        target, digest = store_folder(folder, plans), store_digest(plans.preprocessing, plans.content_hash)
        if is_finished(target, digest):
            logger.info("%s: the images of plan %s are prepared already", name, plans.name)
            _note_classes(dataset, target)
            return target
        reasons = _broken(dataset, read_facts(folder / "cases.jsonl"), len(cases))
        work = Work.of(read_facts(folder / "cases.jsonl"), plans.preprocessing)
        wanted = Wanted(CaseNames(cases), work.keys, preparation_digest(plans.preprocessing))
        writer = StoreWriter(target, digest, wanted=wanted)
        done = writer.done_cases
        for case, reason in reasons.items():
            if case not in done:
                writer.skip(case, reason)
        done = writer.done_cases
        numbers = np.array([number for number, case in enumerate(CaseNames(cases)) if case not in done], np.int64)
        del done
        work, waiting = work.take(numbers), Chosen(cases, numbers)
        workers = Workers(
            _preparing(dataset, plans),
            _dead,
            num_processes,
            preload="fmseg.stages.preprocess",
            plugins=workspace.plugins,
            chunk_size=1 if work.has_volumes else 8,
            cluster=cluster_at(cluster, waiting),
        )
        _check_space(target, work, waiting, workers)
        for case, result in track(workers.map(waiting), "preparing", len(cases), writer.num_done, unit="files"):
            if isinstance(result, EncodedCase):
                writer.append_encoded(case, result)
            elif dataset.task == "unlabelled":
                writer.skip(case, result)
            else:
                raise BadData(result)
        _check_share(dataset, writer.skipped, len(cases))
        _list_skipped(folder, writer.skipped, read_facts(folder / "cases.jsonl"))
        writer.finish()
        _note_classes(dataset, target)
    return writer.folder


def _check_current(workspace: Workspace, dataset: Dataset, plans: Plans, cases: Sequence[CaseFiles]) -> None:
    """Raise NotReady unless plan, fingerprint and raw files belong together."""
    folder, again = workspace.prepared(dataset.name), f"fmseg plan_and_preprocess -d {dataset.name}"
    fingerprint = Fingerprint.load(workspace.need(folder / "dataset_fingerprint.json", again))
    if plans.content_hash != fingerprint.content_hash:
        raise NotReady(f"The plan '{plans.name}' was made for other images or labels than those measured. Run: {again}")
    labels = dataset.labels if dataset.task == "segmentation" else None
    journal = CaseJournal(workspace.need(folder / "cases.jsonl", again), cases, labels, None)
    changed = max(len(journal.missing), journal.num_stale)
    if changed:
        example = cases[int(journal.missing[0])].name if len(journal.missing) else journal.stale_case
        raise NotReady(
            f"{dataset.folder}: {changed} cases were changed, added or removed since they were measured, for "
            f"example '{example}'. Run: {again}"
        )


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to prepare, (N,) each."""

    #: of each case, once prepared and before it is compressed
    num_bytes: np.ndarray
    num_slices: np.ndarray
    #: by which a case that has not changed is known
    keys: np.ndarray

    @classmethod
    def of(cls, facts: Iterable[CaseFacts], preprocessing: Preprocessing) -> "Work":
        """Return the work of these cases."""
        num_bytes, num_slices, keys = array("d"), array("q"), array("Q")
        for fact in facts:
            num_bytes.append(_prepared_bytes(fact, preprocessing))
            num_slices.append(fact.shape[0])
            keys.append(case_key(fact))
        return cls(np.array(num_bytes), np.array(num_slices, np.int64), np.array(keys, np.uint64))

    def take(self, numbers: np.ndarray) -> "Work":
        """Return the work of the cases with these numbers."""
        return Work(self.num_bytes[numbers], self.num_slices[numbers], self.keys[numbers])

    @property
    def has_volumes(self) -> bool:
        """Whether a case has several slices."""
        return bool((self.num_slices > 1).any())


def _prepared_bytes(fact: CaseFacts, preprocessing: Preprocessing) -> float:
    """Return the bytes of a prepared case with its label map, before they are compressed."""
    spacing = fact.spacing_mm
    if not fact.shape[0]:
        return 0.0
    try:
        height, width = prepared_size(fact.shape[1:], spacing and spacing[1:], preprocessing)
    except BadData:  # told when its turn comes
        return 0.0
    per_pixel = preprocessing.channels * np.dtype(preprocessing.store_dtype).itemsize + bool(fact.label_counts)
    return float(fact.shape[0] * height * width * per_pixel)


def _check_space(
    folder: Path, work: Work, waiting: Sequence[CaseFiles], workers: Workers[CaseFiles, tuple[str, Result]]
) -> None:
    """Raise EnvironmentProblem if the disk is too small; what compression leaves is measured on some cases."""
    free = shutil.disk_usage(folder).free
    if work.num_bytes.sum() <= free:
        return
    sample = range(0, len(waiting), 1 + (len(waiting) - 1) // SPACE_SAMPLE)
    encoded = [result for _, result in workers.map(waiting[:: sample.step]) if isinstance(result, EncodedCase)]
    packed = sum(len(blob) for each in encoded for image in each.images for blob in image[:2])
    need = SPACE_MARGIN * work.num_bytes.sum() * packed / max(work.num_bytes[list(sample)].sum(), 1.0)
    if need > free:
        raise EnvironmentProblem(
            f"{folder}: the prepared images need about {size(need)}, and {size(free)} are free. Free some space there, "
            "keep fmseg_preprocessed on a larger disk, or pretrain without a store: fmseg pretrain --no-store"
        )


def _broken(dataset: Dataset, facts: Iterable[CaseFacts], num_cases: int) -> dict[str, str]:
    """Return case -> reason for the cases of an unlabelled set that have errors; raise BadData for a labelled one."""
    errors = ((fact.case, finding) for fact in facts for finding in fact.findings if finding.severity == "error")
    if dataset.task != "unlabelled":
        refuse_errors(finding for _, finding in errors)
    reasons: dict[str, str] = {}
    for case, finding in errors:
        reasons.setdefault(case, finding.problem)
    _check_share(dataset, reasons, num_cases)
    return reasons


def _preparing(dataset: Dataset, plans: Plans) -> Callable[[CaseFiles], tuple[str, Result]]:
    """Return what turns the files of a case into what is stored of it."""
    return functools.partial(
        _prepared,
        preprocessing=plans.preprocessing,
        with_labels=dataset.task == "segmentation",
        reader=dataset.declaration.overwrite_image_reader_writer,
    )


def _prepared(
    files: CaseFiles, *, preprocessing: Preprocessing, with_labels: bool, reader: str | None
) -> tuple[str, Result]:
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


def _note_classes(dataset: Dataset, folder: Path) -> None:
    """Keep which label values each prepared image shows, where training will ask for it."""
    if dataset.task == "segmentation":
        values_shown(Store.open(folder))


def _dead(files: CaseFiles) -> tuple[str, Result]:
    return files.name, f"{files.images[0]}: the process that prepared it was killed twice. Too little memory, perhaps."


def _check_share(dataset: Dataset, skipped: Mapping[str, str], num_cases: int) -> None:
    if is_too_many(len(skipped), num_cases):
        case, reason = next(iter(skipped.items()))
        raise BadData(
            f"{dataset.folder}: {len(skipped)} of {num_cases} images cannot be used, for example '{case}': {reason}. "
            "Mend or remove them; fmseg goes on without a few, but not without so many."
        )


def _list_skipped(folder: Path, skipped: Mapping[str, str], facts: Iterable[CaseFacts]) -> None:
    lines = [{"case": f.case, "stamp": f.stamp, "reason": skipped[f.case]} for f in facts if f.case in skipped]
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_bytes(folder / "skipped.jsonl", content.encode())
    if lines:
        logger.warning("%d images were left out; they are listed in %s", len(lines), folder / "skipped.jsonl")
