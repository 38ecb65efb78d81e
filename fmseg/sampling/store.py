"""Prepared images on disk: packed shards with an index, read without decoding a picture format.

    images-00000.bin ...   about 1 GB each: per image one compressed blob, right behind it that of its label map
    index.npy              one row of 24 bytes per image: where its blobs lie, how long they are, its size
    cases.json             case names, and the first image of each
    keys.npy               8 bytes a case, by which one that has not changed is known when the set grows
    shown-<digest>.npy     which label values each image shows; found once the store is whole, and at any time again
    store.json             what all this was made from and how long it is; written last, so a store that has it is whole

Two million images make 55 shards and an index of 48 MB, which is mapped, not read. Blobs are blosc2 with zstd: for
uint8 without shuffling, which only costs time there. One process writes (``StoreWriter``), many read. A store that has
grown has its index under another name, ``index-00001.npy``, so that the one before stays whole until it is done.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fmseg.errors import BadRecord, NotReady
from fmseg.files import read_json, sha256
from fmseg.imaging.case import Array
from fmseg.records.plans import Plans, Preprocessing

FORMAT = 1
ROW = np.dtype(
    [("shard", "<u4"), ("offset", "<u4"), ("image", "<u4"), ("label", "<u4"), ("height", "<u4"), ("width", "<u4")]
)
#: of Preprocessing: what changes the stored values; mean and std are applied later
STORED_BY = (
    *("size_mode", "image_size", "spacing_mm", "channels", "intensity", "window", "store_dtype"),
    *("neighbours", "outside", "marks"),
)


def store_folder(prepared: Path, plans: Plans) -> Path:
    """Return where the images of a plan lie below a dataset's prepared folder."""
    return prepared / f"{plans.name}_images"


def store_digest(preprocessing: Preprocessing, content_hash: str) -> str:
    """Return a digest of all that decides the content of a store."""
    values = preprocessing.model_dump(mode="json", include=set(STORED_BY))  # what is off is left out
    return sha256(json.dumps([FORMAT, content_hash, values], sort_keys=True).encode())


def preparation_digest(preprocessing: Preprocessing) -> str:
    """Return a digest of how cases are prepared, whichever they are."""
    return store_digest(preprocessing, "")


@dataclass(frozen=True, slots=True)
class KeptFiles:
    """The files beside the shards, of one generation of a store."""

    folder: Path
    #: how often it has grown
    generation: int

    @property
    def index(self) -> Path:
        """Rows of the images."""
        return self._path("index", "npy")

    @property
    def cases(self) -> Path:
        """Names and first images of the cases."""
        return self._path("cases", "json")

    @property
    def keys(self) -> Path:
        """Keys of the cases."""
        return self._path("keys", "npy")

    @property
    def are_there(self) -> bool:
        """Whether all of them are."""
        return all(path.exists() for path in (self.index, self.cases, self.keys))

    def _path(self, stem: str, ending: str) -> Path:
        suffix = f"-{self.generation:05d}" if self.generation else ""
        return self.folder / f"{stem}{suffix}.{ending}"


def shard_path(folder: Path, number: int) -> Path:
    """Return the file of one shard."""
    return folder / f"images-{number:05d}.bin"


def shown_path(folder: Path, digest: str) -> Path:
    """Return the file that notes which label values are shown, of the store of a digest; see ``presence``."""
    return folder / f"shown-{digest[:16]}.npy"


class Store:
    """Random access to the images of a store; safe to fork, to pickle and to share between threads."""

    def __init__(self, folder: Path) -> None:
        path = folder / "store.json"
        if not path.exists():
            raise NotReady(f"{folder} holds no finished images. Make them with: fmseg preprocess -d DATASET")
        facts: dict[str, Any] = read_json(path)
        if facts["format"] != FORMAT:
            raise BadRecord(f"{path}: written by another fmseg. Make it anew with: fmseg preprocess -d DATASET")
        self.folder = folder
        self.digest: str = facts["digest"]
        self.channels: int = facts["channels"]
        self.dtype = np.dtype(facts["dtype"])
        self._shard_bytes: list[int] = facts["shard_bytes"]
        # stores that were made before they could grow do not say
        self._kept = KeptFiles(folder, facts.get("generation", 0))
        self._index = np.load(self._kept.index, mmap_mode="r", allow_pickle=False)
        self._files: dict[int, int] = {}
        self._check(facts["num_images"])

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Open a finished store. Raises NotReady if there is none, BadRecord if files of it are damaged."""
        return cls(folder)

    @classmethod
    def of(cls, prepared: Path, plans: Plans) -> "Store":
        """Open the store of a plan. Raises NotReady if it is missing or was made under another plan."""
        command = f"fmseg preprocess -d {plans.dataset}"
        folder = store_folder(prepared, plans)
        if not (folder / "store.json").exists():
            raise NotReady(f"{plans.dataset} is not preprocessed yet. Do it with: {command}")
        store = cls(folder)
        if store.digest != store_digest(plans.preprocessing, plans.content_hash):
            raise NotReady(f"The images in {folder} were made under another plan. Make them anew with: {command}")
        return store

    def __len__(self) -> int:
        return len(self._index)

    def image(self, index: int) -> Array:
        """Return image ``index``, (C, h, w), uint8 or float16."""
        row = self._index[index]
        image = np.empty((self.channels, int(row["height"]), int(row["width"])), self.dtype)
        return _decompressed(self._bytes(row, 0, row["image"]), image)

    def label(self, index: int) -> Array | None:
        """Return the label map of image ``index``, (h, w), uint8 or int16; None if it has none."""
        row = self._index[index]
        if row["label"] == 0:
            return None
        import blosc2

        blob = self._bytes(row, row["image"], row["label"])
        size = (int(row["height"]), int(row["width"]))
        num_bytes: int = blosc2.get_cbuffer_sizes(blob)[0]
        return _decompressed(blob, np.empty(size, np.uint8 if num_bytes == size[0] * size[1] else np.int16))

    @property
    def case_names(self) -> list[str]:
        """Names of the cases, in the order of the dataset."""
        names: list[str] = read_json(self._kept.cases)["names"]
        return names

    @cached_property
    def cases(self) -> dict[str, range]:
        """Case name -> its images, in the order of the dataset."""
        value = read_json(self._kept.cases)
        ends = [*value["first"][1:], len(self)]
        return {name: range(first, end) for name, first, end in zip(value["names"], value["first"], ends, strict=True)}

    @property
    def sizes(self) -> Array:
        """(N, 2): height and width of each image."""
        return np.stack([self._index["height"], self._index["width"]], axis=1).astype(np.int64)

    @cached_property
    def has_labels(self) -> bool:
        """Whether each image has a label map."""
        return len(self) > 0 and bool((self._index["label"] > 0).all())

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.folder,)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # at the end of the interpreter the module os is gone before some stores are
        for file in getattr(self, "_files", {}).values():
            close(file)

    def _check(self, num_images: int) -> None:
        sizes = [file_size(shard_path(self.folder, number)) for number in range(len(self._shard_bytes))]
        if sizes != self._shard_bytes or self._index.dtype != ROW or len(self._index) != num_images:
            raise BadRecord(
                f"{self.folder}: files of the store are damaged or missing. Remove this folder, then: fmseg "
                "preprocess -d DATASET"
            )

    def _bytes(self, row: Any, skip: int, length: int) -> bytes:
        """Read part of a shard; ``pread`` has no position of its own that processes could disturb."""
        shard = int(row["shard"])
        if shard not in self._files:
            self._files[shard] = os.open(shard_path(self.folder, shard), os.O_RDONLY)
        return os.pread(self._files[shard], int(length), int(row["offset"]) + int(skip))


def _decompressed(blob: bytes, into: Array) -> Array:
    import blosc2

    blosc2.decompress2(blob, dst=into, nthreads=1)
    return into


def file_size(path: Path) -> int:
    """Return the size in bytes, -1 for a file that is not there."""
    return path.stat().st_size if path.exists() else -1
