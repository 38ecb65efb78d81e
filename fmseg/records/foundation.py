"""A foundation checkpoint: backbone.safetensors and this card beside it."""

from pathlib import Path
from typing import ClassVar

from fmseg.records.plans import Architecture, Pretraining
from fmseg.records.record import Record
from fmseg.records.run import Provenance

CARD, WEIGHTS = "foundation.json", "backbone.safetensors"


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
    #: first 16 hexadecimal digits of the content hash of every image seen, sorted, in ``seen.txt``
    seen_count: int
    licence: str
    provenance: Provenance

    @property
    def summary(self) -> str:
        """One line that says what this is."""
        return (
            f"{self.name} ({self.modality}, {self.architecture.name}/{self.architecture.patch_size}, "
            f"{self.num_images} images, {self.samples_seen} samples seen)"
        )


def find_foundations(folder: Path) -> list[tuple[Path, Foundation]]:
    """Return (folder, card) of every finished checkpoint below ``foundation/<modality>/<name>``."""
    return [(path.parent, Foundation.load(path)) for path in sorted(folder.glob(f"*/*/{CARD}"))]
