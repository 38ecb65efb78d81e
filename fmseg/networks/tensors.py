"""The one place where a file of tensors is read: safetensors, checked before and after.

The format cannot run code, and its library checks lengths, offsets and overlaps. It takes the last of two equal keys
without a word, though, and any number for a weight; both are refused here.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmseg.errors import BadRecord
from fmseg.files import parse_json

#: of the length of the header, at the beginning of a file
LENGTH_BYTES = 8
#: as the format has it
MAX_HEADER_BYTES = 100_000_000
#: key of the header that is no tensor
METADATA = "__metadata__"
MEND = "Copy it again, or make it anew."


def read_tensors(path: Path, *, must_be_finite: bool = True) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Raises BadRecord naming the file if it is missing or damaged, says a name twice, or holds values that are no
    numbers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_header(path)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise BadRecord(f"{path}: this is not a safetensors file ({error}). {MEND}") from error
    for name in sorted(tensors) if must_be_finite else ():
        if tensors[name].is_floating_point() and not torch.isfinite(tensors[name]).all():
            raise BadRecord(f"{path}: the tensor '{name}' holds values that are no numbers. {MEND}")
    return tensors


def read_shapes(path: Path, where: str) -> dict[str, tuple[int, ...]]:
    """Return name -> shape from the header alone.

    Raises BadRecord as ``read_tensors`` does; ``where`` names the file.
    """
    from safetensors import SafetensorError, safe_open

    read_header(path, where)
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadRecord(f"{where}: this is not a safetensors file ({error}). {MEND}") from error


def read_header(path: Path, where: str = "") -> dict[str, Any]:
    """Return what a safetensors file says of its tensors, and its metadata under ``__metadata__``.

    Raises BadRecord as ``read_tensors`` does; ``where`` names the file if its path should not be told.
    """
    where = where or str(path)
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            if size < LENGTH_BYTES or length > min(size - LENGTH_BYTES, MAX_HEADER_BYTES):
                raise BadRecord(f"{where}: this is not a safetensors file (its header does not fit into it). {MEND}")
            header = parse_json(file.read(length), f"{where}: this is not a safetensors file: its header")
    except FileNotFoundError as error:
        raise BadRecord(f"{where}: there is no such file. {MEND}") from error
    except IsADirectoryError as error:
        raise BadRecord(f"{where}: this is a folder, not a safetensors file. {MEND}") from error
    if not isinstance(header, dict):
        raise BadRecord(f"{where}: this is not a safetensors file (its header is no object). {MEND}")
    return header
