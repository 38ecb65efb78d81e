"""Rows of features on disk, found by file and by content: those of one checkpoint and one way to look at images.

    part-0000000000.rows.npy    (n, F) float32, some thousand images
    part-0000000000.keys.npy    (n, 2) uint64: of the file (path, size, time), of the pixels; written after the rows

Two million images take 64 MB of keys and their order in memory; rows are mapped, not read.
"""

from pathlib import Path

import numpy as np

from fmseg.files import writing

#: rows of one file; what is not yet written is sorted in with them
PART = 4096
FILE, CONTENT = 0, 1


class EmbeddingCache:
    """Features that are kept. One process writes; see ``files.locked``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: list[np.ndarray] = []
        self._starts: list[int] = []
        self._count = 0
        parts = [self._open(path) for path in sorted(folder.glob("part-*.keys.npy"))]
        self._sort(np.concatenate([np.empty((0, 2), np.uint64), *parts]))
        #: not yet written, by file and by content
        self._new: tuple[dict[int, tuple[int, np.ndarray]], dict[int, tuple[int, np.ndarray]]] = ({}, {})

    def find(self, key: int, kind: int = FILE) -> tuple[int, np.ndarray] | None:
        """Return content and row of an image by one of its keys; None if it is not known."""
        if key in self._new[kind]:
            return self._new[kind][key]
        order = self._orders[kind]
        place = int(np.searchsorted(self._keys[:, kind], np.uint64(key), sorter=order))
        if place == len(order) or int(self._keys[order[place], kind]) != key:
            return None
        number = int(order[place])
        part = int(np.searchsorted(self._starts, number, side="right")) - 1
        return int(self._keys[number, CONTENT]), self._rows[part][number - self._starts[part]]

    def add(self, file: int, content: int, row: np.ndarray) -> None:
        """Keep a row; it is written with some thousand others, or by ``flush``."""
        self._new[FILE][file] = self._new[CONTENT][content] = (content, row.astype(np.float32))
        if len(self._new[FILE]) >= PART:
            self.flush()

    def flush(self) -> None:
        """Write what is new."""
        if not self._new[FILE]:
            return
        keys = np.array([(file, content) for file, (content, _) in self._new[FILE].items()], np.uint64)
        rows = np.stack([row for _, row in self._new[FILE].values()])
        place = self.folder / f"part-{self._count:010d}.keys.npy"
        for path, array in ((_rows_of(place), rows), (place, keys)):
            with writing(path) as temporary, open(temporary, "wb") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        self._open(place)
        self._sort(np.concatenate([self._keys, keys]))
        self._new = ({}, {})

    def _open(self, keys: Path) -> np.ndarray:
        """Map the rows of a part and return its keys."""
        rows = np.load(_rows_of(keys), mmap_mode="r", allow_pickle=False)
        self._starts.append(self._count)
        self._rows.append(rows)
        self._count += len(rows)
        found: np.ndarray = np.load(keys, allow_pickle=False)
        return found

    def _sort(self, keys: np.ndarray) -> None:
        self._keys = keys
        self._orders = tuple(np.argsort(keys[:, kind], kind="stable") for kind in (FILE, CONTENT))


def _rows_of(keys: Path) -> Path:
    return keys.with_name(keys.name.replace("keys", "rows"))
