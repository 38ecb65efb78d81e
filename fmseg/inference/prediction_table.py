"""report.csv beside the predictions: one line per case, written as each is done, so that nothing is done twice."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fmseg.files import append_lines, natural_key, read_lines, write_bytes
from fmseg.records.labels import LabelScheme

FIXED = ("case", "file", "confidence", "disagreement")


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

    def cells(self, num_classes: int) -> list[str]:
        """Return the cells of the line, figures with four digits."""
        figures = [self.confidence, self.disagreement, *(self.shares or [None] * num_classes)]
        note = " ".join(self.note.split())
        return [self.case, self.file, *("" if each is None else f"{each:.4g}" for each in figures), note]


@dataclass(slots=True)
class PredictionTable:
    """The lines of one report.csv."""

    path: Path
    scheme: LabelScheme
    _lines: dict[str, str] = field(default_factory=dict)

    @property
    def header(self) -> str:
        """The names of the columns."""
        return _line([*FIXED, *(f"share_{name}" for name in self.scheme.names), "note"])

    @property
    def done(self) -> set[str]:
        """The files of the predictions that are listed."""
        files = (next(csv.reader([line]))[1] for line in self._lines.values())
        return {file for file in files if file}

    def resume(self) -> None:
        """Take over the lines of an earlier, perhaps interrupted, run; of another table none."""
        lines = read_lines(self.path)
        if lines and lines[0] == self.header:
            self._lines = {next(csv.reader([line]))[0]: line for line in lines[1:] if line}
        self.tidy()

    def add(self, row: Row) -> None:
        """Append a line and flush it to the disk."""
        line = _line(row.cells(len(self.scheme.names)))
        self._lines[row.case] = line
        append_lines(self.path, [line])

    def tidy(self) -> None:
        """Write the whole table anew, in natural order, the last line of each case only."""
        lines = [self._lines[case] for case in sorted(self._lines, key=natural_key)]
        write_bytes(self.path, "".join(line + "\n" for line in [self.header, *lines]).encode())


def _line(cells: Sequence[str]) -> str:
    # names may hold anything; a control character would break the line, or reach a terminal
    clean = ["".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in cell) for cell in cells]
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(clean)
    return text.getvalue()
