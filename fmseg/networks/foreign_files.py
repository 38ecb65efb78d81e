"""Files of weights that others wrote: the one place that opens them, and only their tensors come out.

A PyTorch file may name any function to be called while it is read. Here whatever is neither tensor nor plain container
becomes an empty stand-in, so that a training checkpoint with its arguments and its log opens too, and nothing of it
runs.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor

from fmseg.errors import BadData
from fmseg.files import read_json
from fmseg.networks.tensors import read_tensors

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
#: modules and functions that weights never need, and that a file made to run code does
ACTING = re.compile(
    r"(os|posix|nt|subprocess|sys|shutil|socket|importlib|runpy|ctypes|pty|code|pdb|pickle|_pickle|urllib|http|webbrowser)"
    r"(\..*)?|(builtins|__builtin__)\.(eval|exec|execfile|compile|open|__import__|getattr|setattr|input|breakpoint)"
)


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
    path = weights_file(path)
    value = read_tensors(path, must_be_finite=False) if path.suffix == ".safetensors" else _read_torch(path)
    tensors = dict(_flatten(value, "", MAX_DEPTH))
    if not tensors:
        raise BadData(f"{path}: there are no tensors in it. Take the file of the weights, not of the whole model.")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BadData(f"{path}: the tensor '{name}' holds values that are no numbers. Download it again.")
    return ForeignFile(path, tensors, read_config(path), _beside(path, "preprocessor_config.json"))


def weights_file(path: Path) -> Path:
    """Return the file itself, of a folder the one that its weights usually lie in. Raises BadData if there is none."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise BadData(f"{path}: there is no such file. Type the path of a file of weights, or of its folder.")
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    raise BadData(f"{path}: none of {', '.join(WEIGHT_FILES)} is in it. Type the path of the file itself.")


def read_config(path: Path) -> dict[str, Any]:
    """Return what the JSON file beside a file of weights, or in their folder, says; {} if there is none."""
    return _beside(weights_file(path), *CONFIGS)


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
        if bad := next(filter(ACTING.fullmatch, unknown), None):
            raise ValueError(f"it would call {bad}")
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_StandIn, name) for name in unknown]):
            warnings.simplefilter("ignore")  # of the protocol that was pickled with
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadData(
            f"{path}: this is not a file of weights that can be opened safely ({reason}). "
            "Download it again, or save its state_dict alone with safetensors."
        ) from error
