"""Tables that people keep beside their images: patients, and the classes of whole cases."""

import csv
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fmseg.errors import BadData
from fmseg.files import natural_key, refuse_pipe
from fmseg.records.labels import SEPARATOR, ClassScheme, split_classes

#: of the problems of one table
MAX_TOLD = 5
DELIMITERS = ",;\t"


def read_table(path: Path, key: str, value: str) -> dict[str, str]:
    """Return two columns of a CSV file as a dictionary.

    Raises BadData naming a missing file or column, keys that have no value, or two of them, and unseen letters.
    """
    found: dict[str, str] = {}
    problems = []
    for line, row in read_rows(path, (key, value)):
        name, text = row[key], row[value]
        _check_letters(f"{path}, line {line}", {key: name, value: text})
        if not text:
            problems.append(f"line {line}: the {value} of '{name}' is empty")
        elif found.setdefault(name, text) != text:
            problems.append(f"line {line}: the {value} of '{name}' is '{found[name]}' above and '{text}' here")
    _refuse(path, problems)
    return found


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells of each row of a CSV file; commas, semicolons or tabs stand between them.

    Raises BadData naming a missing file or column, a line with too few cells, or what is no text.
    """
    refuse_pipe(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            if "\0" in head:
                raise BadData(f"{path}: this table is not UTF-8 text. Save it as CSV in UTF-8.")
            if not head.strip():
                raise BadData(f"{path}: the table is empty. Its first line must be {','.join(columns)}.")
            delimiter = max(DELIMITERS, key=head.count)
            names = [name.strip() for name in next(csv.reader([head], delimiter=delimiter))]
            _check_columns(path, names, columns)
            reader = csv.reader(file, delimiter=delimiter)
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) < len(names):
                    cells = f"line {reader.line_num + 1} has {len(row)} cells, and the table {len(names)} columns"
                    raise BadData(f"{path}: {cells}. Fill in what is missing.")
                yield reader.line_num + 1, dict(zip(names, (cell.strip() for cell in row), strict=False))
    except FileNotFoundError as error:
        mend = f"It must have the columns {','.join(columns)}."
        raise BadData(f"{path}: there is no such file. {mend}") from error
    except IsADirectoryError as error:
        raise BadData(f"{path}: this is a folder, and must be a table. Rename it.") from error
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: this table is not UTF-8 text ({error}). Save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise BadData(f"{path}: this table cannot be read ({error}). Save it as CSV in UTF-8.") from error


def _check_columns(path: Path, names: list[str], columns: Sequence[str]) -> None:
    for column in columns:
        if column not in names:
            raise BadData(f"{path}: the column '{column}' is missing; it has {names}. Name it in the first line.")
    for name in names:
        if names.count(name) > 1:
            raise BadData(f"{path}: the column '{name}' is there twice. Remove one of them.")


def _check_letters(place: str, cells: Mapping[str, str]) -> None:
    """Raise BadData if a cell holds what nobody sees: two names that look alike would be different ones."""
    for name, text in cells.items():
        if text.isprintable():
            continue
        unseen = [letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf")]
        if unseen:
            letters = ", ".join(f"U+{ord(letter):04X}" for letter in unseen[:MAX_TOLD])
            raise BadData(f"{place}: the {name} {text!r} holds letters that cannot be seen ({letters}). Remove them.")


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - MAX_TOLD} more" if len(problems) > MAX_TOLD else ""
        raise BadData(f"{path}: {'; '.join(problems[:MAX_TOLD])}{more}. Write one line for each case.")


def read_spacings(path: Path) -> dict[str, tuple[float, float]]:
    """Return case -> (y, x) in mm from a CSV: columns case,spacing_mm for square pixels, or case,y_mm,x_mm.

    Empty without the file. Raises BadData naming a missing column, or a size that is none.
    """
    if not path.exists():
        return {}
    found = {}
    for line, row in read_rows(path, ("case",)):
        columns = ("spacing_mm", "spacing_mm") if "spacing_mm" in row else ("y_mm", "x_mm")
        place = f"{path}, line {line}, case '{row['case']}'"
        try:
            y, x = (float(row[column]) for column in columns)
        except (KeyError, ValueError) as error:
            mend = "Give the columns case,spacing_mm or case,y_mm,x_mm, in mm."
            raise BadData(f"{place}: there is no pixel size. {mend}") from error
        if not (0 < y < math.inf and 0 < x < math.inf):
            raise BadData(f"{place}: its pixel size is {y:g} x {x:g} mm. Correct it.")
        found[row["case"]] = (y, x)
    return found


def read_classes(path: Path) -> dict[str, str]:
    """Return case -> label from a CSV: columns case,label, or a column of 0 and 1 for each class beside case.

    A case of several classes has semicolons between them, one of none is ``;``. Raises BadData naming a missing
    column, a wrong cell, letters that cannot be seen, or a case that has two labels.
    """
    found: dict[str, str] = {}
    problems = []
    for line, row in read_rows(path, ("case",)):
        case = row["case"]
        label = row["label"] if "label" in row else _label_of_columns(path, row)
        _check_letters(f"{path}, line {line}", {"case": case, "label": label})
        if found.setdefault(case, label) != label:
            problems.append(f"line {line}: the label of '{case}' is '{found[case]}' above and '{label}' here")
    _refuse(path, problems)
    return found


def _label_of_columns(path: Path, row: dict[str, str]) -> str:
    """Return the classes whose columns say 1."""
    names = [name for name in row if name != "case"]
    wrong = [name for name in names if row[name] not in ("0", "1")]
    if wrong or not names:
        what = f"'{row[wrong[0]]}' of {wrong[0]} is neither 0 nor 1" if wrong else "there are no classes"
        mend = "Give a column 'label', or 0 and 1 for each class."
        raise BadData(f"{path}, case '{row['case']}': {what}. {mend}")
    # a case of none of the classes is labelled all the same
    return SEPARATOR.join(name for name in names if row[name] == "1") or SEPARATOR


def scheme_of_classes(labels: Mapping[str, str]) -> ClassScheme:
    """Return the classes of labels; exclusive where no case has several of them, or none."""
    names = tuple(sorted({name for label in labels.values() for name in split_classes(label)}, key=natural_key))
    return ClassScheme(names=names, is_exclusive=not any(SEPARATOR in label for label in labels.values()))
