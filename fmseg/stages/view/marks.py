"""The marks that someone sets while looking at cases: kept as CSV, a line a case, whole after each one."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from fmseg.files import natural_key, write_bytes
from fmseg.records.tables import read_rows

COLUMNS = ("case", "mark", "note", "when")
CHECK_LABEL = "check label"
#: characters of a note
MOST_NOTE = 500


@dataclass(frozen=True, slots=True)
class Mark:
    """One marked case."""

    note: str
    #: UTC, as in 2026-01-31T12:00:00+00:00
    when: str


@dataclass(slots=True)
class Marks:
    """All marks of one dataset or folder, on disk at any time."""

    path: Path
    _found: dict[str, Mark] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def open(cls, path: Path) -> "Marks":
        """Read the marks set before; none if there is no file. Raises BadData for another table."""
        marks = cls(path)
        if path.exists():
            marks._found = {row["case"]: Mark(row["note"], row["when"]) for _, row in read_rows(path, COLUMNS)}
        return marks

    def all(self) -> Mapping[str, Mark]:
        """Return case -> mark."""
        return dict(self._found)

    def set(self, case: str, note: str | None) -> None:
        """Mark a case with a note, or take its mark away (None), and save."""
        with self._lock:
            if note is None:
                self._found.pop(case, None)
            else:
                when = datetime.now(UTC).isoformat(timespec="seconds")
                self._found[case] = Mark(" ".join(note.split())[:MOST_NOTE], when)
            write_bytes(self.path, self.table().encode())

    def table(self) -> str:
        """Return the CSV, in natural order of the cases."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for case in sorted(self._found, key=natural_key):
            writer.writerow((case, CHECK_LABEL, self._found[case].note, self._found[case].when))
        return text.getvalue()
