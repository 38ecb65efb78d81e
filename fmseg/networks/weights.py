"""Weights of a backbone to a file and back.

A file is used whole or not at all: each of its tensors must find its place, and each place its tensor.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fmseg.errors import BadRecord
from fmseg.files import sha256_file, writing
from fmseg.networks.sources.adapt import fit_channels
from fmseg.networks.tensors import METADATA, read_header, read_tensors
from fmseg.networks.vit import ViT
from fmseg.records.foundation import CARD, WEIGHTS, Foundation
from fmseg.records.plans import Architecture

#: of a weight; those of 8 bits have as many
MIN_BYTES = 1
#: key of what else is said in a file of weights
NOTE = "note"


def save_backbone(vit: ViT, folder: Path) -> str:
    """Write backbone.safetensors into ``folder``, float32; return the file's SHA-256."""
    return save_weights(vit, folder / WEIGHTS)


def save_weights(vit: ViT, path: Path, note: Mapping[str, Any] | None = None) -> str:
    """Write a backbone, float32, with a note in the same file; return the file's SHA-256."""
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in vit.state_dict().items()}
    with writing(path) as temporary:
        # a single entry: the order of several is another one in each process
        save_file(tensors, temporary, None if note is None else {NOTE: json.dumps(note, sort_keys=True)})
    return sha256_file(path)


def read_note(path: Path) -> dict[str, Any]:
    """Return the note of a file of ``save_weights``. Raises BadRecord if the file is damaged or has none."""
    try:
        note: dict[str, Any] = json.loads(read_header(path)[METADATA][NOTE])
    except (KeyError, TypeError, BadRecord, json.JSONDecodeError) as error:
        raise BadRecord(f"{path}: this is no file of weights with a note ({error}). Remove it.") from error
    return note


def load_backbone(folder: Path, channels: int | None = None) -> tuple[ViT, Foundation]:
    """Return the backbone of a foundation checkpoint, and its card: of both, what fits images of so many channels.

    channels: None for those that it was made for.
    Raises BadRecord if a file is missing or damaged, or if the weights are not those of the card's architecture.
    """
    card, path = Foundation.load(folder / CARD), folder / WEIGHTS
    if not path.exists():
        raise BadRecord(f"{path}: there is no such file. Copy the whole folder of the checkpoint again.")
    if sha256_file(path) != card.weights_sha256:
        raise BadRecord(f"{path}: these are not the weights that {CARD} was written for. Copy the folder again.")
    state = read_tensors(path)
    need_weights_for(card.architecture, path)
    fitted = card.for_channels(channels or card.architecture.channels)
    if fitted is not card:
        state = fit_channels(state, card.mean, card.std, fitted.architecture.channels)
    vit = ViT(fitted.architecture)
    load_weights(vit, state, str(path))
    return vit, fitted


def built(architecture: Architecture, state: Mapping[str, Tensor]) -> ViT:
    """Return a ViT of these weights and no others: none of it was ever random."""
    with torch.device("meta"):
        vit = ViT(architecture)
    vit.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, assign=True)
    return vit.requires_grad_(True)


def need_weights_for(architecture: Architecture, path: Path) -> None:
    """Refuse an architecture that is much larger than its file of weights, before memory is asked for."""
    if architecture.min_parameters * MIN_BYTES > path.stat().st_size:
        size = f"at least {architecture.min_parameters:,} weights, and the file has {path.stat().st_size:,} bytes"
        raise BadRecord(f"{path}: its architecture has {size}. Copy the whole folder again.")


def load_weights(vit: ViT, state: Mapping[str, Tensor], source: str) -> None:
    """Copy every tensor of ``state`` into ``vit``.

    Raises BadRecord naming ``source`` and the first tensor that is missing, left over, or of another shape.
    """
    own = vit.state_dict()
    for name in sorted(own.keys() | state.keys()):
        if name not in state:
            raise BadRecord(f"{source}: the tensor '{name}' is missing. Is the architecture the right one?")
        if name not in own:
            raise BadRecord(f"{source}: nothing takes the tensor '{name}'. Is the architecture the right one?")
        want, got = tuple(own[name].shape), tuple(state[name].shape)
        if want == got:
            continue
        if name == "patch_embed.proj.weight" and want[1] != got[1]:
            raise BadRecord(
                f"{source}: made for images of {got[1]} channel(s), but {want[1]} are asked for. "
                f"Take a checkpoint of {want[1]} channel(s)."
            )
        raise BadRecord(f"{source}: the tensor '{name}' is {got}, but {want} is needed. Is the architecture right?")
    vit.load_state_dict(dict(state))
