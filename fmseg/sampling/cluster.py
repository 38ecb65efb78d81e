"""One function over many cases on the workers of a Dask cluster, with the results in order.

The workers read files where they lie, on a disk that all machines see, and send back what they made of them; whoever
asked writes it. So a cluster changes how fast something is prepared, and no byte of it. A worker without the disk, or
with other versions of what reads and packs images, is refused rather than let to skip or change images.
"""

import functools
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from fmseg._version import __version__
from fmseg.errors import EnvironmentProblem, UsageError
from fmseg.records.cases import CaseFiles
from fmseg.registry import load_plugins

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

#: what decides on the bytes of a prepared image
PACKAGES = (
    *("numpy", "scipy", "opencv-python-headless", "pillow", "blosc2"),
    *("nibabel", "SimpleITK", "pydicom", "pylibjpeg", "pylibjpeg-openjpeg"),
)
#: so many chunks of work are with the cluster per thread of it
CHUNKS_AHEAD = 3
#: for the scheduler to answer, and for a first or another worker to come where there is none
ANSWER_S, PATIENCE_S = 20.0, 600.0
#: folders of images that each worker is asked for before each piece of work, at most
FOLDERS_CHECKED = 8
#: between two looks at whether there still are workers
LOOK_S = 5.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Dask cluster, by the address of its scheduler."""

    #: as in tcp://10.0.0.1:8786
    address: str
    #: folders that every worker must see
    needs: tuple[Path, ...] = ()

    def map(
        self,
        function: Callable[[T], R],
        on_death: Callable[[T], R],
        items: Sequence[T],
        *,
        plugins: tuple[str, ...] = (),
        chunk_size: int,
    ) -> Iterator[R]:
        """Yield the function's result for each item, in order; ``on_death``'s for one that kills its workers.

        Raises EnvironmentProblem if there is no cluster, it is lost on the way, or a worker does not fit.
        """
        chores = functools.partial(_work, function, needs=self.needs, versions=versions(), plugins=plugins)
        with _connected(self.address) as client:
            ahead = CHUNKS_AHEAD * _num_threads(client, self.address)
            chunks = (items[first : first + chunk_size] for first in range(0, len(items), chunk_size))
            waiting: deque[tuple[Sequence[T], Any]] = deque()
            for chunk in chunks:
                waiting.append((chunk, client.submit(chores, chunk, pure=False)))
                if len(waiting) >= ahead:
                    yield from self._results(client, chores, on_death, *waiting.popleft())
            while waiting:
                yield from self._results(client, chores, on_death, *waiting.popleft())

    def _results(
        self,
        client: Any,
        chores: Callable[[Sequence[T]], list[R]],
        on_death: Callable[[T], R],
        chunk: Sequence[T],
        future: Any,
    ) -> Iterator[R]:
        """Yield the results of a chunk; if its workers died, one case after the other."""
        found = self._result(client, future)
        if found is not None:
            yield from found
            return
        for item in chunk:
            found = self._result(client, client.submit(chores, [item], pure=False))
            yield from [on_death(item)] if found is None else found

    def _result(self, client: Any, future: Any) -> Any:
        """Return what a future holds, None if worker after worker died of it."""
        from distributed import CancelledError
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker

        alone_since: float | None = None
        try:
            while not future.done():
                with suppress(TimeoutError):
                    future.exception(timeout=LOOK_S)  # waits, and fetches nothing yet
                alone_since = None if _threads(client) else (alone_since or time.monotonic())
                if alone_since is not None and time.monotonic() - alone_since > PATIENCE_S:
                    raise self._lost("has had no worker for ten minutes")
            return future.result()
        except KilledWorker:
            return None
        except (CancelledError, CommClosedError) as error:
            raise self._lost("does not answer any more") from error

    def _lost(self, what: str) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"--cluster {self.address}: the cluster {what}. What was done is kept; type the same command again."
        )


def cluster_at(address: str | None, cases: Sequence[CaseFiles]) -> Cluster | None:
    """Return the cluster of a scheduler, whose workers must see where these cases lie; None without an address."""
    if address is None:
        return None
    sample = cases[:: 1 + (len(cases) - 1) // FOLDERS_CHECKED] if len(cases) else []
    return Cluster(address, tuple(sorted({files.images[0].parent for files in sample})))


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of what reads, prepares and packs images in this process."""
    return {"fmseg": __version__} | {name: _version(name) for name in PACKAGES}


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Yield a client of the scheduler at ``address``."""
    try:
        from distributed import Client
    except ImportError as error:
        raise EnvironmentProblem("--cluster needs Dask. Install it with: pip install 'fmseg[cluster]'") from error
    try:
        client = Client(address, timeout=ANSWER_S, set_as_default=False)
    except ValueError as error:
        raise UsageError(
            f"--cluster {address}: that is no address ({error}). Type one as in tcp://10.0.0.1:8786"
        ) from error
    except OSError as error:  # a timeout is one too
        raise EnvironmentProblem(
            f"--cluster {address}: no Dask scheduler answers there. Start one with: dask scheduler"
        ) from error
    try:
        yield client
    finally:
        client.close()


def _num_threads(client: Any, address: str) -> int:
    """Return how many cases the cluster works on at once; wait for a first worker."""
    if not _threads(client):
        logger.info("%s has no worker yet; waiting for one", address)
    try:
        client.wait_for_workers(1, timeout=PATIENCE_S)
    except TimeoutError as error:
        raise EnvironmentProblem(
            f"--cluster {address}: no worker came in ten minutes. Start some with: dask worker {address} --nthreads 1"
        ) from error
    threads = _threads(client)
    logger.info("%s: %d workers, %d threads", address, len(client.ncores()), threads)
    return max(1, threads)


def _threads(client: Any) -> int:
    return sum(client.ncores().values())


def _work(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    needs: tuple[Path, ...],
    versions: dict[str, str],
    plugins: tuple[str, ...],
) -> list[R]:
    """Return the function's results, on a worker that has been found to fit."""
    _check(needs, versions)
    _prepare(plugins)
    return [function(item) for item in items]


def _check(needs: tuple[Path, ...], wanted: dict[str, str]) -> None:
    """Raise EnvironmentProblem unless this process sees the images and would prepare them to the same bytes."""
    for path in needs:
        if not path.exists():
            raise EnvironmentProblem(f"The worker on {_host()} does not see {path}. Mount it there under that name.")
    own = versions()
    others = [f"{name} {own[name] or 'missing'}, not {wanted[name]}" for name in wanted if own[name] != wanted[name]]
    if others:
        raise EnvironmentProblem(
            f"The worker on {_host()} might prepare other bytes: {'; '.join(others)}. Install the same versions there."
        )


@functools.cache
def _prepare(plugins: tuple[str, ...]) -> None:
    import cv2

    cv2.setNumThreads(1)
    load_plugins(plugins)


def _host() -> str:
    return os.uname().nodename


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
