"""Several ranks as one: gradients averaged (DDP), or parameters shared out among the ranks (FSDP)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from fmseg.learning.memory import Batch
from fmseg.learning.runtime import Runtime
from fmseg.networks.block import Block
from fmseg.networks.ranks import are_ranks_together

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
    for module in (*(each for each in task.modules() if isinstance(each, Block)), task):
        sharded: Any = fully_shard(module, mesh=mesh)  # what it wants of the next two has no public type
        sharded.set_custom_all_gather(_Gather())
        sharded.set_custom_reduce_scatter(_Scatter())
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


def can_try_alone(task: nn.Module) -> bool:
    """Return whether a rank can find out by itself if a batch fits.

    With shards from some release of torch on; never with batch norms over all ranks, which would wait for the others.
    """
    if any(isinstance(module, nn.SyncBatchNorm) for module in task.modules()):
        return False
    return not is_sharded(task) or hasattr(task, "reset_iter_state")


def recover(task: nn.Module) -> None:
    """Leave a sharded task as it was before a pass that failed, or does not count; others need nothing.

    Only for a rank that is alone: shards are gathered on the way.
    """
    if not isinstance(task, FSDPModule):
        return
    task.reset_iter_state()
    for module in task.modules():
        if isinstance(module, FSDPModule):
            # what a broken backward pass left on the whole parameters would be added to the next one
            module.unshard()
            for parameter in module.parameters():
                parameter.grad = None
            module.reshard()


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


class _Memory:
    """Memory for what ranks tell each other."""

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return an empty tensor."""
        return torch.empty(*size, dtype=dtype, device=device)


class _Gather(_Memory):
    """How FSDP gathers shards; a rank that is alone takes its own for all of them, which needs the same memory."""

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: distributed.ProcessGroup,
        async_op: bool = False,
    ) -> distributed.Work | None:
        if are_ranks_together():
            return distributed.all_gather_into_tensor(output_tensor, input_tensor, group, async_op)
        for shard in output_tensor.view(-1, input_tensor.numel()):
            if shard.data_ptr() != input_tensor.data_ptr():  # FSDP may have put it in its place
                shard.copy_(input_tensor)
        return None


class _Scatter(_Memory):
    """How FSDP adds up gradients and shares them out; a rank that is alone keeps its part of its own."""

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: distributed.ProcessGroup,
        op: distributed.ReduceOp,
        async_op: bool = False,
    ) -> distributed.Work | None:
        if are_ranks_together():
            return distributed.reduce_scatter_tensor(output_tensor, input_tensor, op, group, async_op)
        output_tensor.copy_(input_tensor.flatten()[: output_tensor.numel()].view_as(output_tensor))
        return None
