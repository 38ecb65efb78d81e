"""Files of weights that others wrote: the one place that opens them, and only their tensors come out.

A PyTorch file may name any function to be called while it is read. Here whatever is neither tensor nor plain container
becomes an empty stand-in, so that a training checkpoint with its arguments and its log opens too, and nothing of it
runs.
"""

import json
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fmseg.errors import BadData
from fmseg.files import read_json

#: what a folder of weights holds, the first one that is there
WEIGHT_FILES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
#: what says how such weights were made
CONFIGS = ("config.json", "open_clip_config.json")
#: containers inside containers are followed so far
MAX_DEPTH = 8
#: a header longer than this is no header
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """The tensors of a file under dotted names, such as ``teacher.backbone.cls_token``, and what lies beside it."""

    path: Path
    tensors: dict[str, Tensor]
    #: config.json or open_clip_config.json of its folder; empty if there is none
    config: dict[str, Any]
    #: preprocessor_config.json of its folder; empty if there is none
    preprocessing: dict[str, Any]


def read_foreign(path: Path) -> ForeignFile:
    """Read a file of weights, or a folder that holds one under a usual name.

    Raises BadData if it is damaged, holds no tensors, or a tensor that cannot be used.
    """
    if path.is_dir():
        path = _file_in(path)
    if not path.is_file():
        raise BadData(f"{path}: there is no such file. Type the path of a file of weights, or of its folder.")
    value = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    tensors = dict(_flatten(value, "", MAX_DEPTH))
    if not tensors:
        raise BadData(f"{path}: there are no tensors in it. Take the file of the weights, not of the whole model.")
    return ForeignFile(path, tensors, _beside(path, *CONFIGS), _beside(path, "preprocessor_config.json"))


def _file_in(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).exists():
            return folder / name
    raise BadData(f"{folder}: none of {', '.join(WEIGHT_FILES)} is in it. Type the path of the file itself.")


def _beside(path: Path, *names: str) -> dict[str, Any]:
    for name in names:
        if (path.parent / name).is_file():
            value = read_json(path.parent / name)
            return value if isinstance(value, dict) else {}
    return {}


def _flatten(value: Any, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield prefix, value.detach()
    elif isinstance(value, Mapping) and depth:
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key), depth - 1)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER_BYTES + 1
        header = file.read(length) if length <= MAX_HEADER_BYTES else b""
    try:
        # of two tensors of one name, readers would each take another
        json.loads(header, object_pairs_hook=lambda pairs: _once(path, pairs))
        return load_file(path)
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadData(f"{path}: this is not a safetensors file ({error}). Download it again.") from error


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadData(f"{path}: the tensor '{name}' is there twice. Ask its author for a sound file.")
        found[name] = value
    return found


class _StandIn:
    """What stands for anything that is not a tensor: it takes all, and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __new__(cls, *_: Any, **__: Any) -> "_StandIn":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def _read_torch(path: Path) -> Any:
    try:
        is_zip = is_zipfile(path)
        # files of before PyTorch 1.6 do not say beforehand what they hold
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(str(path)) if is_zip else []
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_StandIn, name) for name in unknown]):
            warnings.simplefilter("ignore")  # of the protocol that was pickled with
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        raise BadData(
            f"{path}: this is not a file of weights that can be opened safely ({str(error).splitlines()[0]}). "
            "Download it again, or save its state_dict alone with safetensors."
        ) from error
