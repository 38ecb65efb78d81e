"""HC18: fetal heads. Outlines become masks, exams become patients, pixel sizes are kept for measurements.

Layout: https://doi.org/10.5281/zenodo.1327317
"""

import re
from pathlib import Path

from fmseg.console import track
from fmseg.errors import BadData
from fmseg.imaging.case import Array
from fmseg.imaging.outlines import fill_outline
from fmseg.imaging.readers import read_case, read_label
from fmseg.records.cases import CaseFiles
from fmseg.records.tables import read_table
from fmseg.stages.convert.layout import Layout, NewDataset, Skipped, files_in, layouts, reason_of, write_table

TABLES = ("training_set_pixel_size_and_HC.csv", "test_set_pixel_size.csv")
NAME = re.compile(r"\d+_\d*HC\.png")


def bring(source: Path, target: Path) -> Skipped:
    """Fill ``target``. Raises BadData without the tables."""
    sizes: dict[str, str] = {}
    tables = [source / name for name in TABLES if (source / name).exists()]
    for table in tables:
        sizes |= read_table(table, "filename", "pixel size(mm)")
    if not tables:
        raise BadData(f"{source}: {TABLES[0]} is not there. Type the folder that holds it and training_set.")
    images = [path for path in _pictures(source / "training_set") if NAME.fullmatch(path.name)]
    tests = [path for path in _pictures(source / "test_set") if NAME.fullmatch(path.name)]
    dataset = NewDataset(source, target)
    dataset.used.update(tables)
    for image in track(images, "filling outlines", len(images)):
        outline = image.with_name(f"{image.stem}_Annotation.png")
        try:
            label = _filled(image, outline)
        except BadData as error:
            for path in (image, outline):
                if path.exists():
                    dataset.skip(path, reason_of(error))
            continue
        dataset.add(image.stem, image, label, patient=image.stem.split("_")[0])
        dataset.used.add(outline)
    for image in tests:
        dataset.add(image.stem, image, patient=image.stem.split("_")[0], is_test=True)
    known = ((case, sizes[f"{case}.png"]) for case in dataset.patients if f"{case}.png" in sizes)
    write_table(target / "spacing.csv", ("case", "spacing_mm"), known)
    declaration = {
        "labels": {"background": 0, "head": 1},
        "task": "segmentation",
        "reference": "https://doi.org/10.5281/zenodo.1327317",
        "licence": "CC BY 4.0",
    }
    return dataset.finish(declaration, "no image of HC18 or its outline")


def _filled(image: Path, outline: Path) -> Array:
    """Return the filled outline (1, Y, X) uint8. Raises BadData if it does not fit the image or is not closed."""
    voxels = read_case(CaseFiles(image.stem, (image,), None)).voxels
    line, _ = read_label(outline)
    if line.shape != voxels.shape[1:]:
        raise BadData(f"the outline is {line.shape[1:]} px, its image {voxels.shape[2:]} (height, width)")
    return fill_outline(line[0])[None].astype("uint8")


def _pictures(folder: Path) -> list[Path]:
    """Return the files of a set; archives wrap a second folder of the same name around them."""
    inner = folder / folder.name
    return files_in(inner if inner.is_dir() else folder)


layouts.add("hc18", Layout("HC18", bring, lambda source: any((source / name).exists() for name in TABLES)))
