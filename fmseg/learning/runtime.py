"""Where and how a training process computes: device, ranks, precision, seeds, signals.

The only reader of the variables that torchrun sets. CPU tensors travel between ranks over gloo, CUDA tensors
over nccl, so that small agreements of the ranks never wait for the accelerator.
"""

import hashlib
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from fmseg.errors import EnvironmentProblem
from fmseg.files import parse_json, read_json, to_json
from fmseg.records.plans import Precision

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
#: steps that the host may be ahead of the accelerator: enough to keep it busy, few enough to stop soon
STEPS_AHEAD = 2
#: Ranks wait this long for rank 0, which validates alone during training, and tests a benchmark's networks: hours, of
#: many cases. No shorter limit is needed: the launcher ends all ranks when one dies.
PATIENCE = timedelta(days=1)
#: what one device can use of prepared images
MAX_LOADERS = 16
#: numbers of the groups that this process has joined
_groups = count()


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a training process computes on; a value, made once by ``detect``."""

    device: torch.device
    rank: int = 0
    world: int = 1
    precision: Precision = "float32"
    deterministic: bool = True

    @classmethod
    def detect(cls, precision: Precision, *, deterministic: bool | None = None) -> "Runtime":
        """Return the runtime of this process and join the other ranks, if torchrun started several.

        deterministic: by default on a CPU only, where it costs nothing.
        Raises EnvironmentProblem if the device lacks the precision, or if there are fewer devices than ranks.
        """
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        device = _find_device(int(os.environ.get("LOCAL_RANK", "0")))
        _check_precision(device, precision)
        deterministic = device.type == "cpu" if deterministic is None else deterministic
        _set_backends(device, deterministic)
        if world > 1 and not distributed.is_initialized():
            _join(device, rank, world)
        return cls(device, rank, world, precision, deterministic)

    def at(self, precision: Precision) -> "Runtime":
        """Return this runtime with another precision. Raises EnvironmentProblem if the device lacks it."""
        _check_precision(self.device, precision)
        return replace(self, precision=precision)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def num_devices(self) -> int:
        """How many devices compute; processes on one processor share it."""
        return 1 if self.device.type == "cpu" else self.world

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which a forward pass computes in the run's precision."""
        dtype = torch.float16 if self.precision == "float16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.precision != "float32")

    def scaler(self) -> torch.amp.GradScaler:
        """Return the gradient scaler, which does something in float16 only."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")

    def loader_processes(self) -> int:
        """Return how many processes should load data for this rank.

        Beside an accelerator its share of the cores but one. On a CPU one: training itself needs the cores.
        """
        if self.device.type == "cpu":
            return 1
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return max(1, min(_num_cores() // ranks_here - 1, MAX_LOADERS))

    def seed_step(self, seed: int, step: int) -> None:
        """Make all that torch draws in a step (drop path) a function of seed, step and rank alone."""
        digest = hashlib.blake2b(f"{seed} {step} {self.rank}".encode(), digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest, "little") >> 1)  # manual_seed takes 63 bits

    def highest(self, values: list[int]) -> list[int]:
        """Return the element-wise maximum over all ranks, which must all call this."""
        if self.world == 1:
            return values
        together = torch.tensor(values, dtype=torch.int64)
        distributed.all_reduce(together, distributed.ReduceOp.MAX)
        return [int(value) for value in together]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of CPU tensors over all ranks, which must all call this."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def from_main(self, text: str) -> str:
        """Return rank 0's text on all ranks, which must all call this."""
        return self._from(0, text)

    def gathered(self, text: str) -> list[str]:
        """Return the text of each rank on all ranks, which must all call this."""
        return [self._from(rank, text) for rank in range(self.world)]

    def _from(self, rank: int, text: str) -> str:
        if self.world == 1:
            return text
        content = text.encode() if self.rank == rank else b""
        (size,) = self.highest([len(content)])
        letters = torch.zeros(size, dtype=torch.uint8)
        if content:
            letters = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        distributed.broadcast(letters, rank)
        return letters.numpy().tobytes().decode()

    def make_alike(self, model: torch.nn.Module) -> None:
        """Give all ranks the weights that the model has on rank 0; all must call this."""
        for tensor in model.state_dict().values() if self.world > 1 else ():
            distributed.broadcast(tensor, 0)

    def read_main(self, path: Path) -> Any:
        """Return a JSON file as rank 0 reads it; others may see it late, on a network disk. All ranks must call this.

        Raises BadRecord as ``read_json`` does, on rank 0.
        """
        return parse_json(self.from_main(to_json(read_json(path)).decode() if self.is_main else "").encode(), str(path))

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.highest([0])

    def close(self) -> None:
        """Leave the group of ranks."""
        if self.world > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


class Pace:
    """Keeps the host at most ``STEPS_AHEAD`` steps ahead of a CUDA device.

    Waiting for a step that is long past costs nothing; without it, hundreds of steps could be queued when a
    signal comes, and the time spent waiting for data would mean nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self.is_needed = device.type == "cuda"
        self.events: deque[torch.cuda.Event] = deque()

    def step(self) -> None:
        """Note the end of a step, and wait for the end of an earlier one."""
        if not self.is_needed:
            return
        event = torch.cuda.Event()
        event.record()
        self.events.append(event)
        if len(self.events) > STEPS_AHEAD:
            self.events.popleft().synchronize()


@dataclass(slots=True)
class StopRequest:
    """Which signal asked this process to stop; 0 while none did."""

    signal_number: int = 0


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Note SIGTERM, SIGINT and SIGUSR1 instead of dying of them; a second Ctrl-C acts at once, as ever.

    Does nothing outside the main thread, where Python delivers no signals.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        request.signal_number = number
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _join(device: torch.device, rank: int, world: int) -> None:
    """Join the other ranks, for the first time or again: each fold of a training is a group of its own."""
    is_cuda = device.type == "cuda"
    store, *_ = next(rendezvous("env://", rank, world, timeout=PATIENCE))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if is_cuda else "gloo",
        # what an earlier group has left in the launcher's store would be taken for the addresses of this one
        store=PrefixStore(f"group {next(_groups)}", store),
        rank=rank,
        world_size=world,
        timeout=PATIENCE,
        device_id=device if is_cuda else None,
    )


def _find_device(local_rank: int) -> torch.device:
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        if local_rank >= count:
            raise EnvironmentProblem(
                f"Process {local_rank + 1} of this machine has no CUDA device: there are {count}. "
                f"Start torchrun with --nproc_per_node={count}."
            )
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _num_cores() -> int:
    # what the scheduler gave us, where that can be asked, not what the machine has
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_precision(device: torch.device, precision: Precision) -> None:
    if precision == "float16" and device.type != "cuda":
        raise EnvironmentProblem(
            f"Training in float16 needs a CUDA device; here is a {device.type}. Set precision to bfloat16."
        )
    is_native = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and not is_native:
        name = torch.cuda.get_device_name(device)
        raise EnvironmentProblem(f"{name} has no bfloat16. Set precision to float16.")


def _set_backends(device: torch.device, deterministic: bool) -> None:
    if deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    torch.use_deterministic_algorithms(deterministic)
    # filling new memory finds reads of it, which is a debugging aid that costs a pass over every tensor
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
    torch.set_float32_matmul_precision("highest" if deterministic else "high")
