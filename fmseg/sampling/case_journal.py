"""``cases.jsonl`` while a dataset is measured: which lines still hold, and where they lie.

Lines are appended as cases are measured, so a killed measuring goes on where it was; in the end they stand in the
order of the dataset. In memory is where each line lies, never what it says: 20 bytes a case.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from fmseg.files import append_lines, stream_lines, writing
from fmseg.imaging.measure import stamp_of
from fmseg.records.cases import THREADS, CaseFiles, key_of
from fmseg.records.fingerprint import CaseFacts
from fmseg.records.labels import LabelScheme

#: at most so much work is lost when the process is killed
APPEND_SECONDS = 2.0
BATCH = 4096


class _Head(BaseModel):
    """What decides whether a line still holds."""

    model_config = ConfigDict(extra="ignore")

    case: str
    stamp: str
    patient: str
    header_patient: str = ""


class CaseJournal:
    """The lines of the cases of one dataset."""

    def __init__(
        self,
        path: Path,
        cases: Sequence[CaseFiles],
        labels: LabelScheme | None,
        patient_of: Mapping[str, str] | None,
        *,
        headers_count: bool = False,
    ) -> None:
        """cases: of different names, in the dataset's order. patient_of: None where nobody asks for patients.

        headers_count: whether the patient that a file's header names comes before ``patient_of``.
        """
        self.path, self.cases, self.patient_of, self.labels = path, cases, patient_of, labels
        self.headers_count = headers_count
        #: of each case's line, in bytes; -1 for a case that is not measured
        self._start = np.full(len(cases), -1, np.int64)
        self._length = np.zeros(len(cases), np.int32)
        self._has_new_patient = np.zeros(len(cases), bool)
        #: lines that do not hold, and the case of one of them
        self.num_stale, self.stale_case = 0, ""
        self._end = 0
        #: where the last whole line ended when the journal was opened; None once what is behind it is cut off
        self._found: int | None = None
        self._waiting: list[str] = []
        self._appended = time.monotonic()
        self._places = _Places(cases)
        self._take_over()

    @property
    def missing(self) -> np.ndarray:
        """Numbers of the cases to be measured: new ones and those whose files have changed."""
        return np.flatnonzero(self._start < 0)

    def append(self, number: int, line: str) -> None:
        """Enter what was measured of a case; it is on the disk a few seconds later."""
        # a new line has the patient of the name; its header may know better
        self._has_new_patient[number] = self.headers_count and '"header_patient":""' not in line
        self._enter(number, len(line.encode()) + 1)
        self._waiting.append(line)
        if time.monotonic() - self._appended > APPEND_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Put on the disk what was appended; a torn last line is cut off first."""
        if self._found is not None and self.path.exists():
            os.truncate(self.path, self._found)
        self._found = None
        if self._waiting:
            append_lines(self.path, self._waiting)
        self._waiting, self._appended = [], time.monotonic()

    def settle(self) -> None:
        """Bring all lines into the order of the dataset, with today's patients; a file that is so is left alone."""
        self.flush()
        ends = np.cumsum(self._length, dtype=np.int64)
        is_in_order = np.array_equal(self._start, ends - self._length) and int(ends[-1]) == self._end
        if is_in_order and not self._has_new_patient.any():
            return
        with writing(self.path) as temporary, open(temporary, "wb") as new, open(self.path, "rb") as old:
            for number, (start, length) in enumerate(zip(self._start.tolist(), self._length.tolist(), strict=True)):
                old.seek(start)
                line = old.read(length)
                if self._has_new_patient[number]:
                    fact = CaseFacts.model_validate_json(line)
                    patient = self._patient(self.cases[number].name, fact.header_patient)
                    fact = fact.model_copy(update={"patient": patient})
                    line = fact.model_dump_json().encode() + b"\n"
                new.write(line)

    def _take_over(self) -> None:
        """Find the lines that hold."""
        with ThreadPoolExecutor(THREADS) as pool:
            stream = stream_lines(self.path)
            while lines := list(islice(stream, BATCH)):
                known = list(self._known(lines))
                files = [self.cases[number] for number, *_ in known]
                parts = pool.map(self._stamps, (files[first : first + 64] for first in range(0, len(files), 64)))
                stamps = [stamp for part in parts for stamp in part]
                for (number, start, length, head), case, stamp in zip(known, files, stamps, strict=True):
                    if head.stamp != stamp:
                        self.num_stale, self.stale_case = self.num_stale + 1, head.case
                        continue
                    self._start[number], self._length[number] = start, length
                    if self.patient_of is not None:
                        self._has_new_patient[number] = head.patient != self._patient(case.name, head.header_patient)
        self._found = self._end

    def _known(self, lines: Sequence[bytes]) -> Iterator[tuple[int, int, int, _Head]]:
        """Yield case number, place, length and head of the lines that are of a case of this dataset."""
        for line in lines:
            start, self._end = self._end, self._end + len(line)
            try:
                head: _Head | None = _Head.model_validate_json(line)
            except ValidationError:
                head = None  # written by another version, or damaged
            number = self._places.number_of(head.case) if head else None
            if head and number is not None:
                yield number, start, len(line), head
            else:
                self.num_stale, self.stale_case = self.num_stale + 1, head.case if head else ""

    def _patient(self, name: str, header_patient: str) -> str:
        assert self.patient_of is not None
        return header_patient if self.headers_count and header_patient else self.patient_of[name]

    def _stamps(self, files: Sequence[CaseFiles]) -> list[str]:
        return [stamp_of(case, self.labels) for case in files]

    def _enter(self, number: int, length: int) -> None:
        self._start[number], self._length[number] = self._end, length
        self._end += length


class _Places:
    """Case name -> number, quick for names that come in order, and small for those that do not."""

    def __init__(self, cases: Sequence[CaseFiles]) -> None:
        self.cases = cases
        self._next = 0
        self._keys: np.ndarray | None = None
        self._order = np.empty(0, np.int64)

    def number_of(self, name: str) -> int | None:
        """Return the number of a case, None if there is none of that name."""
        number = self._next
        if number == len(self.cases) or self.cases[number].name != name:
            found = self._looked_up(name)
            if found is None:
                return None
            number = found
        self._next = number + 1
        return number

    def _looked_up(self, name: str) -> int | None:
        if self._keys is None:
            keys = np.fromiter((key_of(case.name) for case in self.cases), np.uint64, len(self.cases))
            self._order = np.argsort(keys, kind="stable")
            self._keys = keys[self._order]
        place = int(np.searchsorted(self._keys, np.uint64(key_of(name))))
        if place == len(self._keys):
            return None
        number = int(self._order[place])
        return number if self.cases[number].name == name else None
