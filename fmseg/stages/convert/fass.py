"""FASS: fetal abdomens with aorta, liver, stomach and umbilical vein; P01_IMG1 is an image of the woman P01.

Layout: https://doi.org/10.17632/4gcpm9dsc3. The masks are NumPy files of one dictionary: ``structures`` leads from the
name of a structure to its mask. Their order here is that of the published segmentations of UltraDINO.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from fmseg.console import track
from fmseg.errors import BadData
from fmseg.imaging.case import Array, BadFile
from fmseg.imaging.object_arrays import array_of, read_dictionary
from fmseg.stages.convert.layout import (
    Layout,
    NewDataset,
    Skipped,
    checked_size,
    entry,
    files_in,
    folder_named,
    layouts,
    need_folder,
    reason_of,
)

FOLDERS = ("IMAGES", "ARRAY_FORMAT")
#: as the files call them -> label
STRUCTURES = {"artery": 1, "liver": 2, "stomach": 3, "vein": 4}
LABELS = {"background": 0, "aorta": 1, "liver": 2, "stomach": 3, "umbilical vein": 4}
#: from below: the vein runs through the liver
PAINTED = ("liver", "stomach", "artery", "vein")
WOMAN = re.compile(r"(P\d+)_")


def bring(source: Path, target: Path) -> Skipped:
    """Fill ``target``. Raises BadData without the two folders."""
    folder = need_folder(source, *FOLDERS)
    dataset = NewDataset(source, target)
    images = files_in(entry(folder, "IMAGES"))
    for image in track(images, "reading masks", len(images)):
        mask = entry(folder, "ARRAY_FORMAT") / f"{image.stem}.npy"
        match = WOMAN.match(image.stem)
        if match is None:
            dataset.skip(image, "it is not called P01_IMG1 or alike")
            continue
        try:
            if not mask.exists():
                raise BadData(f"{mask.name} is missing")
            label = _painted(mask, read_dictionary(mask))
            checked_size(image, label, mask)
        except BadData as error:
            for path in (image, mask):
                if path.exists():
                    dataset.skip(path, reason_of(error))
            continue
        dataset.add(image.stem, image, label, patient=match[1])
        dataset.used.add(mask)
    declaration = {"labels": LABELS, "task": "segmentation", "reference": "https://doi.org/10.17632/4gcpm9dsc3"}
    return dataset.finish(declaration, "no image of FASS or its mask; the same image in another format, perhaps")


def _painted(path: Path, content: dict[str, Any]) -> Array:
    """Return the label map (1, Y, X) uint8."""
    structures = content.get("structures")
    if not isinstance(structures, dict) or not structures:
        raise BadFile(path, "it has no 'structures'", "Download it again.")
    strange = sorted(set(structures) - set(STRUCTURES))
    if strange:
        raise BadFile(path, f"it has a structure '{strange[0]}'", "Only artery, liver, stomach and vein are known.")
    arrays = {name: array_of(path, value, name) for name, value in structures.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1:
        raise BadFile(path, f"its structures have the sizes {sorted(shapes)}", "Download it again.")
    label = np.zeros(shapes.pop(), np.uint8)
    for name in PAINTED:
        if name in arrays:
            label[arrays[name] > 0] = STRUCTURES[name]
    return label[None]


layouts.add("fass", Layout("FASS", bring, lambda source: folder_named(source, *FOLDERS) is not None))
