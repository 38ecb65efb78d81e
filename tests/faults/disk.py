"""A disk that fails, or a power cut, at the n-th thing that a command does to its files.

A command runs in a forked child, with all modules imported, so that a hundred runs take seconds. Events are what
changes files below one folder: opening for writing, flushing to the disk, renaming, removing, making a folder.
"""

import builtins
import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmseg.cli import main

KILLED = 137
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
KINDS = ("kill", *ERRORS)


@dataclass(slots=True)
class Disk:
    """Counts events below ``root`` and lets the one with number ``at`` fail; -1: none."""

    root: Path
    at: int = -1
    kind: str = "kill"
    count: int = 0

    def event(self, path: Any) -> None:
        """Count an event on a path, a descriptor, or nothing known."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        if not os.path.abspath(os.fspath(path)).startswith(f"{self.root}/"):
            return
        number, self.count = self.count, self.count + 1
        if number != self.at:
            return
        if self.kind == "kill":
            os._exit(KILLED)
        code = ERRORS[self.kind]
        raise OSError(code, os.strerror(code), os.fspath(path))

    def install(self) -> None:
        """Put this disk under the functions that change files; for a child that ends soon."""
        plain_open, plain_os_open = builtins.open, os.open

        def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if set(mode) & set("wax+") and not isinstance(file, int):
                self.event(file)
            return plain_open(file, mode, *rest, **more)

        def os_opened(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR):
                self.event(path)
            return plain_os_open(path, flags, *rest, **more)

        builtins.open = io.open = opened  # type: ignore[assignment]
        os.open = os_opened
        for name in ("fsync", "replace", "rename", "unlink", "remove", "mkdir", "truncate", "link"):
            setattr(os, name, self._watched(getattr(os, name)))

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, *rest: Any, **more: Any) -> Any:
            self.event(path)
            return function(path, *rest, **more)

        return watched


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    text: str
    #: events that it had
    count: int


def typed(root: Path, arguments: list[str], *, at: int = -1, kind: str = "kill") -> Outcome:
    """Run a command in a child, with a fault at one event; ``root`` is its workspace."""
    said = root.parent / f"{root.name}.said"
    counted = root.parent / f"{root.name}.count"
    counted.write_text("0")
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = _run(Disk(root.resolve(), at, kind), arguments, said, counted)
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return Outcome(os.waitstatus_to_exitcode(status), said.read_text(), int(counted.read_text()))


def _run(disk: Disk, arguments: list[str], said: Path, counted: Path) -> int:
    from fmseg import console

    with open(said, "w") as text:
        sys.stdout = sys.stderr = text
        console.messages.file = console.results.file = text
        plain_open = builtins.open
        disk.install()
        try:
            main(["--root", str(disk.root), *arguments])
        except SystemExit as left:
            code = left.code
        text.flush()
        with plain_open(counted, "w") as number:
            number.write(str(disk.count))
    return int(code or 0)


def sample(count: int, wanted: int) -> Iterator[int]:
    """Yield up to ``wanted`` of the numbers below ``count``, evenly spread, the first and the last among them."""
    steps = min(wanted, count)
    yield from sorted({round(index * (count - 1) / max(steps - 1, 1)) for index in range(steps)})
