"""BUSI: breast ultrasound. ``benign (1).png`` has the masks ``benign (1)_mask.png``, ``benign (1)_mask_1.png`` ...

Layout: https://doi.org/10.1016/j.dib.2019.104863. Benign and malignant lesions are two classes; a normal breast has
an empty label map. Patients are not told, and some images are there several times: see what the doctor says.
"""

import re
from pathlib import Path

import numpy as np

from fmseg.console import track
from fmseg.errors import BadData
from fmseg.imaging.case import Array
from fmseg.imaging.masks import read_values
from fmseg.stages.convert.layout import (
    Layout,
    NewDataset,
    Skipped,
    checked_size,
    files_in,
    folder_named,
    layouts,
    need_folder,
    reason_of,
)

LABELS = {"background": 0, "benign": 1, "malignant": 2}
KINDS = ("benign", "malignant", "normal")
IMAGE = re.compile(r"(benign|malignant|normal) \((\d+)\)")


def bring(source: Path, target: Path) -> Skipped:
    """Fill ``target``. Raises BadData without the three folders."""
    folder = need_folder(source, *KINDS)
    dataset = NewDataset(source, target)
    files = [path for kind in KINDS for path in files_in(folder / kind)]
    images = [path for path in files if IMAGE.fullmatch(path.stem)]
    for image in track(images, "reading masks", len(images)):
        match = IMAGE.fullmatch(image.stem)
        assert match is not None
        masks = [path for path in files if re.fullmatch(re.escape(image.stem) + r"_mask(?:_\d+)?", path.stem)]
        try:
            if not masks:
                raise BadData(f"{image.stem}_mask.png is missing")
            label = _united(masks, LABELS.get(match[1], 0))
            checked_size(image, label, masks[0])
        except BadData as error:
            for path in (image, *masks):
                dataset.skip(path, reason_of(error))
            continue
        dataset.add(f"{match[1]}_{match[2]}", image, label)
        dataset.used.update(masks)
    reference = "https://doi.org/10.1016/j.dib.2019.104863"
    declaration = {"labels": LABELS, "task": "segmentation", "reference": reference}
    return dataset.finish(declaration, "no image or mask of BUSI")


def _united(masks: list[Path], value: int) -> Array:
    """Return the label map (1, Y, X) of all masks of an image."""
    drawn = [read_values(path)[0] > 0 for path in masks]
    if len({each.shape for each in drawn}) > 1:
        raise BadData("the masks of this image have different sizes")
    return np.any(drawn, axis=0).astype(np.uint8) * np.uint8(value)


def _fits(source: Path) -> bool:
    folder = folder_named(source, *KINDS)
    return folder is not None and any(IMAGE.fullmatch(path.stem) for path in files_in(folder / "benign"))


layouts.add("busi", Layout("BUSI", bring, _fits))
