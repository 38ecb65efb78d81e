"""Bring a public layout, a folder of images or an nnU-Net dataset into fmseg_raw.

The source is only read: files that need no change are hard-linked, or copied where they cannot be. A dataset
appears whole or not at all, and every file of the source is either in it or listed with the reason why not.
One file a layout; more are added to the registry ``layouts``.
"""

import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fmseg.errors import BadData, UsageError
from fmseg.files import locked, natural_key, read_json, sync_folder, write_json
from fmseg.planning.patients import patients_of
from fmseg.records.cases import CaseNames
from fmseg.records.dataset import Dataset, group_channels, visible_files
from fmseg.stages.convert import (
    busi,
    camus,
    coco,
    fass,
    fetal_planes,
    hc18,
    images,
    jnu_ifm,
    masks,
    nnunet,
    psfhs,
    table,
)
from fmseg.stages.convert.layout import Layout, Skipped, layouts
from fmseg.workspace import DATASET_NAME, Workspace, dataset_id, dataset_title

logger = logging.getLogger(__name__)

__all__ = ["AUTO", "Layout", "Summary", "convert", "layouts", "recognise"]
#: imported for what they register
BUILT_IN = (busi, camus, coco, fass, fetal_planes, hc18, images, jnu_ifm, masks, nnunet, psfhs, table)

#: the layout is found by looking
AUTO = "auto"
#: ours, those first that tell most of themselves
ORDER = ("hc18", "nnunet", "msd", "nnunet_v1", "camus", "fass", "psfhs", "jnu_ifm", "busi", "fetal_planes", "coco")
#: what nearly any folder may be
LAST = ("masks", "table", "images")


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a source folder."""

    dataset: str
    folder: Path
    layout: str
    task: str
    modality: str
    classes: tuple[str, ...]
    num_cases: int
    num_tests: int
    #: that are named; 0 if none is
    num_patients: int
    #: (file, why it was left out)
    skipped: tuple[tuple[str, str], ...]

    @property
    def exit_code(self) -> int:
        """5 if something was left out, else 0."""
        return 5 if self.skipped else 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"folder": str(self.folder), "exit_code": self.exit_code}


def convert(
    workspace: Workspace,
    layout: str,
    source: Path,
    dataset_id: int,
    name: str | None = None,
    *,
    modality: str | None = None,
) -> Summary:
    """Make ``DatasetNNN_<name>`` of a folder in some layout, and return what is in it and what is not.

    modality: what the images are, where the layout does not say it or says it wrongly. Raises UsageError if there
    is a dataset of that number or name already, BadData if the source is not in that layout.
    """
    if not source.exists():
        raise UsageError(f"{source}: there is no such folder. Type the folder of the original files.")
    source = source.resolve()
    layout = recognise(source) if layout == AUTO else layout
    chosen = layouts[layout]
    title = name or chosen.title or dataset_title(source.name if source.is_dir() else source.stem)
    folder = _free_folder(workspace, source, dataset_id, title)
    temporary = folder.with_name(f".{folder.name}.tmp")
    with locked(workspace.raw, "a conversion"):
        shutil.rmtree(temporary, ignore_errors=True)  # of a conversion that was killed
        temporary.mkdir()
        try:
            skipped = _brought(chosen, layout, source, temporary)
            if modality is not None:
                path = temporary / "dataset.json"
                write_json(path, read_json(path) | {"modality": modality})
            num_cases = _count_cases(Dataset.load(temporary), source, skipped)
            os.rename(temporary, folder)
            sync_folder(workspace.raw)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return _summary(Dataset.load(folder), layout, num_cases, skipped)


def recognise(source: Path) -> str:
    """Return the layout that a source has, by the names in it. Raises BadData if it has none or several."""
    found = [name for name in _ordered() if (fits := layouts[name].fits) is not None and fits(source)]
    if not found:
        raise BadData(
            f"{source}: no known layout ({', '.join(layouts.names())}). Name it in place of 'auto'; 'images' takes any "
            "folder as unlabelled images."
        )
    return found[0]


def _ordered() -> list[str]:
    """Return all layouts, those of others first."""
    others = [name for name in layouts.names() if name not in (*ORDER, *LAST)]
    return [*others, *ORDER, *LAST]


def _brought(chosen: Layout, layout: str, source: Path, temporary: Path) -> Skipped:
    """Fill the new folder; of another layout, say which one it may be."""
    try:
        return chosen.bring(source, temporary)
    except BadData as error:
        try:
            other = recognise(source)
        except BadData:
            raise error from None
        if other == layout:
            raise
        raise BadData(f"{error} It looks like '{other}'.") from error


def _summary(dataset: Dataset, layout: str, num_cases: int, skipped: Mapping[str, str]) -> Summary:
    listed = tuple(sorted(skipped.items(), key=lambda item: natural_key(item[0])))
    tests = dataset.folder / "imagesTs"
    classes: tuple[str, ...] = ()
    if dataset.task != "unlabelled":
        classes = dataset.labels.names if dataset.task == "segmentation" else dataset.class_scheme.names
    return Summary(
        dataset=dataset.name,
        folder=dataset.folder,
        layout=layout,
        task=dataset.task,
        modality=dataset.modality,
        classes=classes,
        num_cases=num_cases,
        num_tests=len(group_channels(visible_files(tests), dataset.file_ending)) if tests.is_dir() else 0,
        num_patients=_count_patients(dataset),
        skipped=listed,
    )


def _count_patients(dataset: Dataset) -> int:
    """Return how many patients a table or ``group_regex`` names; 0 and a warning if the latter does not fit."""
    cases = [*CaseNames(dataset.training_cases()), *CaseNames(dataset.test_cases())]
    try:
        patients = patients_of(dataset, cases)
    except BadData as error:
        logger.warning("%s", error)
        return 0
    return len({patients.of_case[case] for case in cases}) if patients.declared else 0


def _free_folder(workspace: Workspace, source: Path, number: int, title: str) -> Path:
    """Return the folder of the new dataset. Raises UsageError if its number or name is taken or impossible."""
    full = f"Dataset{number:03d}_{title}"
    if DATASET_NAME.fullmatch(full) is None or re.search(r"[^\w.-]", full):
        raise UsageError(f"'{full}' cannot be a dataset's name. Use a number from 1 on, letters, digits, - and _.")
    if workspace.raw.resolve().is_relative_to(source):
        raise UsageError(f"{source} holds the workspace itself. Work in another folder, or type --root.")
    taken = [other for other in workspace.dataset_names() if dataset_id(other) == number and other != full]
    if taken:
        raise UsageError(f"The number {number} belongs to {taken[0]} already. Choose another number.")
    folder = workspace.raw_dataset(full)
    if folder.exists():
        raise UsageError(f"{folder} is there already. Choose another number, or remove that folder first.")
    return folder


def _count_cases(dataset: Dataset, source: Path, skipped: Skipped) -> int:
    """Return the number of cases of a new dataset. Raises BadData if there is none, or if one lacks a file."""
    cases = dataset.training_cases()
    if not cases:
        first = next((f" The first file left out, {file}: {reason}." for file, reason in skipped.items()), "")
        raise BadData(f"{source}: there is no image of that layout in it.{first}")
    for case in cases:
        missing = [path for path in case.images if not path.exists()]
        if missing:
            raise BadData(f"{source}: dataset.json names {missing[0].name} for '{case.name}', which is not there.")
    return len(cases)
