"""PSFHS: pubic symphysis and fetal head, of the challenges of 2023 and 2024.

Layout: https://doi.org/10.5281/zenodo.10969427. ``image_mha`` holds colour images whose three colours are stored as
three slices, ``label_mha`` the label maps under the same names. Patients are not told.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from fmseg.console import track
from fmseg.errors import BadData
from fmseg.files import writing
from fmseg.imaging.case import Array, BadFile
from fmseg.imaging.readers import read_case, read_label
from fmseg.records.cases import CaseFiles
from fmseg.stages.convert.layout import (
    Layout,
    NewDataset,
    Skipped,
    entry,
    files_in,
    folder_named,
    layouts,
    need_folder,
    reason_of,
    stem_of,
)

FOLDERS = ("image_mha", "label_mha")
LABELS = {"background": 0, "pubic symphysis": 1, "fetal head": 2}


def bring(source: Path, target: Path) -> Skipped:
    """Fill ``target``; the images become PNG, which keeps every pixel."""
    folder = need_folder(source, *FOLDERS)
    dataset = NewDataset(source, target)
    images = files_in(entry(folder, "image_mha"))
    drawn = target / ".drawn"
    for image in track(images, "reading", len(images)):
        mask = entry(folder, "label_mha") / image.name
        try:
            colours, label = _colours(image), read_label(mask)[0]
            if label.shape[1:] != colours.shape[:2]:
                raise BadFile(mask, f"it is {label.shape[1:]} px, its image {colours.shape[:2]}", "Download it again.")
        except BadData as error:
            for path in (image, mask):
                if path.exists():
                    dataset.skip(path, reason_of(error))
            continue
        picture = drawn / f"{stem_of(image)}.png"
        with writing(picture) as temporary:
            Image.fromarray(colours).save(temporary, format="PNG")
        dataset.add(stem_of(image), picture, label)
        picture.unlink()
        dataset.used.update((image, mask))
    if drawn.is_dir():
        drawn.rmdir()
    declaration = {"labels": LABELS, "task": "segmentation", "reference": "https://doi.org/10.5281/zenodo.10969427"}
    return dataset.finish(declaration, "neither an image nor its label map")


def _colours(image: Path) -> Array:
    """Return (Y, X, 3) uint8, or (Y, X) of a grey image."""
    voxels = read_case(CaseFiles(image.stem, (image,), None)).voxels
    planes = voxels[0] if len(voxels) == 1 else voxels[:, 0]
    if len(planes) not in (1, 3) or planes.dtype != np.uint8:
        raise BadFile(image, f"it is {voxels.shape} {voxels.dtype}, no colour image of 8 bits", "Download it again.")
    return planes[0] if len(planes) == 1 else np.ascontiguousarray(np.moveaxis(planes, 0, -1))


layouts.add("psfhs", Layout("PSFHS", bring, lambda source: folder_named(source, *FOLDERS) is not None))
