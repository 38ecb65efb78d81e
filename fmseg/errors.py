"""What can go wrong, in the user's words.

Every message says what is wrong (with the value), where, and how to mend it. ``cli`` prints the message
without a traceback and leaves with the class's exit code; any other exception is a bug of ours.
"""

from signal import SIGINT

#: what plain RuntimeErrors say of memory: of torch's CPU allocator, CUDA, its libraries, and Apple's devices
OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "STATUS_ALLOC_FAILED",  # cuBLAS and its like
    "unable to find an engine to execute this computation",  # a convolution, whose every algorithm wants memory
    "MPS backend out of memory",
)


class FmsegError(Exception):
    """Parent of all errors that reach the user as one message."""

    exit_code = 1


class UsageError(FmsegError):
    """A command was typed wrongly: an unknown name, an impossible combination of options."""

    exit_code = 2


class UnknownName(UsageError):
    """A registry, a workspace or a set of options has nothing of that name."""


class NotReady(UsageError):
    """An earlier step is missing; the message names the command that makes it."""


class BadData(FmsegError):
    """The user's images, labels or tables are wrong; nothing was written."""

    exit_code = 3


class BadRecord(BadData):
    """A JSON file of ours or of the user's does not say what it must."""


class EnvironmentProblem(FmsegError):
    """The machine lacks something: disk, memory, a device, an optional package, a permission."""

    exit_code = 4


class Busy(EnvironmentProblem):
    """Another process is at work there."""


class Interrupted(FmsegError):
    """A signal asked the program to stop; what was done so far is saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        # as shells report it; a batch system's SIGUSR1 is a request to end, like SIGTERM
        self.exit_code = 130 if signal_number == SIGINT else 143


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device, or the host, has no memory left; knows torch's without torch."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
