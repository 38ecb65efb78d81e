"""Measure a raw dataset: each case into a line of ``cases.jsonl``, the whole set into dataset_fingerprint.json.

Only what is new or has changed (by name, size and time of its files) is read. Lines are appended while the
measuring goes on, so a killed one continues; in the end they stand in the order of the dataset.
"""

import functools
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import overload

from fmseg.console import track
from fmseg.errors import BadData
from fmseg.files import locked
from fmseg.imaging.measure import facts_of_dead, measure_case, read_facts
from fmseg.imaging.pooling import pool_facts
from fmseg.planning.patients import patient_salt, patients_of, source_with_headers
from fmseg.records.cases import CaseFiles, CaseNames, Chosen, unique_cases
from fmseg.records.dataset import DEFAULT_MODALITY, Dataset, visible_files
from fmseg.records.endings import image_endings
from fmseg.records.fingerprint import Fingerprint
from fmseg.records.labels import LabelScheme
from fmseg.sampling.case_journal import CaseJournal
from fmseg.sampling.cluster import cluster_at
from fmseg.sampling.workers import Workers
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)


def fingerprint(
    workspace: Workspace, name: str, *, num_processes: int, cluster: str | None = None, fresh: bool = False
) -> Fingerprint:
    """Measure dataset ``name`` and save what was found. ``fresh`` reads all files again.

    cluster: address of a Dask scheduler, whose workers read the files instead of processes of this machine.

    Raises BadData if there is no readable image; files that are bad one by one become findings.
    """
    dataset = Dataset.load(workspace.raw_dataset(name))
    folder = workspace.prepared(name)
    path = folder / "cases.jsonl"
    labels = dataset.labels if dataset.task == "segmentation" else None
    # a second file of the same case name is the doctor's finding
    listed = dataset.training_cases()
    cases = unique_cases(listed)
    if len(cases) < len(listed):
        logger.warning("%d images are left out: others have their names", len(listed) - len(cases))
    if not cases:
        raise BadData(_no_image(dataset))
    patients, source, declared = patients_of(dataset, CaseNames(cases))
    with locked(folder, "its fingerprint"):
        if fresh:
            path.unlink(missing_ok=True)
        salt = patient_salt(workspace.preprocessed)
        journal = CaseJournal(path, cases, labels, patients, headers_count=not declared)
        missing = journal.missing
        if len(missing):
            logger.info("%s: %d cases, %d of them to be measured", name, len(cases), len(missing))
        workers = Workers(
            functools.partial(
                _measure,
                labels=labels,
                reader=dataset.declaration.overwrite_image_reader_writer,
                salt=salt,
                is_ultrasound=dataset.modality == DEFAULT_MODALITY,
            ),
            functools.partial(_dead, labels=labels),
            num_processes,
            preload="fmseg.stages.fingerprint",
            plugins=workspace.plugins,
            cluster=cluster_at(cluster, cases),
        )
        results = workers.map(_WithPatients(Chosen(cases, missing), patients))
        measured = track(results, "measuring", len(cases), len(cases) - len(missing), unit="files")
        for number, line in zip(missing.tolist(), measured, strict=True):
            journal.append(number, line)
        journal.settle()
        result = pool_facts(dataset, read_facts(path), source, declared)
        if not declared:
            result = source_with_headers(result, read_facts(path))
        result.save(folder / "dataset_fingerprint.json")
    return result


def _no_image(dataset: Dataset) -> str:
    """Return what to do about a dataset without images."""
    if dataset.task == "unlabelled":
        return f"{dataset.source}: there is no image in it. Put images named case_0000{dataset.file_ending} there."
    folder = dataset.folder / "imagesTr"
    endings = Counter(path.suffix for path in visible_files(folder) if path.name.lower().endswith(image_endings()))
    if not endings:
        return f"{folder}: there is no image in it. Put images named case_0000{dataset.file_ending} there."
    found, count = endings.most_common(1)[0]
    return (
        f"{dataset.folder / 'dataset.json'}: 'file_ending' is {dataset.file_ending}, and no image has that ending; "
        f"{count} in imagesTr end in {found}. Write the ending that they have, in its own capitals."
    )


class _WithPatients(Sequence[tuple[CaseFiles, str]]):
    """Cases with their patients, put together when asked for."""

    def __init__(self, cases: Sequence[CaseFiles], patient_of: Mapping[str, str]) -> None:
        self.cases, self.patient_of = cases, patient_of

    def __len__(self) -> int:
        return len(self.cases)

    @overload
    def __getitem__(self, index: int) -> tuple[CaseFiles, str]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[CaseFiles, str]]: ...
    def __getitem__(self, index: int | slice) -> tuple[CaseFiles, str] | list[tuple[CaseFiles, str]]:
        if isinstance(index, slice):
            return [(case, self.patient_of[case.name]) for case in self.cases[index]]
        case = self.cases[index]
        return case, self.patient_of[case.name]


def _measure(
    item: tuple[CaseFiles, str], *, labels: LabelScheme | None, reader: str | None, salt: bytes, is_ultrasound: bool
) -> str:
    facts = measure_case(item[0], labels, item[1], reader=reader, salt=salt, is_ultrasound=is_ultrasound)
    return facts.model_dump_json()


def _dead(item: tuple[CaseFiles, str], *, labels: LabelScheme | None) -> str:
    return facts_of_dead(item[0], labels, item[1]).model_dump_json()
