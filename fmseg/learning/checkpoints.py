"""Checkpoints: a safetensors file and the JSON that vouches for it.

The JSON names the SHA-256 of the tensors and is renamed last, so that it marks a checkpoint as complete. Two
numbered checkpoints are kept: the last one may be damaged by what stopped the run. One found damaged is set
aside under ``.damaged``, the one before is used, and if there is none the run does not silently start anew.
"""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmseg.errors import BadData, BadRecord, FmsegError
from fmseg.files import read_json, sha256, sha256_file, write_json, writing
from fmseg.networks.tensors import read_tensors

logger = logging.getLogger(__name__)

VERSION = 1
KEPT = 2
DAMAGED = ".damaged"

Loaded = tuple[int, dict[str, Tensor], dict[str, Any]]


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: dict[str, Tensor],
    values: dict[str, Any],
    *,
    name: str | None = None,
) -> None:
    """Write a checkpoint, then remove all numbered ones but the last two.

    values: anything that JSON can say, without NaN. A checkpoint with a ``name`` is never removed, and
    ``load_latest`` does not look at it.
    Raises FmsegError, and writes nothing, if a tensor holds a value that is not finite.
    """
    from safetensors.torch import save_file

    _check_finite(step, tensors)
    stem = f"step_{step:08d}" if name is None else name
    stored, aliases = _without_aliases(tensors)
    path = folder / f"{stem}.safetensors"
    with writing(path) as temporary:
        save_file(stored, temporary)
        digest = sha256_file(temporary)
    content = {"version": VERSION, "step": step, "tensors": digest, "aliases": aliases, "values": values}
    write_json(folder / f"{stem}.json", content | {"sha256": _digest(content)})
    if name is None:
        remove_old(folder)


def load_checkpoint(folder: Path, name: str) -> Loaded:
    """Return step, tensors (on the CPU) and values. Raises BadData naming the file if it is damaged."""
    path = folder / f"{name}.json"
    tensor_path = folder / f"{name}.safetensors"
    content = read_json(path)
    if not isinstance(content, dict) or content.pop("sha256", None) != _digest(content):
        raise BadRecord(f"{path}: its content does not fit its checksum.")
    if content["version"] > VERSION:
        raise FmsegError(f"{path}: this checkpoint was written by a newer fmseg. Update fmseg.")
    if not tensor_path.exists():
        raise BadData(f"{tensor_path}: there is no such file, though {path.name} names it.")
    if sha256_file(tensor_path) != content["tensors"]:
        raise BadData(f"{tensor_path}: its content does not fit its checksum.")
    tensors = read_tensors(tensor_path, must_be_finite=False)  # they were when they were saved
    tensors |= {alias: tensors[original] for alias, original in content["aliases"].items()}
    return content["step"], tensors, content["values"]


def load_latest(folder: Path) -> Loaded | None:
    """Return the newest numbered checkpoint that is whole, None if there never was one.

    Raises BadData if there were checkpoints and all of them are damaged.
    """
    for path in reversed(_numbered(folder)):
        try:
            return load_checkpoint(folder, path.stem)
        except BadData as error:
            _set_aside(folder, path.stem)
            logger.warning("%s It is set aside as %s%s.", error, path.name, DAMAGED)
    damaged = sorted(path.name for path in folder.glob(f"step_*.json{DAMAGED}"))
    if damaged:
        raise BadData(
            f"{folder}: no checkpoint can be read ({', '.join(damaged)}). "
            "Restore one from a backup, or start over with --fresh."
        )
    return None


def _numbered(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*.json"))


def _digest(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode())


def _check_finite(step: int, tensors: dict[str, Tensor]) -> None:
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    flags = [torch.isfinite(tensor).all() for tensor in floating.values()]
    if not flags or bool(torch.stack([flag.to(flags[0].device) for flag in flags]).all()):
        return
    wrong = [name for name, flag in zip(floating, flags, strict=True) if not flag]
    raise FmsegError(
        f"Step {step}: values that are not finite in {len(wrong)} tensors, as in {wrong[0]}. They were not saved; "
        "the checkpoint before is still there. Lower the learning rate, or train in float32."
    )


def _without_aliases(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return CPU tensors that share no memory, and which names meant one and the same tensor (tied weights)."""
    first_names: dict[tuple[Any, ...], str] = {}
    storages: set[int] = set()
    stored, aliases = {}, {}
    for name, tensor in tensors.items():
        view = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and view in first_names:
            aliases[name] = first_names[view]
            continue
        first_names[view] = name
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        stored[name] = own.clone() if storage in storages else own
        storages.add(storage)
    return stored, aliases


def _set_aside(folder: Path, stem: str) -> None:
    for path in (folder / f"{stem}.json", folder / f"{stem}.safetensors"):
        if path.exists():
            path.rename(path.with_name(path.name + DAMAGED))


def remove_old(folder: Path) -> None:
    """Remove all numbered checkpoints but the newest, and what a kill left half written."""
    kept = {path.stem for path in _numbered(folder)[-KEPT:]}
    # the JSON goes first: what is left without one was never, or is no longer, a checkpoint
    # half written: ours, and what safetensors calls its own
    stale = (*folder.glob(".*.tmp"), *folder.glob(".tmp*"))
    for path in (*_numbered(folder), *sorted(folder.glob("step_*.safetensors")), *stale):
        if path.stem not in kept:
            path.unlink()
