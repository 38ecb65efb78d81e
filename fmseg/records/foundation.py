"""A foundation checkpoint: backbone.safetensors and this card beside it."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from fmseg.errors import NotReady, UnknownName, UsageError
from fmseg.files import writing
from fmseg.records.plans import Architecture, Pretraining
from fmseg.records.record import Part, Record
from fmseg.records.run import Parent, Provenance
from fmseg.registry import unknown

CARD, WEIGHTS = "foundation.json", "backbone.safetensors"
#: sorted first 64 bits of the content hash of every image seen: 8 bytes an image, of which nothing can be read
SEEN = "seen.npy"


class ProbeScore(Part):
    """What frozen features are worth on the validation cases of one labelled dataset."""

    dataset: str
    #: in words, with the unit of both numbers
    measure: str
    score: float
    #: that of the same network with random weights
    random: float


class Trouble(Part):
    """Something that is wrong with a pretraining."""

    name: str
    #: what is wrong, with the figures, and what to do
    text: str
    #: at which it was found
    step: int
    #: whether it had gone when the run ended
    is_over: bool = False


class BestTeacher(Part):
    """The teacher that looked best while it learned, beside the last one."""

    step: int
    #: "probes": mean score of the labelled datasets; "rankme": of CLS tokens, where there are none
    measure: str
    score: float
    last_score: float
    #: whether it is the backbone of this checkpoint, because it is better by more than chance
    is_used: bool


class Origin(Part):
    """Other people's weights that a checkpoint was made from."""

    #: name in the table of sources
    source: str
    title: str
    #: where they are published
    where: str
    licence: str
    #: whether that allows commercial use; None where nobody here knows
    commercial: bool | None
    #: name of the file, and its SHA-256
    file: str
    sha256: str
    #: side in pixels of the images that they were trained on
    input_px: int
    #: (tensors, why they were not taken)
    dropped: tuple[tuple[str, str], ...] = ()
    #: what was added or changed
    notes: tuple[str, ...] = ()

    @property
    def terms(self) -> str:
        """The licence, with what it forbids."""
        return f"{self.licence} (no commercial use)" if self.commercial is False else self.licence


class Foundation(Record):
    """What someone must know to use a pretrained backbone, and what it has seen (foundation.json)."""

    VERSION: ClassVar[int] = 1

    name: str
    modality: str
    architecture: Architecture
    #: of the images in [0, 1]: the network sees (value - mean) / std
    mean: tuple[float, ...]
    std: tuple[float, ...]
    #: None for weights that were not made here
    recipe: Pretraining | None
    datasets: tuple[str, ...]
    num_images: int
    iterations: int
    samples_seen: int
    #: last values of losses and of the collapse measures
    metrics: dict[str, float]
    #: of backbone.safetensors
    weights_sha256: str
    #: number of different images seen; their hashes are in ``seen.npy``
    seen_count: int
    licence: str
    #: of the labelled datasets that were at hand
    probes: tuple[ProbeScore, ...] = ()
    best: BestTeacher | None = None
    #: all that were found while it learned
    troubles: tuple[Trouble, ...] = ()
    #: None for a start from random weights; ``samples_seen`` does not count what it has seen
    parent: Parent | None = None
    #: training alone, of all processes that worked on it one after the other; 0 where nobody has noted it
    seconds: float = 0.0
    #: UTC, as in 2026-01-31T12:00:00+00:00; empty where nobody has noted it
    finished: str = ""
    #: None for weights that were made here
    origin: Origin | None = None
    provenance: Provenance

    @property
    def foreign(self) -> tuple[str, str]:
        """Source and terms of the other people's weights that it, or one of its parents, was made from; or empty."""
        if self.origin is not None:
            return self.origin.source, self.origin.terms
        return (self.parent.source, self.parent.terms) if self.parent is not None else ("", "")

    def for_channels(self, channels: int) -> Self:
        """Return the card of the same weights for images of so many channels. Raises UsageError for 2, 4 ..."""
        own = self.architecture.channels
        if own == channels:
            return self
        if {own, channels} != {1, 3}:
            raise UsageError(
                f"{self.name} takes {own} channel(s), and the images have {channels}. Only 1 and 3 become each other."
            )
        mean, std = moments_for(self.mean, self.std, channels)
        return self.evolve(architecture=self.architecture.evolve(channels=channels), mean=mean, std=std)

    @property
    def total_samples(self) -> int:
        """Samples seen, those of its parents too."""
        return self.samples_seen + (self.parent.samples_seen if self.parent else 0)

    @property
    def has_learned(self) -> bool:
        """Whether probes beat random weights, on average; true where nobody could look."""
        return not self.probes or sum(probe.score - probe.random for probe in self.probes) > 0

    @property
    def summary(self) -> str:
        """One line that says what this is."""
        seen = f"{self.num_images:,} images, {self.total_samples:,} samples seen"
        if self.origin is not None:
            seen = self.origin.title
        elif self.parent is not None and self.parent.source:
            seen += f" from {self.parent.name} on"
        return f"{self.name} ({self.modality}, {self.architecture.name}/{self.architecture.patch_size}, {seen})"


def moments_for(
    mean: Sequence[float], std: Sequence[float], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return one mean and one std for all channels: those of a checkpoint, averaged over its own."""
    return (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels


def find_foundations(folder: Path) -> list[tuple[Path, Foundation]]:
    """Return (folder, card) of every finished checkpoint below ``foundation/<modality>/<name>``."""
    return [(path.parent, Foundation.load(path)) for path in sorted(folder.glob(f"*/*/{CARD}"))]


def named_foundation(found: Sequence[tuple[Path, Foundation]], name: str) -> tuple[Path, Foundation]:
    """Return folder and card of the checkpoint ``name``, or ``modality/name``.

    Raises UnknownName, with the nearest name, if it is not there.
    """
    for folder, card in found:
        if name in (card.name, f"{card.modality}/{card.name}"):
            return folder, card
    names = unknown("foundation checkpoint", name, [card.name for _, card in found])
    raise UnknownName(f"{names} 'fmseg pretrain' makes one, 'fmseg import_weights' too.")


def choose_foundation(folder: Path, name: str | None) -> tuple[Path, Foundation]:
    """Return folder and card of a checkpoint; without a name the one that has seen most, of those that have learned.

    Raises UnknownName for a name that is not there, NotReady if there is none.
    """
    found = find_foundations(folder)
    if name is not None:
        return named_foundation(found, name)
    if not found:
        raise NotReady(f"{folder} holds no foundation checkpoint yet. Make one with: fmseg pretrain")
    return max(found, key=lambda each: (each[1].has_learned, each[1].total_samples))


def write_seen(folder: Path, content_hashes: Collection[str]) -> int:
    """Keep which images were seen; return the number of different ones."""
    # a file that could not be read has none
    found = {int(text[:16], 16) for text in content_hashes if text}
    with writing(folder / SEEN) as temporary, open(temporary, "wb") as file:
        np.save(file, np.sort(np.fromiter(found, dtype=np.uint64, count=len(found))))
    return len(found)


def read_seen(folder: Path) -> np.ndarray:
    """Return the sorted hashes of the images seen, uint64; none if the checkpoint was not made here."""
    path = folder / SEEN
    return np.load(path, allow_pickle=False) if path.exists() else np.empty(0, np.uint64)


def was_seen(seen: np.ndarray, content_hash: str) -> bool:
    """Return whether an image of this content hash is among those seen."""
    key = np.uint64(int(content_hash[:16], 16))
    index = int(np.searchsorted(seen, key))
    return index < len(seen) and bool(seen[index] == key)
