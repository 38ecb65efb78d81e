"""Which stored images are pretrained on: equal ones once, and of each patient those that do not look alike.

So 300 frames of one clip do not outweigh 300 patients, and a step rarely shows one image twice, which would disturb
KoLeo: it pushes the nearest two of a step apart.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from fmseg.errors import BadData, NotReady
from fmseg.imaging.alike import ImageKeys, is_repeated, is_too_alike, keys_of
from fmseg.imaging.case import Array
from fmseg.imaging.measure import read_facts
from fmseg.records.fingerprint import CaseFacts

logger = logging.getLogger(__name__)

#: below a prepared folder: the first 64 bits of the content hash of each test image, sorted uint64
TESTS = "test_images.npy"


class Images(Protocol):
    """Prepared images of one dataset: ``Store``, ``FileImages``."""

    folder: Path

    def __len__(self) -> int:
        """Return the number of 2D images."""

    def image(self, index: int) -> Array:
        """Return image ``index``, (C, h, w), uint8 or float16."""

    def label(self, index: int) -> Array | None:
        """Return the label map of image ``index``, (h, w); None if it has none."""

    @property
    def cases(self) -> dict[str, range]:
        """Case name -> its images, in the order of the dataset."""

    @property
    def case_names(self) -> Sequence[str]:
        """Names of the cases, in the order of the dataset."""


@lru_cache(maxsize=4)
def distinct_images(stores: tuple[Images, ...], min_difference: int, tests: bytes = b"") -> Array:
    """Return the numbers of the images to be used, through all stores, rising.

    min_difference: in how many of 64 bits the looks of two images of one patient must differ at least; 0 uses every
    image, equal ones too. tests: content of images that are never used, as bytes of uint64. Raises BadData if no image
    is left, NotReady if the images were measured again since they were prepared.
    """
    num_images = sum(len(store) for store in stores)
    everything = np.arange(num_images)
    is_left_out = np.zeros(num_images, bool)
    if min_difference <= 0 and not tests:
        return everything
    parts = [_stored_keys(store) for store in stores]
    keys = ImageKeys(*(np.concatenate([getattr(part, name) for part in parts]) for name in ImageKeys.__slots__))
    is_test = np.isin(keys.case, np.frombuffer(tests, np.uint64))
    if is_test.any():
        logger.warning("%d images are left out: they are in the imagesTs of a labelled dataset", is_test.sum())
    if is_test.all():
        raise BadData("Every image is in the imagesTs of a labelled dataset, so none is left to pretrain on.")
    is_left_out |= is_test
    if min_difference > 0:
        repeated = is_repeated(keys.content)
        left = everything[~is_left_out & ~repeated]
        alike = left[is_too_alike(keys.take(left), min_difference)]
        is_left_out |= repeated
        is_left_out[alike] = True
        if is_left_out.any():
            logger.info(
                "of %d images %d are used: %d are equal to another one, and %d look like another one of their patient "
                "(fewer than %d of 64 bits differ; --set min_difference=0 uses all)",
                *(num_images, num_images - is_left_out.sum(), repeated.sum(), len(alike), min_difference),
            )
    return np.flatnonzero(~is_left_out)


def _stored_keys(store: Images) -> ImageKeys:
    path = store.folder.parent / "cases.jsonl"
    keys = keys_of(_of_cases(read_facts(path), store.case_names, path))
    if len(keys.content) != len(store):
        raise NotReady(_stale(path))
    return keys


def _of_cases(facts: Iterable[CaseFacts], names: Sequence[str], path: Path) -> Iterator[CaseFacts]:
    """Yield the facts of the named cases; both are in the order of the dataset."""
    waiting = iter(names)
    wanted = next(waiting, None)
    for fact in facts:
        if fact.case == wanted:
            yield fact
            wanted = next(waiting, None)
    if wanted is not None:
        raise NotReady(_stale(path))


def _stale(path: Path) -> str:
    again = f"fmseg plan_and_preprocess -d {path.parent.name}"
    return f"{path}: the images were measured again since they were prepared. Run: {again}"
