"""Other people's tensors into ours: each is used or named with the reason why not, and nothing is left random."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from fmseg.errors import BadData, UsageError
from fmseg.networks.foreign_files import ForeignFile
from fmseg.networks.sources import sources
from fmseg.networks.sources.recognise import recognise
from fmseg.networks.sources.shapes import architecture_of
from fmseg.networks.sources.source import Candidate, Source, State
from fmseg.networks.sources.timm_files import BY_NAME
from fmseg.networks.vit import ViT
from fmseg.records.plans import Architecture

#: mean and std per channel, of images in [0, 1]
Moments = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of a file."""

    #: name in the table, and the entry as the file completes it
    name: str
    source: Source
    #: under our names, float32, all that a ViT of this architecture has
    state: State
    architecture: Architecture
    mean: tuple[float, ...]
    std: tuple[float, ...]
    #: (tensor, or prefix and number of the tensors below it; why it was not taken)
    dropped: tuple[tuple[str, str], ...]
    #: what was added or changed
    notes: tuple[str, ...]


def convert(
    file: ForeignFile, source: str = "auto", *, num_heads: int | None = None, moments: Moments | None = None
) -> Conversion:
    """Return a file's backbone as ours.

    source: a name of the table, ``timm:MODEL``, or auto. num_heads, moments: where neither the file nor its source
    says them, or to overrule it.
    Raises BadData naming a tensor that is missing, misshapen, not finite or without a place; UsageError if something
    must be typed.
    """
    if source.startswith(BY_NAME):
        file, source = replace(file, config={"architecture": source.removeprefix(BY_NAME)}), "timm"
    name, candidate = recognise(file, source)
    if sources[name].refusal:
        raise BadData(f"{file.path}: these are weights of {sources[name].title}; {sources[name].refusal}.")
    found = replace(sources[name], **sources[name].details(candidate))
    state, theirs, dropped = _rename(found, candidate)
    for needed in found.needs:
        if needed not in state and needed not in found.fold(dict(state), candidate):
            raise BadData(f"{file.path}: the tensor '{_their_name(needed, theirs, found)}' is missing.")
    state = {ours: tensor.float().contiguous() for ours, tensor in found.fold(state, candidate).items()}
    mean, std = _moments(file, found, state, moments)
    architecture = architecture_of(file.path, found, state, num_heads)
    notes = [f"not exact: {found.inexact}"] if found.inexact else []
    if "mask_token" not in state:
        state["mask_token"] = torch.zeros(1, architecture.width)
        notes.append("mask_token is not in the file, and is zeros: only pretraining uses it")
    _verify(file, state, architecture, theirs, found)
    return Conversion(name, found, state, architecture, mean, std, dropped, tuple(notes))


def _rename(source: Source, candidate: Candidate) -> tuple[State, dict[str, str], tuple[tuple[str, str], ...]]:
    """Return the tensors under our names, our names -> theirs, and what was left out."""
    state: State = {}
    theirs: dict[str, str] = {}
    dropped = _outside(candidate)
    for name, tensor in candidate.tensors.items():
        reason = next((why for pattern, why in source.drops if re.match(pattern, name)), None)
        if reason is not None:
            dropped.append((candidate.root + name, reason))
            continue
        ours = our_name(source, name)
        if ours in state:
            raise BadData(f"{candidate.file.path}: '{theirs[ours]}' and '{candidate.root}{name}' are the same tensor.")
        state[ours], theirs[ours] = tensor, candidate.root + name
    return state, theirs, tuple(dropped)


def our_name(source: Source, name: str) -> str:
    """Return what a tensor of a source, named from its root on, is called here before it is folded."""
    for pattern, replacement in source.names:
        name = re.sub(rf"^(?:{pattern})", replacement, name)
    return name


def _outside(candidate: Candidate) -> list[tuple[str, str]]:
    """Return what does not lie below the root, in groups."""
    root = candidate.root.split(".")
    names = [name.split(".") for name in candidate.file.tensors if not name.startswith(candidate.root)]
    # down to where it parts from the root
    depths = [
        next((i for i, (one, other) in enumerate(zip(parts, root, strict=False)) if one != other), 0) for parts in names
    ]
    groups = Counter(".".join(parts[: depth + 1]) for parts, depth in zip(names, depths, strict=True))
    reason = f"not of the backbone, which is {candidate.root}*"
    return [(group if count == 1 else f"{group}.* ({count} tensors)", reason) for group, count in groups.items()]


def _moments(file: ForeignFile, source: Source, state: State, typed: Moments | None) -> tuple[tuple[float, ...], ...]:
    channels = state["patch_embed.proj.weight"].shape[1]
    mean, std = (tuple(values) for values in typed or (source.mean, source.std))
    if (len(mean), len(std)) != (channels, channels) or min(std) <= 0:
        raise UsageError(
            f"{file.path}: it takes images of {channels} channel(s), and mean and std are {mean} and {std}. "
            "Type those of the images in [0, 1] that it was trained with, as in --mean 0.18 --std 0.22"
        )
    return mean, std


def _verify(
    file: ForeignFile, state: State, architecture: Architecture, theirs: dict[str, str], source: Source
) -> None:
    """Raise BadData naming the first tensor that is missing, left over, misshapen or not finite."""
    with torch.device("meta"):
        own = ViT(architecture).state_dict()
    for name in sorted(own.keys() - state.keys()):
        raise BadData(f"{file.path}: the tensor '{_their_name(name, theirs, source)}' is missing.")
    for name in sorted(state.keys() - own.keys()):
        raise BadData(
            f"{file.path}: nothing takes the tensor '{theirs.get(name, name)}', so this ViT is built otherwise than "
            f"those of {source.title}. If it is of another source, type --format."
        )
    for name, tensor in sorted(state.items()):
        if tensor.shape != own[name].shape:
            got, want = tuple(tensor.shape), tuple(own[name].shape)
            raise BadData(f"{file.path}: the tensor '{theirs.get(name, name)}' is {got}, but {want} is needed.")
        if not tensor.isfinite().all():
            raise BadData(f"{file.path}: the tensor '{theirs.get(name, name)}' holds values that are not finite.")


def _their_name(ours: str, theirs: dict[str, str], source: Source) -> str:
    """Return what the file would call one of our tensors: as in another block, else by the source's renames."""
    block = re.match(r"blocks\.(\d+)\.", ours)
    if block:
        for other, name in theirs.items():
            if re.sub(r"^blocks\.\d+\.", block[0], other) == ours:
                return re.sub(r"(blocks|layers?)((?:\.\d+)?)\.\d+\.", rf"\1\2.{block[1]}.", name, count=1)
        return ours
    for pattern, replacement in source.names:
        if ours.startswith(replacement) and not re.search(r"[(*+]", pattern):
            return pattern.replace("\\", "").removesuffix("$") + ours.removeprefix(replacement)
    return ours
