"""A .fmseg bundle: trained models, or a foundation checkpoint, in one file, and what stands in its bundle.json.

Inside, files lie as in a dataset's results, or in a checkpoint's folder. No path, case or patient is in them.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from fmseg.errors import BadRecord
from fmseg.records.record import Part, Record

ENDING = ".fmseg"
MANIFEST, MODEL_CARD, DECLARATION, PLANS = "bundle.json", "card.md", "dataset.json", "plans.json"
#: as ``seen.npy`` of a foundation checkpoint: what the models have met as labelled cases, and in pretraining
SEEN_IN_TRAINING, SEEN_IN_PRETRAINING = "seen_in_training.npy", "seen_in_pretraining.npy"

_MB = 1 << 20
MAX_DEPTH = 32
Kind = Literal["models", "foundation"]
#: what a bundle may hold, and how much of it
ALLOWED: Mapping[re.Pattern[str], int] = {
    re.compile(rf"{MANIFEST}|{MODEL_CARD}|{DECLARATION}".replace(".", r"\.")): 4 * _MB,
    re.compile(r"(plans|selection|foundation)\.json"): 16 * _MB,
    re.compile(r"seen(_in_training|_in_pretraining)?\.npy"): 4096 * _MB,
    re.compile(r"backbone\.safetensors"): 65536 * _MB,
    re.compile(r"[A-Za-z0-9][\w+-]*(\.[\w+-]+)*/fold_(\d{1,4}|all)/model\.safetensors", re.ASCII): 65536 * _MB,
    re.compile(r"[A-Za-z0-9][\w+-]*(\.[\w+-]+)*/fold_(\d{1,4}|all)/(run|finished)\.json", re.ASCII): 16 * _MB,
}


class Member(Part):
    """A file of a bundle."""

    sha256: str
    num_bytes: int


class Origin(Part):
    """A foundation checkpoint that models started from."""

    name: str
    #: of its weights
    sha256: str
    licence: str


class Bundle(Record):
    """What a bundle holds (bundle.json, its first member)."""

    VERSION: ClassVar[int] = 1

    kind: Kind
    #: of the dataset that was learned from, or of the checkpoint
    name: str
    modality: str
    task: Literal["segmentation", "classification", "unlabelled"]
    #: what others may do with it
    licence: str
    origins: tuple[Origin, ...]
    #: whether all lists of what was seen in pretraining were at hand
    is_seen_complete: bool
    #: version that wrote it
    fmseg: str
    #: all but this one
    files: dict[str, Member]

    def digests(self) -> dict[str, str]:
        """Return member -> SHA-256."""
        return {name: member.sha256 for name, member in self.files.items()}


def check_name(text: str, source: str) -> str:
    """Return the name of a dataset, modality or checkpoint. Raises BadRecord if it could be more than one folder's."""
    if not re.fullmatch(r"\w[\w .+-]*", text) or len(text.encode()) > 200 or text.endswith((" ", ".")):
        raise BadRecord(f"{source}: {text[:80]!r} cannot be the name of a folder. Letters, digits, '-' and '_' can.")
    return text


def check_texts(value: Any, source: str, *, depth: int = 0) -> None:
    """Check that no text of a JSON value could control a terminal, nor its depth a parser. Raises BadRecord."""
    if depth > MAX_DEPTH:
        raise BadRecord(f"{source}: it is nested too deeply. Do not trust whoever made it.")
    if isinstance(value, str) and not all(letter.isprintable() or letter == "\n" for letter in value):
        raise BadRecord(f"{source}: {value[:80]!r} holds control characters. Do not trust whoever made it.")
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        check_texts(part, source, depth=depth + 1)
