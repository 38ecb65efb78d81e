"""``--gpus 8``: this command once more in eight processes of this machine, one a device.

torch's elastic launcher starts and watches them, as ``torchrun`` does; when one dies, all end.
"""

import logging
import os
import sys
from collections.abc import Sequence
from typing import TypeGuard

from fmseg.cli.frame import Output
from fmseg.errors import EnvironmentProblem, Interrupted, UsageError

logger = logging.getLogger(__name__)

#: handed on to the processes, which save a checkpoint and leave
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
#: how long torch waits after such a signal before it kills them; releases that do not know it wait for 30 s
SAVING_TIME = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
#: a step and a checkpoint take longer than torch's 30 s, and who is in a hurry (a scheduler) kills by itself
SAVING_S = 3600


def is_rank() -> bool:
    """Return whether a launcher has started this process as one of several, or as the only one."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def must_launch(gpus: int | None) -> TypeGuard[int]:
    """Return whether ``--gpus`` asks for processes that are not there yet.

    Raises UsageError or EnvironmentProblem if there are fewer devices than asked for.
    """
    if gpus is None or is_rank():
        return False
    if gpus < 1:
        raise UsageError(f"--gpus {gpus}: type how many GPUs to use, as in --gpus 2.")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count and gpus > count:
        raise EnvironmentProblem(f"--gpus {gpus}: this machine has {count}. Type --gpus {count}, or leave it out.")
    if not count and gpus > 1:
        logger.warning("There is no GPU here: %d processes share the processor, which is for tests only.", gpus)
    return gpus > 1


def launched(gpus: int) -> Output:
    """Return what this command's processes leave to say: nothing, the first of them has said it."""
    return Output(None, exit_code=launch(gpus), is_told=True)


def launch(gpus: int, arguments: Sequence[str] | None = None) -> int:
    """Run ``fmseg`` with these arguments in ``gpus`` processes; return the exit code of the first one that failed.

    arguments: without ``--gpus``; by default those of this process.
    Raises Interrupted after a signal, when the processes have saved and left.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    typed = without_gpus(sys.argv[1:]) if arguments is None else list(arguments)
    # threads of all processes together: one a core
    os.environ.setdefault("OMP_NUM_THREADS", str(max(_num_cores() // gpus, 1)))
    os.environ.setdefault(SAVING_TIME, str(SAVING_S))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=gpus,
        run_id=f"fmseg-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        signals_to_handle=SIGNALS,
    )
    # the launcher's own words about what a process has already said are of no use to anybody
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        elastic_launch(config, sys.executable)("-m", "fmseg", *typed)
    except ChildFailedError as error:
        return max(error.get_first_failure()[1].exitcode, 1)
    except SignalException as error:
        raise Interrupted(
            f"Stopped by {error.sigval.name}. Run the same command again to go on.", error.sigval
        ) from error
    return 0


def without_gpus(arguments: Sequence[str]) -> list[str]:
    """Return a command line without ``--gpus N``, which its processes must not see."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--gpus":
            next(rest, None)
        elif not argument.startswith("--gpus="):
            kept.append(argument)
    return kept


def _num_cores() -> int:
    from fmseg.planning.hardware import num_cores

    return num_cores()
