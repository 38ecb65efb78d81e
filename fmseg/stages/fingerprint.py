"""Measure a raw dataset: each case into a line of ``cases.jsonl``, the whole set into dataset_fingerprint.json.

Only what is new or has changed (by name, size and time of its files) is read. Lines are appended while the
measuring goes on, so a killed one continues; in the end they stand in the order of the dataset.
"""

import functools
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from fmseg.console import track
from fmseg.errors import BadData
from fmseg.files import append_lines, locked, read_lines, write_bytes
from fmseg.imaging.measure import facts_of_dead, measure_case, stamp_of
from fmseg.imaging.pooling import pool_facts
from fmseg.planning.patients import patients_of
from fmseg.records.dataset import CaseFiles, Dataset
from fmseg.records.fingerprint import CaseFacts, Fingerprint
from fmseg.records.labels import LabelScheme
from fmseg.sampling.workers import Workers
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

APPEND_SECONDS = 2.0


def fingerprint(workspace: Workspace, name: str, *, num_processes: int, fresh: bool = False) -> Fingerprint:
    """Measure dataset ``name`` and save what was found. ``fresh`` reads all files again.

    Raises BadData if there is no readable image; files that are bad one by one become findings.
    """
    dataset = Dataset.load(workspace.raw_dataset(name))
    folder = workspace.prepared(name)
    journal = folder / "cases.jsonl"
    labels = dataset.labels if dataset.task == "segmentation" else None
    cases: dict[str, CaseFiles] = {}
    for case in dataset.training_cases():
        cases.setdefault(case.name, case)  # a second file of the same case name is the doctor's finding
    if not cases:
        raise BadData(
            f"{dataset.folder}: there is no image in it. Put images named case_0000{dataset.file_ending} there."
        )
    patients, source, declared = patients_of(dataset, list(cases))
    with locked(folder, "its fingerprint"):
        if fresh:
            journal.unlink(missing_ok=True)
        facts = _known_facts(journal, cases, labels, patients)
        missing = [(case, patients[case.name]) for case in cases.values() if case.name not in facts]
        if missing:
            logger.info("%s: %d cases, %d of them to be measured", name, len(cases), len(missing))
        workers = Workers(
            functools.partial(_measure, labels=labels, reader=dataset.declaration.overwrite_image_reader_writer),
            functools.partial(_dead, labels=labels),
            num_processes,
            preload="fmseg.stages.fingerprint",
            plugins=workspace.plugins,
        )
        measured = track(workers.map(missing), "measuring", len(cases), len(facts))
        for line in _appended(measured, journal):
            fact = CaseFacts.model_validate_json(line)
            facts[fact.case] = fact
        ordered = [facts[case] for case in cases]
        _write_if_changed(journal, "".join(f"{fact.model_dump_json()}\n" for fact in ordered).encode())
        result = pool_facts(dataset, ordered, source, declared)
        result.save(folder / "dataset_fingerprint.json")
    return result


def _measure(item: tuple[CaseFiles, str], *, labels: LabelScheme | None, reader: str | None) -> str:
    return measure_case(item[0], labels, item[1], reader=reader).model_dump_json()


def _dead(item: tuple[CaseFiles, str], *, labels: LabelScheme | None) -> str:
    return facts_of_dead(item[0], labels, item[1]).model_dump_json()


def _known_facts(
    journal: Path, cases: dict[str, CaseFiles], labels: LabelScheme | None, patients: dict[str, str]
) -> dict[str, CaseFacts]:
    """Return the journal's facts of those cases whose files have not changed since, with today's patients."""
    lines = read_lines(journal)
    _write_if_changed(journal, "".join(f"{line}\n" for line in lines).encode())  # drops a torn last line
    facts = {}
    for line in lines:
        try:
            fact = CaseFacts.model_validate_json(line)
        except ValidationError:
            continue  # written by another version
        if fact.case in cases and fact.stamp == stamp_of(cases[fact.case], labels):
            facts[fact.case] = fact.model_copy(update={"patient": patients[fact.case]})
    return facts


def _appended(lines: Iterator[str], journal: Path) -> Iterator[str]:
    """Hand lines on, and append them to the journal every few seconds."""
    waiting: list[str] = []
    last = time.monotonic()
    for line in lines:
        waiting.append(line)
        yield line
        if time.monotonic() - last > APPEND_SECONDS:
            append_lines(journal, waiting)
            waiting, last = [], time.monotonic()
    append_lines(journal, waiting)


def _write_if_changed(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content)
