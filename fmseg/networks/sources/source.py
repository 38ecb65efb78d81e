"""What there is to know of a source of weights: how it is recognised, what its tensors are called, what it expects."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from fmseg.networks.foreign_files import ForeignFile
from fmseg.registry import Registry

State = dict[str, Tensor]
#: (what a name looks like, what replaces it or why it is left out); regular expressions, from its start
Renames = tuple[tuple[str, str], ...]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
#: width -> heads of the ViTs in use; others must say it themselves
USUAL_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1536: 24, 1664: 16}


@dataclass(frozen=True)
class Candidate:
    """A file seen as a backbone below one prefix of its tensors' names, such as ``teacher.backbone.``."""

    file: ForeignFile
    root: str

    @cached_property
    def tensors(self) -> State:
        """Return what lies below the root, under its names there."""
        cut = len(self.root)
        return {name[cut:]: tensor for name, tensor in self.file.tensors.items() if name.startswith(self.root)}

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor below the root; () if there is none."""
        return tuple(self.tensors[name].shape) if name in self.tensors else ()

    def any_name(self, pattern: str) -> bool:
        """Return whether some tensor of the whole file has a name that contains ``pattern``."""
        return any(re.search(pattern, name) for name in self.file.tensors)


def keep(state: State, candidate: Candidate) -> State:
    """Return the tensors as they are."""
    return state


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where weights come from. One entry of the table in docs/reference/weights.md."""

    title: str
    #: where to get them
    where: str
    #: as its authors state it
    licence: str
    #: whether it allows commercial use; None where that depends on the file
    commercial: bool | None = True
    #: what the weights have learned from: natural, ultrasound, ...
    modality: str = "natural"
    #: why such files cannot be used; empty for those that can
    refusal: str = ""
    #: what it was compared with
    verified: str = ""
    #: what is no more than close, or assumed; said on import
    inexact: str = ""

    #: the tensor that every such backbone has, below its prefix
    stem: str = "patch_embed.proj.weight"
    #: whether a file is of this source, by its names, shapes, values, and what lies beside it
    fits: Callable[[Candidate], bool] = field(default=lambda candidate: False)
    #: what the file's name must contain to be told from sources whose files are built alike
    file_name: str = ""
    names: Renames = ()
    drops: Renames = ()
    #: our names of what must be there besides the blocks
    needs: tuple[str, ...] = ()
    #: what renaming alone cannot do, after it
    fold: Callable[[State, Candidate], State] = keep
    #: what the file itself says of the fields below
    details: Callable[[Candidate], Mapping[str, Any]] = field(default=lambda candidate: {})

    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    #: side in pixels of the images that it was trained on
    input_px: int = 224
    interpolation: Literal["size", "offset"] = "size"
    antialias: bool = False
    eps: float = 1e-6
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    num_heads: int | None = None


sources: Registry[Source] = Registry("source of weights")
