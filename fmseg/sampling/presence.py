"""Which label values each stored image shows, so that those of a class can be drawn.

Finding it means reading every label map once: minutes for a store of 600,000 slices. So it is kept beside the images,
from the end of preprocessing on; a store that has none of it, made by an older release, gets it at its first use.
"""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from fmseg.errors import EnvironmentProblem
from fmseg.files import writing
from fmseg.imaging.case import Array
from fmseg.sampling.store import Store, shown_path

logger = logging.getLogger(__name__)

NUM_THREADS = min(8, os.cpu_count() or 1)
#: images whose label maps one thread looks at in one go
CHUNK = 256


class LabelMaps(Protocol):
    """What is needed of a store."""

    def __len__(self) -> int: ...

    def label(self, index: int) -> Array | None:
        """Return a label map (h, w), None if the image has none."""


def values_shown(store: Store) -> Array:
    """Return (M, 2) uint32: a row for each image and each label value that it shows, 0 among them, sorted.

    Kept in the store's folder, under the digest of what it was found in.
    """
    path = shown_path(store.folder, store.digest)
    if path.exists():
        kept: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return kept
    shown = find_values(store)
    try:
        with writing(path) as temporary, open(temporary, "wb") as file:
            np.lib.format.write_array(file, shown, allow_pickle=False)
    except EnvironmentProblem as error:  # of a shared folder that others may only read
        logger.warning("%s Which classes the images show is found anew at each start.", error)
    return shown


def find_values(labels: LabelMaps) -> Array:
    """Look at every label map, in some threads; return what ``values_shown`` does."""

    def rows(first: int) -> Array:
        found = [_values(labels.label(index)) for index in range(first, min(first + CHUNK, len(labels)))]
        images = np.repeat(np.arange(first, first + len(found)), [len(values) for values in found])
        return np.stack([images, np.concatenate(found)], axis=1).astype(np.uint32)

    with ThreadPoolExecutor(NUM_THREADS) as threads:
        return np.concatenate([np.zeros((0, 2), np.uint32), *threads.map(rows, range(0, len(labels), CHUNK))])


def images_by_class(shown: Array, indices: Sequence[int], classes: Sequence[Sequence[int]]) -> list[Array]:
    """Return which of some images show each class, classes without any left out; none where all show the same ones.

    shown: as of ``values_shown``. indices: of the images. classes: the label values of each class or region.
    """
    inside = shown[np.isin(shown[:, 0], indices)]
    found = [np.unique(inside[np.isin(inside[:, 1], values), 0]) for values in classes]
    if all(len(images) in (0, len(indices)) for images in found):
        return []
    return [images for images in found if len(images)]


def _values(label: Array | None) -> Array:
    return np.zeros(0, np.int64) if label is None else np.flatnonzero(np.bincount(label.ravel()))
