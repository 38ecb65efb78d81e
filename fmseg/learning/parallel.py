"""Several ranks as one: gradients averaged (DDP), or parameters shared out among the ranks (FSDP)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from fmseg.learning.memory import Batch
from fmseg.learning.runtime import Runtime
from fmseg.networks.block import Block

M = TypeVar("M", bound=nn.Module)


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


def shard(task: nn.Module, runtime: Runtime) -> None:
    """Share out a task's parameters among the ranks: layer by layer, then all that is left (FSDP2) [1].

    Before the optimizer is made, which must see the shards. Trained and averaged copies are cut alike.
    [1] Zhao et al., PyTorch FSDP, 2023. https://arxiv.org/abs/2304.11277
    """
    mesh = init_device_mesh(runtime.device.type, (runtime.world,))
    for module in task.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh)
    fully_shard(task, mesh=mesh)
    # gathers and lets go around this method too, not only around forward
    register_fsdp_forward_method(task, "training_loss")


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that is shared out among the ranks as one; all ranks must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(task: M, make: Callable[[], M]) -> M:
    """Return a task whose parameters are whole: itself, or a new one that takes over what the ranks hold together."""
    if not is_sharded(task):
        return task
    state = {name: whole(tensor) for name, tensor in task.state_dict().items()}
    plain = make()
    plain.load_state_dict(state)
    return plain


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this rank's share of a whole tensor, cut as ``like`` is; the tensor itself if that is whole."""
    if not isinstance(like, DTensor):
        return tensor
    # every rank has read the whole, so nothing need travel
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


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
