"""Several ranks as one: gradients averaged (DDP), or parameters shared out among the ranks (FSDP)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from fmseg.learning.memory import Batch
from fmseg.learning.runtime import Runtime


class Loss(nn.Module):
    """A task whose loss is its forward pass, as DistributedDataParallel wants it."""

    def __init__(self, task: Any) -> None:
        super().__init__()
        self.task = task

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and the values to log."""
        return self.task.training_loss(batch, step)


def distribute(task: Any, runtime: Runtime) -> nn.Module:
    """Return the loss as a module; with several ranks, one that averages their gradients."""
    loss = Loss(task)
    if runtime.world == 1 or is_sharded(task):
        return loss
    if runtime.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(loss)
    return DistributedDataParallel(
        loss,
        # synchronised norms keep buffers equal, and those of averaged copies are large
        broadcast_buffers=False,
        # a mask token has no gradient where nothing is masked
        find_unused_parameters=True,
        gradient_as_bucket_view=True,
    )


def is_sharded(task: nn.Module) -> bool:
    """Return whether the parameters of a task are shared out among the ranks."""
    return isinstance(task, FSDPModule)


def without_sync(loss: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which gradients add up on each rank, and do not travel."""
    if isinstance(loss, DistributedDataParallel):
        return loss.no_sync()
    task = loss.task
    return _sharded_without_sync(task) if isinstance(task, FSDPModule) else nullcontext()


@contextmanager
def _sharded_without_sync(task: FSDPModule) -> Iterator[None]:
    task.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        task.set_requires_gradient_sync(True)
