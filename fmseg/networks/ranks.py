"""Whether a forward pass may speak with the other ranks.

Sums over ranks inside a forward pass (centres, Sinkhorn-Knopp) need all ranks in the same place. A rank that tries
alone whether a batch fits into its memory must not wait for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

#: the threads of a backward pass must see it too
_is_alone = Event()


def are_ranks_together() -> bool:
    """Return whether there are several ranks, and all of them are doing this."""
    if _is_alone.is_set() or not distributed.is_available():
        return False
    return distributed.is_initialized() and distributed.get_world_size() > 1


@contextmanager
def alone() -> Iterator[None]:
    """Let this rank compute as if there were no other."""
    _is_alone.set()
    try:
        yield
    finally:
        _is_alone.clear()


def local_parts(module: nn.Module) -> list[Tensor]:
    """Return what this rank holds of a module's parameters: all of them, unless they are shared out."""
    return [parameter.to_local() if isinstance(parameter, DTensor) else parameter for parameter in module.parameters()]
