"""Make unlabelled datasets of a folder, a list or a table of images, or find those made of it before.

Nothing is copied: a dataset is one small file that says where its images lie. A table that names several modalities
becomes one dataset for each.
"""

import logging
import os
import shutil
from pathlib import Path

from fmseg.errors import FmsegError, NotReady, UsageError
from fmseg.files import locked, sync_folder, write_json
from fmseg.records.cases import NOT_PRETRAINED_ON
from fmseg.records.dataset import DEFAULT_MODALITY, Dataset, declare_unlabelled
from fmseg.records.sources import listed_modalities, modality_name
from fmseg.workspace import Workspace, dataset_id, dataset_title

logger = logging.getLogger(__name__)

#: numbers below are left to datasets with labels
FIRST_NUMBER = 901


def register(workspace: Workspace, source: Path, modality: str | None = None) -> list[str]:
    """Return the names of the datasets of a source; those that are not there yet are made.

    modality: what the images are, where the source does not say it. Raises UsageError if it is not there, or holds
    the workspace, or test images; BadData for a table that cannot be read.
    """
    source = source.resolve()
    _check(workspace, source, modality)
    known = registered(workspace, source)
    wanted = listed_modalities(source)
    if wanted and modality is not None:
        raise UsageError(f"{source} names the modality of each image itself ({', '.join(wanted)}). Drop --modality.")
    if not wanted and known and modality is not None and modality_name(modality) not in known:
        made = " and ".join(f"{name} of {each}" for each, name in known.items())
        raise UsageError(f"{source} is {made} already. Drop --modality, or change it in its dataset.json.")
    if not wanted and not known and modality is None:
        told = "taken for %s, since nothing says otherwise. If they are not: remove that folder, type --modality"
        logger.info(told, DEFAULT_MODALITY)
    wanted = wanted or tuple(known) or (modality_name(modality or DEFAULT_MODALITY),)
    return [known.get(each) or _make(workspace, source, each, len(wanted) > 1) for each in wanted]


def registered(workspace: Workspace, source: Path) -> dict[str, str]:
    """Return modality -> name of the datasets that were made of a source."""
    found = {}
    for name in workspace.dataset_names():
        try:
            dataset = Dataset.load(workspace.raw_dataset(name))
        except FmsegError:
            continue  # told when someone uses it
        if dataset.task == "unlabelled" and dataset.source.resolve() == source.resolve():
            found[dataset.modality] = name
    return found


def need_registered(workspace: Workspace, source: Path) -> list[str]:
    """Return the names of the datasets of a source. Raises NotReady if it was not prepared before."""
    found = list(registered(workspace, source).values())
    if not found:
        raise NotReady(
            f"{source} is not prepared yet, which one process must do: fmseg plan_and_preprocess --images {source}"
        )
    return found


def _check(workspace: Workspace, source: Path, modality: str | None) -> None:
    if not source.exists():
        raise UsageError(f"{source}: there is no such folder, list or table of images.")
    if modality is not None and not modality.strip():
        raise UsageError("--modality is empty. Type what the images are, as --modality mri.")
    if workspace.raw.resolve().is_relative_to(source):
        raise UsageError(f"{source} holds the workspace itself. Work in another folder, or type --root.")
    tests = [part for part in source.parts if part in NOT_PRETRAINED_ON]
    if tests:
        raise UsageError(f"{source} lies in {tests[0]}: label maps and test images are never pretrained on.")


def _make(workspace: Workspace, source: Path, modality: str, is_one_of_several: bool) -> str:
    """Write the raw dataset of one modality, whole or not at all, and return its name."""
    title = dataset_title(source.name if source.is_dir() else source.stem)
    if is_one_of_several:
        title = f"{title}_{dataset_title(modality)}"
    with locked(workspace.raw, "a new dataset"):
        taken = {dataset_id(name) for name in workspace.dataset_names()}
        number = next(number for number in range(FIRST_NUMBER, FIRST_NUMBER + len(taken) + 1) if number not in taken)
        folder = workspace.raw_dataset(f"Dataset{number}_{title}")
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
        temporary.mkdir()
        write_json(temporary / "dataset.json", declare_unlabelled(source) | {"modality": modality})
        os.rename(temporary, folder)
        sync_folder(workspace.raw)
    logger.info("%s is now %s (%s)", source, folder.name, modality)
    return folder.name
