"""FETAL_PLANES_DB: standard planes, classified. From its own table and images, or from file names that tell all.

Layout: https://doi.org/10.5281/zenodo.3904280. Its table is separated by semicolons, and some cells and one column
name end in blanks.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from fmseg.console import track
from fmseg.errors import BadData
from fmseg.records.cases import walk_images
from fmseg.stages.convert.layout import Layout, NewDataset, Skipped, all_files, layouts

TABLE = "FETAL_PLANES_DB_data.csv"
PLANE_NAME = re.compile(r"(Patient\d+)_(Plane\d+)_.+")
#: in the numbering of FETAL_PLANES_DB
PLANES = {
    "Plane1": "other",
    "Plane2": "abdomen",
    "Plane3": "brain",
    "Plane4": "maternal cervix",
    "Plane5": "femur",
    "Plane6": "thorax",
}
DECLARATION = {
    "task": "classification",
    "reference": "https://doi.org/10.5281/zenodo.3904280",
    "licence": "CC BY 4.0",
}


def bring(source: Path, target: Path) -> Skipped:
    """Fill ``target`` from the table if it is there, else from the names."""
    table = _table(source)
    return _by_table(source, target, table) if table else _by_name(source, target)


def _by_table(source: Path, target: Path, table: Path) -> Skipped:
    """Take the images of the table, with its own division into training and test."""
    there = {path.stem: path for path in walk_images(source)}
    dataset = NewDataset(source, target)
    dataset.used.add(table)
    rows = list(_rows(table))
    for row in track(rows, "linking", len(rows)):
        image = there.get(row["image_name"])
        if image is None:
            dataset.skip(table.parent / row["image_name"], f"{TABLE} names it, but there is no such image")
            continue
        plane = row["plane"].lower().removeprefix("fetal ")
        patient = f"Patient{int(row['patient_num']):05d}"
        dataset.add(image.stem, image, patient=patient, label_class=plane, is_test=row.get("train") == "0")
    return dataset.finish(DECLARATION, f"{TABLE} does not name it")


def _rows(table: Path) -> Iterator[dict[str, str]]:
    """Yield the rows, names in lower case, cells without blanks around them."""
    with open(table, encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        names = [name.strip().lower() for name in head.split(";")]
        if not {"image_name", "patient_num", "plane"} <= set(names):
            raise BadData(f"{table}: the columns Image_name;Patient_num;Plane are missing; it has {names}.")
        for number, cells in enumerate(csv.reader(file, delimiter=";"), start=2):
            row = dict(zip(names, (cell.strip() for cell in cells), strict=False))
            if not row:
                continue
            if not row.get("patient_num", "").isdecimal() or not row.get("plane"):
                raise BadData(f"{table}, line {number}: patient or plane is missing. Complete it, or remove the row.")
            yield row


def _by_name(source: Path, target: Path) -> Skipped:
    """Take images that are called PatientNNNNN_PlaneK_..."""
    dataset = NewDataset(source, target)
    found = [(path, match) for path in sorted(walk_images(source)) if (match := PLANE_NAME.fullmatch(path.stem))]
    for path, match in track(found, "linking", len(found)):
        plane = PLANES.get(match[2], match[2])
        dataset.add(path.stem, path, patient=match[1], label_class=plane)
    return dataset.finish(DECLARATION, "no image called PatientNNNNN_PlaneK_...")


def _table(source: Path) -> Path | None:
    return next((path for path in sorted(all_files(source)) if path.name == TABLE), None)


def _fits(source: Path) -> bool:
    return _table(source) is not None or any(PLANE_NAME.fullmatch(path.stem) for path in walk_images(source))


layouts.add("fetal_planes", Layout("FetalPlanes", bring, _fits))
