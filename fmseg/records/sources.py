"""Where unlabelled images are listed: a folder, a text file with one path a line, or a table.

A table (.csv, .tsv or .parquet) has the column ``path`` and may have ``patient`` and ``modality``, or what else people
call them. Paths that are not absolute start at the file that lists them.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fmseg.errors import BadData, EnvironmentProblem
from fmseg.records.cases import CaseTable, UnlabelledCases, case_name, list_images

TABLES = (".csv", ".tsv", ".parquet")
#: what is meant -> what people call the column; the first name that is there counts
COLUMNS = {
    "path": ("path", "image", "image_path", "file", "filename", "file_name"),
    "patient": ("patient", "patient_id", "subject", "subject_id"),
    "modality": ("modality",),
}
#: what people call a modality -> the one name that foundation checkpoints are filed under
MODALITIES = {"us": "ultrasound", "b-mode": "ultrasound", "bmode": "ultrasound", "mr": "mri", "x-ray": "xray"}


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a table; what the table does not say is empty."""

    path: str
    patient: str
    modality: str


def modality_name(text: str) -> str:
    """Return the one name of a modality, however it is written."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "images"
    return MODALITIES.get(name, name)


def list_cases(place: Path, modality: str) -> UnlabelledCases:
    """Return the images of a folder, a list or a table; of a table those of one modality.

    Raises BadData naming the file and the mend.
    """
    if not place.exists():
        raise BadData(f"{place}: there is no such folder or list of images ('images' in dataset.json).")
    if place.is_dir():
        return UnlabelledCases(place, list_images(place))
    if is_table(place):
        return UnlabelledCases(place.parent, [row.path for row in _rows_of(place, modality)])
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadData(f"{place}: this is no text file. Write one path a line, or a table (.csv).") from error
    return UnlabelledCases(place.parent, [line.strip() for line in lines if line.strip()])


def listed_modalities(place: Path) -> tuple[str, ...]:
    """Return the modalities that a table names, sorted; none for other sources and tables without that column.

    Raises BadData if only some rows name one.
    """
    if not is_table(place):
        return ()
    found = {row.modality for row in read_rows(place)}
    if len(found) > 1 and "" in found:
        raise BadData(f"{place}: some rows have no modality. Fill them in, or remove the column.")
    return tuple(sorted({modality_name(text) for text in found if text}))


def listed_patients(place: Path, modality: str) -> Mapping[str, str]:
    """Return case -> patient of those images of a modality whose patient the table names."""
    if not is_table(place):
        return {}
    rows = _rows_of(place, modality)
    return CaseTable((case_name(row.path, place.parent), row.patient) for row in rows if row.patient)


def is_table(place: Path) -> bool:
    """Return whether a source is a table."""
    return place.suffix.lower() in TABLES and place.is_file()


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a table. Raises BadData if it has no column of paths or a row has none."""
    rows = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    for number, (place, patient, modality) in enumerate(rows, start=2):
        if not place:
            raise BadData(f"{path}, line {number}: there is no path in it. Fill it in, or remove the row.")
        yield Row(place, patient, modality)


def _rows_of(place: Path, modality: str) -> Iterator[Row]:
    return (row for row in read_rows(place) if not row.modality or modality_name(row.modality) == modality)


def _csv(path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            delimiter = max(",;\t", key=head.count)
            columns = _columns(path, next(csv.reader([head], delimiter=delimiter), []))
            for row in csv.reader(file, delimiter=delimiter):
                if row:
                    yield _picked(row, columns)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"{path}: this table cannot be read ({error}). Save it as CSV in UTF-8.") from error


def _parquet(path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        mend = "Install it (pip install 'fmseg[parquet]'), or save the table as .csv."
        raise EnvironmentProblem(f"{path}: reading parquet needs the package pyarrow. {mend}") from error
    try:
        with parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            columns = _columns(path, names)
            for batch in file.iter_batches(columns=[names[index] for index in columns if index >= 0]):
                parts = [batch.column(names[index]).to_pylist() if index >= 0 else None for index in columns]
                for number in range(batch.num_rows):
                    place, patient, modality = ("" if part is None else _text(part[number]) for part in parts)
                    yield place, patient, modality
    except ArrowInvalid as error:
        raise BadData(f"{path}: this table cannot be read ({error}). Write it anew, or save it as .csv.") from error


def _columns(path: Path, names: list[str]) -> tuple[int, int, int]:
    """Return the places of path, patient and modality; -1 for one that is not there."""
    lower = [name.strip().lower() for name in names]
    path_at, patient_at, modality_at = (
        next((lower.index(name) for name in known if name in lower), -1) for known in COLUMNS.values()
    )
    if path_at < 0:
        raise BadData(f"{path}: the column 'path' is missing; it has {names}.")
    return path_at, patient_at, modality_at


def _picked(row: list[str], columns: tuple[int, int, int]) -> tuple[str, str, str]:
    place, patient, modality = (row[index].strip() if 0 <= index < len(row) else "" for index in columns)
    return place, patient, modality


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()
