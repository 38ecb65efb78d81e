"""Features of image files, wherever they lie: CLS and mean patch token of a foundation checkpoint.

An image is known by the path, size and time of its files, so that a second run reads nothing; one that was moved or
renamed by its pixels, so that it is read, but needs no network. Of a case of several images (a clip, a volume) the
middle one is taken.

Legend: N images, D width of the network.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from fmseg.errors import FmsegError
from fmseg.files import locked, sha256
from fmseg.imaging.case import Case, content_hash
from fmseg.imaging.prepare import prepare
from fmseg.imaging.readers import read_case
from fmseg.inference.embedding_cache import CONTENT, EmbeddingCache
from fmseg.inference.features import embed, normalised
from fmseg.inference.members import find_device
from fmseg.inference.pipeline import NUM_THREADS, MemoryBound, map_ahead
from fmseg.networks.weights import load_backbone
from fmseg.records.cases import CaseFiles, key_of
from fmseg.records.foundation import Foundation
from fmseg.records.plans import Preprocessing

#: images that are looked up, read and embedded together
CHUNK = 256


@dataclass(frozen=True, slots=True)
class Embedding:
    """One image: its features, or what is wrong with its file."""

    files: CaseFiles
    #: (2 D,) float32: CLS, then mean patch token; None for a broken file
    row: np.ndarray | None
    #: first 64 bits of the hash of its pixels
    content: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Read:
    """A file as it was read; the image (C, h, w) where its features are not known yet."""

    key: int
    content: int = 0
    image: np.ndarray | None = None
    problem: str = ""


class Embedder:
    """A foundation checkpoint that looks at files, and keeps what it has seen in ``cache``."""

    def __init__(self, checkpoint: Path, cache: Path) -> None:
        self.vit, self.card = load_backbone(checkpoint)
        self.vit.eval().requires_grad_(False).to(find_device())
        self.cache = cache / embedding_key(self.card)

    @property
    def width(self) -> int:
        """Length of CLS, and of the mean patch token."""
        return self.card.architecture.width

    def embed(self, cases: Sequence[CaseFiles]) -> Iterator[Embedding]:
        """Yield the embedding of each case, in order. Raises Busy if another process uses the cache."""
        with locked(self.cache, "these features"), ThreadPoolExecutor(NUM_THREADS) as pool:
            cache = EmbeddingCache(self.cache)
            try:
                for first in range(0, len(cases), CHUNK):
                    yield from self._chunk(cases[first : first + CHUNK], cache, pool)
            finally:
                cache.flush()

    def image(self, case: CaseFiles) -> np.ndarray:
        """Return what the network sees of a case, before it is normalised: (C, h, w) uint8. Raises BadData."""
        return _prepared(read_case(case), self.card)

    def patches(self, case: CaseFiles) -> np.ndarray:
        """Return the patch tokens (rows, columns, D) float16 of a case's image. Raises BadData for a broken file."""
        patch = self.card.architecture.patch_size
        batch = normalised(self.image(case)[None], self.card.mean, self.card.std)
        batch = F.pad(batch, (0, -batch.shape[3] % patch, 0, -batch.shape[2] % patch))
        with torch.inference_mode():
            tokens = self.vit(batch.to(next(self.vit.parameters()).device))[0, self.vit.num_prefix_tokens :]
        grid: np.ndarray = tokens.unflatten(0, (batch.shape[2] // patch, -1)).half().cpu().numpy()
        return grid

    def _chunk(self, cases: Sequence[CaseFiles], cache: EmbeddingCache, pool: ThreadPoolExecutor) -> list[Embedding]:
        keys = [_key_of_files(case) for case in cases]
        known = [None if key is None else cache.find(key) for key in keys]
        unknown = [index for index, found in enumerate(known) if found is None]
        bound = MemoryBound(most=2 * NUM_THREADS)

        def read(index: int) -> _Read:
            return _read(cases[index], keys[index], self.card, bound)

        reads = dict(zip(unknown, map_ahead(pool, read, unknown, bound.limit), strict=True))
        new = [each for each in reads.values() if each.image is not None and cache.find(each.content, CONTENT) is None]
        for each, row in zip(new, self._rows(new), strict=True):
            cache.add(each.key, each.content, row)
        answers = []
        for case, found, index in zip(cases, known, range(len(cases)), strict=True):
            if found is None and not reads[index].problem:
                each = reads[index]
                found = cache.find(each.content, CONTENT)
                assert found is not None, "features of an image that was read"
                cache.add(each.key, each.content, found[1])
            if found is None:
                answers.append(Embedding(case, None, problem=reads[index].problem))
            else:
                answers.append(Embedding(case, np.array(found[1]), found[0]))
        return answers

    def _rows(self, reads: Sequence[_Read]) -> np.ndarray:
        images = _InMemory([each.image for each in reads if each.image is not None])
        if not reads:
            return np.empty((0, 2 * self.width), np.float32)
        # images of one size lie together, so that they share batches
        order = sorted(range(len(reads)), key=lambda index: images.image(index).shape)
        rows = embed(self.vit, images, order, mean=self.card.mean, std=self.card.std)
        found: np.ndarray = rows[np.argsort(order)]
        return found


@dataclass(frozen=True, slots=True)
class _InMemory:
    images: Sequence[np.ndarray]

    def image(self, index: int) -> np.ndarray:
        return self.images[index]


def embedding_key(card: Foundation) -> str:
    """Return a name for all that decides the features of an image: weights, and how images are prepared."""
    facts = (card.weights_sha256, card.architecture.digest(), card.mean, card.std, _preprocessing(card, np.uint8))
    return f"{card.name}-{sha256(repr(facts).encode())[:16]}"


def _preprocessing(card: Foundation, dtype: object) -> Preprocessing:
    """Return how an image that belongs to no plan is prepared: fitted into the size that the checkpoint is of."""
    return Preprocessing(
        size_mode="fit",
        image_size=card.architecture.image_size,
        spacing_mm=None,
        channels=card.architecture.channels,
        intensity="eight_bit" if dtype == np.uint8 else "image_percentiles",
        window=(),
        mean=card.mean,
        std=card.std,
        store_dtype="uint8",
    )


def _read(case: CaseFiles, key: int | None, card: Foundation, bound: MemoryBound) -> _Read:
    try:
        read = read_case(case)
        bound.note(2 * read.voxels.nbytes)
        hashed = int(content_hash(read.voxels)[:16], 16)
        return _Read(key or hashed, hashed, _prepared(read, card))
    except (FmsegError, OSError, ValueError) as error:
        return _Read(key or 0, problem=str(error))


def _prepared(case: Case, card: Foundation) -> np.ndarray:
    """Return the middle image of a case, (C, h, w) uint8."""
    middle = case.voxels.shape[1] // 2
    voxels = case.voxels[:, middle : middle + 1]
    image: np.ndarray = prepare(voxels, case.geometry, _preprocessing(card, voxels.dtype))[0]
    return image


def _key_of_files(case: CaseFiles) -> int | None:
    """Return a key of path, size and time of a case's files; None if one cannot be looked up."""
    try:
        parts = [(str(path.absolute()), *_size_and_time(path)) for path in case.images]
    except OSError:
        return None
    return key_of(repr(parts))


def _size_and_time(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
