"""A disk that fails, or a power cut, at any thing that a command does to its files.

A command runs once, in a forked child with all modules imported. At each event it stops for a moment: what a kill
would leave there is copied away, and a child of its own meets the error, ends as it ends, and what it leaves is copied
too; then all is put back, and the command goes on. So each point costs a fork instead of a run, and equal states, of
which there are many, are kept once. Events are what changes files below one folder: opening for writing, flushing to
the disk, renaming, removing, making a folder.
"""

import builtins
import concurrent.futures
import concurrent.futures.thread
import contextlib
import errno
import faulthandler
import hashlib
import io
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import sklearn.linear_model
import timm
import torch

from fmseg import console
from fmseg.cli import main
from fmseg.stages import doctor, fingerprint, plan, predict, preprocess, pretrain, train

#: imported here, once for all children
WARM = (plt, sklearn, timm, torch, doctor, fingerprint, plan, predict, preprocess, pretrain, train)
#: the disk stays full from the event on; it fails once; the process dies; so does the machine, with half of what was
#: written since the last flush on the disk
KINDS = ("ENOSPC", "EIO", "kill", "power")
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
#: a child that met an error ends within this time, or hangs
PATIENCE_S = 120
#: name of a temporary file with the process that writes it
PROCESS = re.compile(r"\.\d+\.tmp")
#: events that need room on the disk
GROWING = ("open", "fsync", "mkdir", "link")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    text: str
    #: events that it had
    count: int


@dataclass(frozen=True, slots=True)
class State:
    """What lies on the disk after a fault."""

    at: int
    kind: str
    #: what failed, as "fsync fold_0/run.json"
    what: str
    #: of the command that met an error; None where it was killed
    outcome: Outcome | None
    #: name of the folder with the files; equal states have one
    folder: str


@dataclass(slots=True)
class Disk:
    """Counts events below ``root``, and tries faults at those of ``points``."""

    root: Path
    states: Path | None = None
    points: Collection[int] = ()
    kinds: Collection[str] = KINDS
    count: int = 0
    #: of this process, which has met an error: where it says how it ended
    report: Path | None = None
    failing: int = 0
    is_quiet: bool = False
    #: of each file that is open, what had been flushed
    flushed: dict[str, int] = field(default_factory=dict)

    def event(self, what: str, path: Any) -> None:
        """Count an event on a path or a descriptor, and try faults there."""
        if self.is_quiet:
            return
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        path = os.path.abspath(os.fspath(path))
        if not path.startswith(f"{self.root}/"):
            return
        if self.failing and what in GROWING:
            raise OSError(self.failing, os.strerror(self.failing), path)
        number, self.count = self.count, self.count + 1
        if number in self.points and self.report is None:
            self.is_quiet = True
            self._try(number, what, path)
            self.is_quiet = False
        if what == "open":
            self.flushed[path] = os.path.getsize(path) if os.path.exists(path) else 0
        elif what == "fsync" and os.path.isfile(path):
            self.flushed[path] = os.path.getsize(path)

    def _try(self, number: int, what: str, path: str) -> None:
        said = f"{what} {os.path.relpath(path, self.root)}"
        if "kill" in self.kinds:
            self._keep(State(number, "kill", said, None, self._copied()))
        if "power" in self.kinds and what == "fsync" and os.path.isfile(path):
            before = Before(self.root)
            written = os.path.getsize(path)
            os.truncate(path, (min(self.flushed.get(path, 0), written) + written) // 2)
            self._keep(State(number, "power", said, None, self._copied()))
            before.restore()
        for kind in (kind for kind in ERRORS if kind in self.kinds):
            assert self.states is not None
            before, report = Before(self.root), self.states / f"{number}.{kind}"
            child = os.fork()
            if child == 0:
                self.report, self.is_quiet = report, False
                self.failing = ERRORS[kind] if kind == "ENOSPC" else 0
                raise OSError(ERRORS[kind], os.strerror(ERRORS[kind]), path)
            wait(child, f"{kind} at {number}")
            outcome = Outcome(**json.loads(report.read_text()))
            report.unlink()
            self._keep(State(number, kind, said, outcome, self._copied()))
            before.restore()

    def _copied(self) -> str:
        """Copy what is there away, unless the same was there before; return its name."""
        assert self.states is not None
        digest = hashlib.sha256()
        for path in sorted(path for path in self.root.rglob("*") if path.is_file()):
            digest.update(PROCESS.sub(".tmp", str(path.relative_to(self.root))).encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        name = digest.hexdigest()[:16]
        if not (self.states / name).exists():
            shutil.copytree(self.root, self.states / name)
        return name

    def _keep(self, state: State) -> None:
        assert self.states is not None
        with open(self.states / "states.jsonl", "a") as file:
            file.write(json.dumps(asdict(state)) + "\n")

    def install(self) -> None:
        """Put this disk under the functions that change files; for a child that ends soon."""
        plain_open, plain_os_open = builtins.open, os.open

        def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if set(mode) & set("wax+") and not isinstance(file, int):
                self.event("open", file)
            return plain_open(file, mode, *rest, **more)

        def os_opened(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR):
                self.event("open", path)
            return plain_os_open(path, flags, *rest, **more)

        builtins.open = io.open = opened  # type: ignore[assignment]
        os.open = os_opened
        for name in ("fsync", "replace", "rename", "unlink", "remove", "mkdir", "truncate", "link"):
            setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, *rest: Any, **more: Any) -> Any:
            self.event(name, path)
            return function(path, *rest, **more)

        return watched


class Inline(concurrent.futures.Executor):
    """Does what is submitted at once: a fork takes one thread along, and would wait for the others for ever."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, function: Callable[..., Any], /, *rest: Any, **more: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(function(*rest, **more))
        except Exception as error:
            future.set_exception(error)
        return future

    @classmethod
    def install(cls) -> None:
        """Put this in the place of threads; for a child that ends soon."""
        concurrent.futures.ThreadPoolExecutor = concurrent.futures.thread.ThreadPoolExecutor = cls  # type: ignore
        for module in [module for name, module in sys.modules.items() if name.startswith("fmseg.")]:
            if hasattr(module, "ThreadPoolExecutor"):
                module.ThreadPoolExecutor = cls  # type: ignore[attr-defined]


class Before:
    """All files below a folder as they are, the places in those that are open, and the way back to that."""

    def __init__(self, root: Path) -> None:
        self.root, self.aside = root, root.parent / f"{root.name}.aside"
        shutil.rmtree(self.aside, ignore_errors=True)
        self.aside.mkdir()
        self.files: dict[Path, tuple[Path, bytes, os.stat_result]] = {}
        self.folders = [path for path in root.rglob("*") if path.is_dir()]
        for number, path in enumerate(path for path in root.rglob("*") if path.is_file()):
            link = self.aside / str(number)
            os.link(path, link)  # so that a file that is open stays the one of its name
            self.files[path] = (link, path.read_bytes(), path.stat())
        self.places = {}
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith(f"{root}/"):
                    self.places[int(name)] = os.lseek(int(name), 0, os.SEEK_CUR)

    def restore(self) -> None:
        for path in sorted(self.root.rglob("*"), reverse=True):
            if path.is_file() and path not in self.files:
                path.unlink()
            elif path.is_dir() and path not in self.folders:
                path.rmdir()
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
        for path, (link, content, status) in self.files.items():
            if not path.exists() or path.stat().st_ino != status.st_ino:
                path.unlink(missing_ok=True)
                os.link(link, path)
            if path.read_bytes() != content:
                path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        for number, place in self.places.items():
            os.lseek(number, place, os.SEEK_SET)


def wait(child: int, what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a child. Raises TimeoutError if it does not end."""
    end = time.monotonic() + patience_s
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            os.kill(child, signal.SIGUSR2)  # says where it is
            time.sleep(1)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"{what}: the command did not end within {patience_s:.0f} s")
        time.sleep(0.005)


def typed(root: Path, arguments: list[str], disk: Disk | None = None) -> Outcome:
    """Run a command in a child; ``root`` is its workspace."""
    report = root.parent / f"{root.name}.report"
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            _run(disk or Disk(root.resolve()), arguments, report)
        os._exit(0)
    # one that is stopped at each event waits for many others
    wait(child, " ".join(arguments), PATIENCE_S * (1 + (len(disk.points) if disk else 0)))
    return Outcome(**json.loads(report.read_text()))


def faults(
    root: Path, arguments: list[str], states: Path, points: Collection[int], kinds: Collection[str]
) -> Iterator[State]:
    """Run a command once, and yield what faults at some of its events leave. Its own end is left in ``root``."""
    states.mkdir()
    # of this name, and none of its children end without one
    outcome = typed(root, arguments, Disk(root.resolve(), states.resolve(), points, kinds))
    assert outcome.code == 0, outcome.text
    for line in (states / "states.jsonl").read_text().splitlines():
        value = json.loads(line)
        ended = value.pop("outcome")
        yield State(**value, outcome=Outcome(**ended) if ended else None)


def _run(disk: Disk, arguments: list[str], report: Path) -> None:
    faulthandler.register(signal.SIGUSR2, sys.__stderr__)
    text = io.StringIO()
    sys.stdout = sys.stderr = text
    console.messages.file = console.results.file = text
    Inline.install()
    disk.install()
    code: Any = 0
    try:
        main(["--root", str(disk.root), *arguments])
    except SystemExit as left:
        code = left.code
    disk.is_quiet = True
    (disk.report or report).write_text(json.dumps(asdict(Outcome(int(code or 0), text.getvalue(), disk.count))))


def sample(count: int, wanted: int) -> set[int]:
    """Return up to ``wanted`` of the numbers below ``count``, evenly spread, the first and the last among them."""
    steps = min(wanted, count)
    return {round(index * (count - 1) / max(steps - 1, 1)) for index in range(steps)}
