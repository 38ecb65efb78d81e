"""The one writer of a store: appends cases, and goes on where a killed one stopped.

Shards are flushed to the disk every few seconds, then the cases that lie in them are entered in a journal. After
a kill, the shards are cut back to the last case of the journal; so the bytes of a finished store do not depend
on interruptions, nor on how many processes compressed the images.

A finished store of which cases can be kept is added to: its shards, its index and its description stay as they are
until ``finish`` puts a new description in the place of the old one.
"""

import json
import logging
import os
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fmseg.errors import BadData
from fmseg.files import append_lines, read_json, remove_strays, stream_lines, writable, write_bytes, write_json, writing
from fmseg.imaging.case import Array
from fmseg.sampling.store import FORMAT, ROW, KeptFiles, file_size, shard_path, shown_path
from fmseg.sampling.store_growth import Base, Wanted, merged

logger = logging.getLogger(__name__)

JOURNAL = "journal.jsonl"
SHARD_BYTES = 2**30
#: at most so much work is lost when the process is killed
FLUSH_SECONDS = 2.0
#: of ROW
NUM_FIELDS = 6
#: of zstd: level 9 saves another 9 % and takes 20 times as long
LEVEL = 3


@dataclass(frozen=True, slots=True)
class EncodedCase:
    """A prepared case, compressed."""

    channels: int
    dtype: str
    #: per image: compressed image, compressed label map (empty if there is none), height, width
    images: tuple[tuple[bytes, bytes, int, int], ...]


def encode_case(images: Array, labels: Array | None) -> EncodedCase:
    """Compress (Z, C, h, w) and (Z, h, w)."""
    parts = [] if labels is None else [_compressed(label) for label in labels]
    blobs = tuple((_compressed(image), parts[z] if parts else b"", *image.shape[1:]) for z, image in enumerate(images))
    return EncodedCase(images.shape[1], images.dtype.name, blobs)


def is_finished(folder: Path, digest: str) -> bool:
    """Return whether a store is done; then remove what is left of its making, and of the one before."""
    path = folder / "store.json"
    facts = read_json(path) if path.exists() else {}
    if facts.get("digest") != digest:
        return False
    (folder / JOURNAL).unlink(missing_ok=True)
    files = KeptFiles(folder, facts.get("generation", 0))
    shards = {shard_path(folder, number) for number in range(len(facts["shard_bytes"]))}
    _remove_others(folder, {files.index, files.cases, files.keys, shown_path(folder, digest), *shards})
    return True


class StoreWriter:
    """Writes a store into ``folder``; what was begun there under the same digest is kept, else removed."""

    def __init__(
        self, folder: Path, digest: str, *, wanted: Wanted | None = None, shard_bytes: int = SHARD_BYTES
    ) -> None:
        """wanted: all cases of the store, in their order; without them a finished one is never added to."""
        self.folder, self.digest, self.shard_bytes, self.wanted = folder, digest, shard_bytes, wanted
        #: case -> reason, for those left out
        self.skipped: dict[str, str] = {}
        self._names: list[str] = []
        self._first = array("q")
        self._rows = array("I")
        self._kind: tuple[int, str] | None = None
        self._shard: BinaryIO | None = None
        self._number, self._end = 0, 0
        self._pending: list[str] = []
        self._flushed = time.monotonic()
        self._journal = folder / JOURNAL
        with writable(folder):
            remove_strays(folder)
        self.is_complete = is_finished(self.folder, digest)
        self.base = None if self.is_complete else Base.of(folder, wanted)
        if not self.is_complete:
            self._resume()

    @property
    def num_done(self) -> int:
        """Number of cases that were written, skipped or kept."""
        return len(self._names) + len(self.skipped) + (self.base.num_kept if self.base else 0)

    @property
    def done_cases(self) -> frozenset[str]:
        """Names of the cases that need not be appended again."""
        return frozenset(self._names) | frozenset(self.skipped) | frozenset(self.base.kept_names if self.base else ())

    def append(self, case: str, images: Array, labels: Array | None) -> None:
        """Append (Z, C, h, w) uint8 or float16 and its label maps (Z, h, w)."""
        self.append_encoded(case, encode_case(images, labels))

    def append_encoded(self, case: str, encoded: EncodedCase) -> None:
        """Append a case that another process compressed. Raises BadData if its channels differ from the others'."""
        kind = (encoded.channels, encoded.dtype)
        if self._kind not in (None, kind):
            raise BadData(f"{case}: prepared as {kind}, the cases before it as {self._kind} (channels, type).")
        with writable(self.folder):
            rows = [self._write(*image) for image in encoded.images]
        self._enter(case, kind, rows)
        self._note({"case": case, "kind": kind, "rows": rows})

    def skip(self, case: str, reason: str) -> None:
        """Enter a case that is left out for good."""
        self.skipped[case] = reason
        self._note({"case": case, "skipped": reason})

    def finish(self) -> None:
        """Write index and description. Raises BadData if no case was appended."""
        if self._kind is None:
            raise BadData(f"{self.folder}: there is no usable image in this dataset. See its doctor's findings.")
        self._flush()
        self._close()
        rows = np.frombuffer(self._rows, np.uint32).astype("<u4").view(ROW)
        names, first, keys = self._names, np.array(self._first, np.int64), None
        if self.wanted is not None:
            ends = np.append(first, len(rows))
            names, first, rows, keys = merged(self.base, self.wanted, names, ends, rows)
        files = KeptFiles(self.folder, self.base.generation + 1 if self.base else 0)
        _write_array(files.index, rows)
        if keys is not None:
            _write_array(files.keys, keys)
        with writing(files.cases) as temporary, open(temporary, "w", encoding="utf-8") as text:
            json.dump({"names": names, "first": first.tolist()}, text, ensure_ascii=False)
        shards = range(self._number + bool(self._end))
        facts = {
            "format": FORMAT,
            "digest": self.digest,
            "preparation": self.wanted.preparation if self.wanted else "",
            "generation": files.generation,
            "channels": self._kind[0],
            "dtype": self._kind[1],
            "num_images": len(rows),
            "num_cases": len(names),
            "num_skipped": len(self.skipped),
            "shard_bytes": [shard_path(self.folder, number).stat().st_size for number in shards],
        }
        write_json(self.folder / "store.json", facts)
        self.is_complete = is_finished(self.folder, self.digest)

    def _write(self, image: bytes, label: bytes, height: int, width: int) -> list[int]:
        if self._end >= self.shard_bytes:
            self._flush()
            self._close()
            self._number, self._end = self._number + 1, 0
        if self._shard is None:
            self._shard = open(shard_path(self.folder, self._number), "ab")  # noqa: SIM115 (stays open over many calls)
        self._shard.write(image)
        self._shard.write(label)
        row = [self._number, self._end, len(image), len(label), height, width]
        self._end += len(image) + len(label)
        return row

    def _enter(self, case: str, kind: tuple[int, str], rows: list[list[int]]) -> None:
        self._kind = kind
        self._names.append(case)
        self._first.append(len(self._rows) // NUM_FIELDS)
        for row in rows:
            self._rows.extend(row)

    def _note(self, line: dict[str, Any]) -> None:
        self._pending.append(json.dumps(line))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        """Put the images on the disk, and only then their names into the journal."""
        if self._shard is not None:
            with writable(self.folder):
                self._shard.flush()
                os.fsync(self._shard.fileno())
        append_lines(self._journal, self._pending)
        self._pending = []
        self._flushed = time.monotonic()

    def _close(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def _resume(self) -> None:
        """Take over what the journal says is on the disk, and remove the rest."""
        head = {"digest": self.digest, "format": FORMAT, "shard_bytes": self.shard_bytes}
        if self.base is None:
            (self.folder / "store.json").unlink(missing_ok=True)
        else:
            head["base"] = self.base.digest
            self._kind = self.base.kind
        first_line = f"{json.dumps(head)}\n".encode()
        ends = self._take_over(first_line)
        if any(file_size(shard_path(self.folder, number)) < end for number, end in ends.items()):
            logger.warning("%s: shards are shorter than the journal says; preparing their images anew", self.folder)
            self.skipped, self._names = {}, []
            self._first, self._rows = array("q"), array("I")
            self._kind = self.base.kind if self.base else None
            ends = {}
        if self._names or self.skipped:
            logger.info("going on after %d cases", len(self._names) + len(self.skipped))
        else:
            write_bytes(self._journal, first_line)
        shards, kept = set(ends), set[Path]()
        if self.base is not None:
            logger.info("%d cases are prepared already", self.base.num_kept)
            files = KeptFiles(self.folder, self.base.generation)
            shards |= set(range(len(self.base.shard_bytes)))
            kept = {files.index, files.cases, files.keys}
            self._number = len(self.base.shard_bytes)
        _remove_others(self.folder, kept | {shard_path(self.folder, number) for number in shards})
        if ends:
            self._number, self._end = max(ends.items())
            os.truncate(shard_path(self.folder, self._number), self._end)

    def _take_over(self, head: bytes) -> dict[int, int]:
        """Enter the cases of a journal that begins with ``head``; return where each shard ends by it."""
        ends: dict[int, int] = {}
        lines = stream_lines(self._journal)
        if next(lines, b"") != head:
            return ends
        length = len(head)
        for line in lines:
            entry = json.loads(line)
            length += len(line)
            if "skipped" in entry:
                self.skipped[entry["case"]] = entry["skipped"]
                continue
            self._enter(entry["case"], (entry["kind"][0], entry["kind"][1]), entry["rows"])
            ends |= {row[0]: sum(row[1:4]) for row in entry["rows"]}
        os.truncate(self._journal, length)  # a torn last line
        return ends


def _remove_others(folder: Path, own: set[Path]) -> None:
    """Remove the files of a store that are not its own any more."""
    for pattern in ("images-*.bin", "index*.npy", "keys*.npy", "cases*.json", "shown*.npy"):
        for path in set(folder.glob(pattern)) - own:
            path.unlink()


def _write_array(path: Path, values: Array) -> None:
    with writing(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array(file, values, allow_pickle=False)


def _compressed(values: Array) -> bytes:
    import blosc2

    filters = [blosc2.Filter.NOFILTER if values.itemsize == 1 else blosc2.Filter.SHUFFLE]
    blob: bytes = blosc2.compress2(
        np.ascontiguousarray(values),
        typesize=values.itemsize,
        clevel=LEVEL,
        filters=filters,
        codec=blosc2.Codec.ZSTD,
        nthreads=1,
    )
    return blob
