"""A table (.csv, .tsv, .parquet) with a row for each image: its path, and its mask or its class.

Columns, of which the first name that is there counts: path, image, image_path, file, filename; mask, mask_path,
label_path, segmentation; label, class, diagnosis, target; patient, patient_id, subject; split, set, fold (a word such
as test, or train). Paths that are not absolute start at the table. Without masks and classes the images are an
unlabelled set, read where they lie.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from fmseg.console import track
from fmseg.errors import BadData, EnvironmentProblem
from fmseg.files import write_json
from fmseg.imaging.masks import find_scheme
from fmseg.records import sources
from fmseg.records.dataset import declare_unlabelled
from fmseg.records.naming import plain_name
from fmseg.stages.convert.layout import (
    Layout,
    NewDataset,
    Skipped,
    checked_size,
    files_in,
    find_file,
    layouts,
    reason_of,
    stem_of,
)

#: what is meant -> what people call the column
COLUMNS = {
    "path": sources.COLUMNS["path"],
    "mask": ("mask", "mask_path", "label_path", "segmentation"),
    "label": ("label", "class", "diagnosis", "target"),
    "patient": sources.COLUMNS["patient"],
    "split": ("split", "set", "fold"),
}
TEST = ("test", "testing")

Row = dict[str, str]


def bring(source: Path, target: Path) -> Skipped:
    """Fill ``target``. source: the table, or a folder with one in it. Raises BadData without a column of paths."""
    table = _table(source)
    if table is None:
        raise BadData(f"{source}: there is no table in it. Type the table itself.")
    rows = list(_rows(table))
    if not rows:
        raise BadData(f"{table}: there are no rows in it.")
    if "mask" not in rows[0] and "label" not in rows[0]:
        write_json(target / "dataset.json", declare_unlabelled(table))
        return {}
    dataset, case_of = NewDataset(table.parent, target), _namer(rows)
    if "mask" in rows[0]:
        return _with_masks(dataset, table, rows)
    for row in track(rows, "linking", len(rows)):
        image = find_file(table.parent, row["path"])
        if not image.is_file():
            dataset.skip(image, "there is no such file")
        elif not row["label"]:
            dataset.skip(image, "its row has no class")
        else:
            patient, is_test = _who(row)
            dataset.add(case_of(row), image, label_class=row["label"], patient=patient, is_test=is_test)
    return _finished(dataset, {"task": "classification"})


def _with_masks(dataset: NewDataset, table: Path, rows: list[Row]) -> Skipped:
    named = (find_file(table.parent, row["mask"]) for row in rows if row["mask"])
    masks = [path for path in named if path.is_file()]
    if not masks:
        raise BadData(f"{table}: none of the masks that it names is there. Check the paths; they start at the table.")
    scheme, case_of = find_scheme(masks), _namer(rows)
    for row in track(rows, "reading masks", len(rows)):
        image, mask = find_file(table.parent, row["path"]), find_file(table.parent, row["mask"])
        try:
            for path, column in ((image, "path"), (mask, "mask")):
                if not row[column] or not path.is_file():
                    raise BadData(f"the {column} '{row[column]}' is not there")
            label, _ = scheme.apply(mask)
            geometry = checked_size(image, label, mask)
        except BadData as error:
            dataset.skip(image, reason_of(error))
            continue
        patient, is_test = _who(row)
        dataset.add(case_of(row), image, label, geometry=geometry, patient=patient, is_test=is_test)
    labels = {"background": 0} | {name: value for value, name in enumerate(scheme.names, start=1)}
    return _finished(dataset, {"task": "segmentation", "labels": labels})


def _finished(dataset: NewDataset, declaration: dict[str, object]) -> Skipped:
    """Return what was left out of the rows; files that no row names were never asked for."""
    dataset.finish(declaration)
    return dataset.skipped


def _namer(rows: list[Row]) -> Callable[[Row], str]:
    """Return what names the case of a row: the image's name, with its folders where images share it."""
    counts = Counter(stem_of(Path(row["path"])) for row in rows)

    def name(row: Row) -> str:
        path = Path(row["path"])
        stem = stem_of(path)
        return plain_name(stem if counts[stem] == 1 else "_".join((*path.parts[:-1], stem)))

    return name


def _who(row: Row) -> tuple[str, bool]:
    """Return the patient, and whether it is a test image."""
    return row.get("patient", ""), row.get("split", "").lower() in TEST


def _rows(table: Path) -> Iterator[Row]:
    """Yield what each row says, under the names of COLUMNS. Raises BadData if there is no column of paths."""
    for number, cells in enumerate(_cells(table), start=2):
        lower = {name.strip().lower(): (value or "").strip() for name, value in cells.items() if name}
        row = {
            meant: next(lower[name] for name in names if name in lower)
            for meant, names in COLUMNS.items()
            if any(name in lower for name in names)
        }
        if "path" not in row:
            wanted = ", ".join(COLUMNS["path"])
            raise BadData(f"{table}: there is no column of images ({wanted}); it has {list(cells)}. Rename one.")
        if not row["path"]:
            raise BadData(f"{table}, line {number}: there is no path in it. Fill it in, or remove the row.")
        yield row


def _cells(table: Path) -> Iterator[dict[str, str]]:
    if table.suffix.lower() == ".parquet":
        yield from _parquet(table)
        return
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            yield from csv.DictReader(file, delimiter=max(",;\t", key=head.count))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"{table}: this table cannot be read ({error}). Save it as CSV in UTF-8.") from error


def _parquet(table: Path) -> Iterator[dict[str, str]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        mend = "Install it (pip install 'fmseg[parquet]'), or save the table as .csv."
        raise EnvironmentProblem(f"{table}: reading parquet needs the package pyarrow. {mend}") from error
    try:
        with parquet.ParquetFile(table) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    yield {name: "" if value is None else str(value) for name, value in row.items()}
    except ArrowInvalid as error:
        raise BadData(f"{table}: this table cannot be read ({error}). Write it anew, or save it as .csv.") from error


def _table(source: Path) -> Path | None:
    """Return the table: the source itself, or the only one in it."""
    if source.is_file():
        return source
    tables = [path for path in files_in(source) if path.suffix.lower() in sources.TABLES]
    return tables[0] if len(tables) == 1 else None


def _fits(source: Path) -> bool:
    table = _table(source)
    try:
        return table is not None and table.suffix.lower() in sources.TABLES and next(_rows(table), None) is not None
    except (BadData, EnvironmentProblem):
        return False


layouts.add("table", Layout(None, bring, _fits))
