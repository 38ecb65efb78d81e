"""One function over many cases in several processes, here or on a cluster, with the results in order.

The processes are forked from a small server that has imported nothing but the function's module: no thread and
no device of the parent is copied. A process that dies (a decoder that crashes, too little memory) costs its
case alone, and a parent that dies takes its processes along. A script of one's own that asks for processes must
guard its main part with ``if __name__ == "__main__"``.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Generic, TypeVar

from fmseg.errors import EnvironmentProblem
from fmseg.registry import load_plugins
from fmseg.sampling.cluster import Cluster

T = TypeVar("T")
R = TypeVar("R")

#: so many chunks of work lie ready per process
CHUNKS_AHEAD = 3
#: chunks are so many times as long on a cluster: its scheduler takes some thousand a second, whatever is in them
CLUSTER_CHUNKS = 4


@dataclass(frozen=True, slots=True)
class Workers(Generic[T, R]):
    """How one function runs over cases."""

    #: a function of a module, or a partial of one; it must return what is wrong, not raise
    function: Callable[[T], R]
    #: the result for a case whose process died twice
    on_death: Callable[[T], R]
    #: 0 works in this process
    num_processes: int
    #: what the processes import before the first case
    preload: str
    plugins: tuple[str, ...] = ()
    chunk_size: int = 8
    #: works instead of processes of this machine
    cluster: Cluster | None = None

    def map(self, items: Sequence[T]) -> Iterator[R]:
        """Yield the result for each item, in order. Raises EnvironmentProblem if no process can start."""
        if self.cluster is not None:
            chunk_size = CLUSTER_CHUNKS * self.chunk_size if self.chunk_size > 1 else 1
            yield from self.cluster.map(
                self.function, self.on_death, items, plugins=self.plugins, chunk_size=chunk_size
            )
            return
        if self.num_processes == 0 or len(items) < 2:
            yield from map(self.function, items)
            return
        done = 0
        while done < len(items):
            try:
                for result in self._in_chunks(items, done):
                    yield result
                    done += 1
            except BrokenProcessPool:
                # one of those in flight did it: these one by one, then on as before
                in_flight = self.chunk_size * self.num_processes * CHUNKS_AHEAD
                for result in self._one_by_one(items[done : done + in_flight]):
                    yield result
                    done += 1

    def _in_chunks(self, items: Sequence[T], start: int) -> Iterator[R]:
        waiting: deque[Future[list[R]]] = deque()
        with _pool(self.num_processes, self.preload, self.plugins) as pool:
            try:
                for first in range(start, len(items), self.chunk_size):
                    waiting.append(pool.submit(_apply, self.function, items[first : first + self.chunk_size]))
                    if len(waiting) == self.num_processes * CHUNKS_AHEAD:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _one_by_one(self, items: Sequence[T]) -> Iterator[R]:
        waiting = deque(items)
        while waiting:
            with _pool(1, self.preload, self.plugins) as pool:
                try:
                    _need_alive(pool)
                    while waiting:
                        yield pool.submit(self.function, waiting[0]).result()
                        waiting.popleft()
                except BrokenProcessPool:
                    yield self.on_death(waiting.popleft())


def _pool(num_processes: int, preload: str, plugins: tuple[str, ...]) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return ProcessPoolExecutor(num_processes, context, _start, (plugins,))


def _need_alive(pool: ProcessPoolExecutor) -> None:
    """Raise EnvironmentProblem if a process ends before it has been given a case, so that no case can be the reason."""
    try:
        pool.submit(int).result()
    except BrokenProcessPool as error:
        raise EnvironmentProblem(
            "The processes that read images end before they begin; what they said stands above. A script that starts "
            "them must be a file, and call fmseg below: if __name__ == '__main__'. One process is enough with "
            "num_processes=0 (-np 0)."
        ) from error


def _start(plugins: tuple[str, ...]) -> None:
    """Prepare a worker: one thread, no reaction to Ctrl-C (the parent reacts), an end with the parent."""
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    load_plugins(plugins)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        # the pool's own pipe does not tell: each worker holds both of its ends
        wait([parent.sentinel])
        os._exit(1)


def _apply(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [function(item) for item in items]
