"""What a run must remember between two steps, as flat tensors and back, bit for bit.

Parameters, buffers, the optimizer's moments by parameter name, the gradient scaler. Schedules, the order of
the data and all that is random are functions of the step, and need no memory.

All ranks call ``pack``, one of them writes: parameters that are shared out among the ranks are gathered here, and cut
again for whoever reads them. So a checkpoint does not depend on how many ranks there were.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fmseg.errors import BadData
from fmseg.learning.parallel import part_of, whole

TASK, OPTIMIZER = "task.", "optimizer."


def pack(
    task: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state as named tensors (not copied) and JSON values."""
    tensors = {TASK + name: whole(tensor) for name, tensor in task.state_dict().items()}
    for name, parameter in _trained(task, optimizer).items():
        moments = optimizer.state.get(parameter, {}).items()
        tensors |= {f"{OPTIMIZER}{key}.{name}": whole(value) for key, value in moments if isinstance(value, Tensor)}
    return tensors, {"scaler": scaler.state_dict()}


def unpack(
    tensors: dict[str, Tensor],
    values: dict[str, Any],
    task: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write what ``pack`` returned into a freshly made task, optimizer and scaler.

    Raises BadData if the state is of another model.
    """
    own = {name.removeprefix(TASK): tensor for name, tensor in tensors.items() if name.startswith(TASK)}
    there = task.state_dict()
    own = {name: part_of(tensor, there[name]) if name in there else tensor for name, tensor in own.items()}
    try:
        task.load_state_dict(own)
    except RuntimeError as error:
        raise BadData(
            f"The checkpoint is of another model than this run's ({error}). Start over with --fresh."
        ) from error
    state = _optimizer_state(tensors, _trained(task, optimizer))
    # its groups are written anew in every step; only the moments come from the checkpoint
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    scaler.load_state_dict(values["scaler"])


def _trained(task: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """Return the optimizer's parameters by name, in its own order."""
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    return {names[id(p)]: p for group in optimizer.param_groups for p in group["params"]}


def _optimizer_state(tensors: dict[str, Tensor], trained: dict[str, nn.Parameter]) -> dict[int, dict[str, Tensor]]:
    positions = {name: index for index, name in enumerate(trained)}
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        if not full_name.startswith(OPTIMIZER):
            continue
        key, name = full_name.removeprefix(OPTIMIZER).split(".", 1)
        if tensor.shape == trained[name].shape:
            # in the parameter's memory format, which fused kernels rely on
            own = torch.empty_like(trained[name], dtype=tensor.dtype)
            tensor = own.copy_(part_of(tensor, trained[name]))
        state.setdefault(positions[name], {})[key] = tensor
    return state
