"""JNU-IFM: frames of intrapartum videos with pubic symphysis and fetal head.

Layout: https://doi.org/10.6084/m9.figshare.14371652. Each video has a folder with ``image`` (VIDEO_12.png), ``mask``
(VIDEO_12_mask.png; 7 is the symphysis, 8 the head) and ``mask_enhance``, a coloured copy. Which videos are of one of
the 51 women is not published, so a video counts as a patient.
"""

from pathlib import Path

import numpy as np

from fmseg.console import track
from fmseg.errors import BadData
from fmseg.imaging.case import Array, BadFile
from fmseg.imaging.readers import read_label
from fmseg.records.naming import plain_name
from fmseg.stages.convert.layout import (
    Layout,
    NewDataset,
    Skipped,
    all_files,
    checked_size,
    files_in,
    layouts,
    reason_of,
)

LABELS = {"background": 0, "pubic symphysis": 1, "fetal head": 2}
#: value -> label; some copies of the set count from 1
VALUES = {0: 0, 1: 1, 2: 2, 7: 1, 8: 2}


def bring(source: Path, target: Path) -> Skipped:
    """Fill ``target`` with every frame that has a mask, those without either structure too."""
    dataset = NewDataset(source, target)
    frames = [path for folder in _videos(source) for path in files_in(folder / "image") if path.suffix == ".png"]
    if not frames:
        raise BadData(f"{source}: there is no folder 'image' beside a folder 'mask'. Type the folder of the videos.")
    for frame in track(frames, "reading masks", len(frames)):
        mask = frame.parent.with_name("mask") / f"{frame.stem}_mask.png"
        try:
            label = _renumbered(mask)
            checked_size(frame, label, mask)
        except BadData as error:
            for path in (frame, mask):
                if path.exists():
                    dataset.skip(path, reason_of(error))
            continue
        dataset.add(plain_name(frame.stem), frame, label, patient=frame.stem.rpartition("_")[0] or frame.stem)
        dataset.used.add(mask)
    for path in all_files(source):
        if path.parent.name == "mask_enhance":
            dataset.skip(path, "a coloured copy of a mask")
    reference = "https://doi.org/10.6084/m9.figshare.14371652"
    declaration = {"labels": LABELS, "task": "segmentation", "reference": reference, "patient_unit": "video"}
    return dataset.finish(declaration, "neither a frame nor its mask")


def _renumbered(mask: Path) -> Array:
    values, _ = read_label(mask)
    strange = np.setdiff1d(values, list(VALUES))
    if len(strange):
        raise BadFile(mask, f"it holds the value {strange[0]}", "Known are 7 (symphysis) and 8 (head).")
    table = np.zeros(max(VALUES) + 1, np.uint8)
    for value, label in VALUES.items():
        table[value] = label
    return table[values]


def _videos(source: Path) -> list[Path]:
    """Return the folders that hold ``image`` and ``mask``."""
    found = {path.parent.parent for path in all_files(source) if path.parent.name == "image"}
    return sorted(folder for folder in found if (folder / "mask").is_dir())


def _fits(source: Path) -> bool:
    return any((folder / "mask_enhance").is_dir() for folder in _videos(source))


layouts.add("jnu_ifm", Layout("JNU_IFM", bring, _fits))
