"""What a finished store has that the next one can keep: a set that grows is not packed anew.

A case is known by a key of its name and of all that its prepared images are made of. Cases of equal key keep their
bytes where they lie; new and changed ones are appended in shards of their own; removed ones leave the index alone, and
their bytes stay behind until they are the larger part. So what is read is what a store packed anew would give.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmseg.files import read_json
from fmseg.imaging.case import Array
from fmseg.records.cases import key_of
from fmseg.records.fingerprint import CaseFacts
from fmseg.sampling.store import FORMAT, ROW, KeptFiles, file_size, shard_path

#: of a store's bytes that may belong to cases that are gone; beyond it all is packed anew
MAX_DEAD_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """The cases that a store is to hold."""

    #: in the order of the dataset
    names: Sequence[str]
    #: (N,) uint64; see ``case_key``
    keys: Array
    #: digest of how they are prepared
    preparation: str


def case_key(fact: CaseFacts) -> int:
    """Return 64 bits of a case's name and of all that its prepared images depend on."""
    parts = (fact.case, fact.content_hash, fact.label_hash, str(fact.spacing_mm))
    return key_of("\0".join(parts))


@dataclass(frozen=True, slots=True)
class Base:
    """A finished store of which some cases are kept."""

    digest: str
    generation: int
    #: channels and type
    kind: tuple[int, str]
    shard_bytes: tuple[int, ...]
    names: list[str]
    rows: Array
    #: (cases + 1,): first row of each case, and the end
    first: Array
    #: (N,) for each wanted case its number here, -1 for those that are not, or no longer, here
    places: Array

    @classmethod
    def of(cls, folder: Path, wanted: Wanted | None) -> "Base | None":
        """Return what can be kept of the finished store in a folder; None if there is none, or too little is left."""
        path = folder / "store.json"
        facts: dict[str, Any] = read_json(path) if wanted is not None and path.exists() else {}
        if wanted is None or facts.get("format") != FORMAT or facts.get("preparation") != wanted.preparation:
            return None
        files = KeptFiles(folder, facts["generation"])
        sizes = tuple(facts["shard_bytes"])
        is_whole = all(file_size(shard_path(folder, number)) == size for number, size in enumerate(sizes))
        if not is_whole or not files.are_there:
            return None
        rows = np.load(files.index, mmap_mode="r", allow_pickle=False)
        keys = np.load(files.keys, allow_pickle=False)
        cases = read_json(files.cases)
        first = np.array([*cases["first"], len(rows)], np.int64)
        base = cls(
            digest=facts["digest"],
            generation=facts["generation"],
            kind=(facts["channels"], facts["dtype"]),
            shard_bytes=sizes,
            names=cases["names"],
            rows=rows,
            first=first,
            places=_places(keys, wanted.keys),
        )
        return base if base.dead_bytes <= MAX_DEAD_SHARE * sum(sizes) else None

    @property
    def num_kept(self) -> int:
        """Number of cases that are kept."""
        return int((self.places >= 0).sum())

    @property
    def kept_names(self) -> list[str]:
        """Names of the cases that are kept."""
        return [self.names[place] for place in self.places[self.places >= 0].tolist()]

    @property
    def dead_bytes(self) -> int:
        """Bytes of the shards that belong to no case that is kept."""
        is_kept = np.zeros(len(self.names), bool)
        is_kept[self.places[self.places >= 0]] = True
        lengths = self.rows["image"].astype(np.int64) + self.rows["label"]
        alive = lengths[np.repeat(is_kept, np.diff(self.first))].sum()
        return int(sum(self.shard_bytes) - alive)


def merged(
    base: Base | None, wanted: Wanted, names: Sequence[str], first: Array, rows: Array
) -> tuple[list[str], Array, Array, Array]:
    """Return names, first rows, rows and keys of a store in the order of the dataset.

    names, first, rows: the cases that were appended, in any order; ``first`` ends with the number of rows.
    """
    places = np.full(len(wanted.keys), -1) if base is None else base.places
    appended = {name: number for number, name in enumerate(names)}
    starts, counts, found, numbers = [], [], [], []
    shift = 0 if base is None else len(base.rows)
    for number, name in enumerate(wanted.names):
        place = int(places[number])
        if place >= 0 and base is not None:
            start, end = int(base.first[place]), int(base.first[place + 1])
        elif name in appended:
            own = appended[name]
            start, end = shift + int(first[own]), shift + int(first[own + 1])
        else:
            continue  # left out
        starts.append(start)
        counts.append(end - start)
        found.append(name)
        numbers.append(number)
    ends = np.cumsum(np.array(counts, np.int64))
    new_first = ends - counts
    chosen = np.arange(ends[-1] if len(ends) else 0) + np.repeat(np.array(starts, np.int64) - new_first, counts)
    together = rows if base is None else np.concatenate([base.rows, rows])
    return found, new_first, together[chosen].astype(ROW), wanted.keys[numbers]


def _places(keys: Array, wanted: Array) -> Array:
    """Return for each wanted key its number in ``keys``, -1 if it is not there."""
    if not len(keys):
        return np.full(len(wanted), -1)
    order = np.argsort(keys, kind="stable")
    place = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    found = order[place]
    return np.where(keys[found] == wanted, found, -1)
