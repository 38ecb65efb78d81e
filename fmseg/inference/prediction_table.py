"""report.csv beside label maps, predictions.csv of classes: one line per case, written as each is done.

So an interrupted prediction goes on where it was, and nothing is done twice.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from fmseg.files import append_lines, natural_key, read_lines, write_bytes
from fmseg.inference.classes import Verdict
from fmseg.inference.unlike import UNLIKE
from fmseg.records.labels import SEPARATOR, LabelScheme
from fmseg.records.seen import Seen, Sight
from fmseg.records.tables import read_rows

#: beside the table: which models, and what their outputs mean
CARD = "predict.json"
FIXED = ("case", "file", "confidence", "disagreement")
#: begins the names of the columns of probabilities
PROBABILITY = "probability_"
#: the column that says whether the models had met the image before
SEEN = "seen"


@dataclass(frozen=True, slots=True)
class Row:
    """What there is to say about one case; ``file`` is empty where there is no prediction."""

    case: str
    file: str
    confidence: float | None
    disagreement: float | None
    #: share of the pixels, in the order of the classes or regions
    shares: tuple[float, ...]
    note: str
    #: see ``Sight``; empty where there is no prediction
    seen: Sight | Literal[""] = ""

    def cells(self, num_classes: int) -> list[str]:
        """Return the cells of the line, figures with four digits."""
        figures = [self.confidence, self.disagreement, *(self.shares or [None] * num_classes)]
        note = " ".join(self.note.split())
        return [self.case, self.file, *("" if each is None else f"{each:.4g}" for each in figures), self.seen, note]


@dataclass(slots=True)
class CaseTable:
    """The lines of one CSV file, a case each; a line without a ``confidence`` says why there is no prediction."""

    path: Path
    #: the first one is ``case``
    columns: tuple[str, ...]
    _lines: dict[str, str] = field(default_factory=dict)

    def done(self, column: str) -> set[str]:
        """Return the values of a column over the cases that have a prediction."""
        key, sure = self.columns.index(column), self.columns.index("confidence")
        lines = (next(csv.reader([line])) for line in self._lines.values())
        return {cells[key] for cells in lines if cells[sure]}

    def seen(self) -> Seen:
        """Count what the models had met of the cases that have a prediction."""
        key = self.columns.index(SEEN)
        cells = (next(csv.reader([line]))[key] for line in self._lines.values())
        return Seen.of(cast(Sight, cell) for cell in cells if cell)

    def unlike(self) -> dict[str, str]:
        """Return case -> how it is unlike what the models were trained on, of those that are."""
        rows = (next(csv.reader([line])) for line in self._lines.values())
        found = ((cells[0], part) for cells in rows for part in cells[-1].split("; ") if part.startswith(UNLIKE))
        return {case: part.removeprefix(UNLIKE) for case, part in found}

    def resume(self) -> None:
        """Take over the lines of what an earlier, perhaps interrupted, run has predicted; of another table none."""
        lines, sure = read_lines(self.path), self.columns.index("confidence")
        if lines and lines[0] == _line(self.columns):
            rows = ((next(csv.reader([line])), line) for line in lines[1:] if line)
            self._lines = {cells[0]: line for cells, line in rows if len(cells) > sure and cells[sure]}
        self.tidy()

    def add(self, cells: Sequence[str]) -> None:
        """Append a line and flush it to the disk."""
        line = _line(cells)
        self._lines[cells[0]] = line
        append_lines(self.path, [line])

    def tidy(self) -> None:
        """Write the whole table anew, in natural order, the last line of each case only."""
        lines = [self._lines[case] for case in sorted(self._lines, key=natural_key)]
        write_bytes(self.path, "".join(line + "\n" for line in [_line(self.columns), *lines]).encode())


def label_map_columns(scheme: LabelScheme) -> tuple[str, ...]:
    """Return the columns of report.csv."""
    return (*FIXED, *(f"share_{name}" for name in scheme.names), SEEN, "note")


def class_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of predictions.csv, for classes of these names."""
    return ("case", "predicted", "confidence", "disagreement", *(PROBABILITY + name for name in names), SEEN, "note")


def class_cells(case: str, verdict: Verdict | None, num_classes: int, note: str, seen: str = "") -> list[str]:
    """Return the cells of a line of predictions.csv; of a case without a verdict the note says why."""
    note = " ".join(note.split())
    if verdict is None:
        return [case, *[""] * (3 + num_classes), seen, note]
    figures = [verdict.confidence, verdict.disagreement, *verdict.probabilities.tolist()]
    return [case, SEPARATOR.join(verdict.classes), *(f"{each:.6g}" for each in figures), seen, note]


def read_seen_of(path: Path, cases: Sequence[str]) -> Seen | None:
    """Count what a table of predictions says about cases; None if it is not there or says nothing of it."""
    if not path.exists():
        return None
    rows = [row for _, row in read_rows(path, ())]
    if not rows or not {"case", SEEN} <= set(rows[0]):
        return None
    found = {row["case"]: row[SEEN] for row in rows}
    known = get_args(Sight)
    return Seen.of(cast(Sight, cell) if (cell := found.get(case)) in known else "unknown" for case in cases)


def _line(cells: Sequence[str]) -> str:
    # names may hold anything; a control character would break the line, or reach a terminal
    clean = ["".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in cell) for cell in cells]
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(clean)
    return text.getvalue()
