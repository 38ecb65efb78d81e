"""Which prepared datasets are pretrained on together: those of one modality and number of channels."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fmseg.errors import NotReady
from fmseg.files import sha256
from fmseg.records.dataset import Dataset
from fmseg.records.plans import Plans
from fmseg.sampling.distinct import TESTS, Images, distinct_images
from fmseg.sampling.file_images import FileImages
from fmseg.sampling.store import Store, store_folder
from fmseg.workspace import Workspace, dataset_id

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The prepared datasets of one modality."""

    modality: str
    names: tuple[str, ...]
    plans: tuple[Plans, ...]
    stores: tuple[Images, ...]
    #: content of the test images of all datasets here, which are never used: bytes of sorted uint64
    tests: bytes = b""

    @property
    def num_images(self) -> int:
        """Number of 2D images in all stores."""
        return sum(len(store) for store in self.stores)

    @property
    def default_name(self) -> str:
        """A checkpoint's name that says what it has seen: ``d501-d902``."""
        parts = [f"d{dataset_id(name)}" for name in self.names]
        if len(parts) <= 4:
            return "-".join(parts)
        return f"{parts[0]}-and-{len(parts) - 1}-more-{sha256('-'.join(parts).encode())[:6]}"

    def distinct(self, min_difference: int) -> np.ndarray:
        """Return the numbers of the images to pretrain on, through all stores."""
        return distinct_images(self.stores, min_difference, self.tests)


def collect_corpora(workspace: Workspace, names: Sequence[str], *, from_files: bool = False) -> list[Corpus]:
    """Return the prepared datasets by modality and number of channels.

    from_files: unlabelled datasets that are planned are read from their files and need no store.
    """
    groups: dict[str, list[tuple[str, Plans, Images]]] = {}
    for name in sorted(set(names)):  # however they were typed, it is the same corpus
        path = workspace.prepared(name) / "plans.json"
        plans = Plans.load(path) if path.exists() else None
        images = _images_of(workspace, name, plans, from_files) if plans else None
        if plans is None or images is None:
            logger.warning("%s is left out: not prepared yet. fmseg plan_and_preprocess -d %d", name, dataset_id(name))
            continue
        channels = plans.preprocessing.channels
        modality = plans.modality if channels == 1 else f"{plans.modality}-{channels}channels"
        groups.setdefault(modality, []).append((name, plans, images))
    if not groups:
        raise NotReady("No dataset is prepared yet. Begin with: fmseg plan_and_preprocess -d 501")
    tests = _test_images(workspace)
    corpora = []
    for modality, members in groups.items():
        own_names, plans_of, stores = zip(*members, strict=True)
        corpora.append(Corpus(modality, own_names, plans_of, stores, tests))
    return corpora


def _images_of(workspace: Workspace, name: str, plans: Plans, from_files: bool) -> Images | None:
    prepared = workspace.prepared(name)
    if from_files and plans.task == "unlabelled":
        return FileImages(Dataset.load(workspace.raw_dataset(name)), prepared, plans)
    return Store.of(prepared, plans) if store_folder(prepared, plans).exists() else None


def _test_images(workspace: Workspace) -> bytes:
    """Return the content of all test images that a doctor has seen here."""
    found = [np.load(path, allow_pickle=False) for path in sorted(workspace.preprocessed.glob(f"*/{TESTS}"))]
    return np.unique(np.concatenate(found)).astype(np.uint64).tobytes() if found else b""
