"""Tables that people keep beside their images: patients, and the classes of whole cases."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fmseg.errors import BadData
from fmseg.files import natural_key
from fmseg.records.labels import SEPARATOR, ClassScheme, split_classes


def read_table(path: Path, key: str, value: str) -> dict[str, str]:
    """Return two columns of a CSV file as a dictionary. Raises BadData naming the missing column or file."""
    with readable_table(path, (key, value)) as reader:
        return {row[key]: row[value] for row in reader}


@contextmanager
def readable_table(path: Path, columns: Sequence[str]) -> Iterator[csv.DictReader]:
    """Open a CSV file with a head line. Raises BadData naming the missing column or file."""
    if not path.exists():
        raise BadData(f"{path}: there is no such file. It must have the columns {','.join(columns)}.")
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for column in columns:
            if column not in (reader.fieldnames or []):
                raise BadData(f"{path}: the column '{column}' is missing; it has {reader.fieldnames}.")
        yield reader


def read_spacings(path: Path) -> dict[str, tuple[float, float]]:
    """Return case -> (y, x) in mm from a CSV: columns case,spacing_mm for square pixels, or case,y_mm,x_mm.

    Empty without the file. Raises BadData naming a missing column, or a size that is none.
    """
    if not path.exists():
        return {}
    with readable_table(path, ("case",)) as reader:
        columns = ("spacing_mm", "spacing_mm") if "spacing_mm" in (reader.fieldnames or ()) else ("y_mm", "x_mm")
        found = {}
        for row in reader:
            try:
                y, x = (float(row[column]) for column in columns)
            except (KeyError, TypeError, ValueError) as error:
                mend = "Give the columns case,spacing_mm or case,y_mm,x_mm, in mm."
                raise BadData(f"{path}, case '{row['case']}': there is no pixel size. {mend}") from error
            if not (0 < y < math.inf and 0 < x < math.inf):
                raise BadData(f"{path}, case '{row['case']}': its pixel size is {y:g} x {x:g} mm. Correct it.")
            found[row["case"]] = (y, x)
        return found


def read_classes(path: Path) -> dict[str, str]:
    """Return case -> label from a CSV: columns case,label, or a column of 0 and 1 for each class beside case.

    A case of several classes has semicolons between them, one of none is ``;``. Raises BadData naming a missing
    column or a wrong cell.
    """
    with readable_table(path, ("case",)) as reader:
        names = [name for name in reader.fieldnames or [] if name != "case"]
        if "label" in names:
            return {row["case"]: row["label"].strip() for row in reader}
        found = {}
        for row in reader:
            wrong = [name for name in names if row[name] not in ("0", "1")]
            if wrong or not names:
                what = f"'{row[wrong[0]]}' of {wrong[0]} is neither 0 nor 1" if wrong else "there are no classes"
                raise BadData(
                    f"{path}, case '{row['case']}': {what}. Give a column 'label', or 0 and 1 for each class."
                )
            # a case of none of the classes is labelled all the same
            found[row["case"]] = SEPARATOR.join(name for name in names if row[name] == "1") or SEPARATOR
        return found


def scheme_of_classes(labels: Mapping[str, str]) -> ClassScheme:
    """Return the classes of labels; exclusive where no case has several of them, or none."""
    names = tuple(sorted({name for label in labels.values() for name in split_classes(label)}, key=natural_key))
    return ClassScheme(names=names, is_exclusive=not any(SEPARATOR in label for label in labels.values()))
