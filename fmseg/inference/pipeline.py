"""Work ahead and behind in threads, so that disk and decoder never keep the network waiting.

Reading and writing release the interpreter's lock for most of their time, so threads do what processes would,
without their start-up and without copies.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

NUM_THREADS = min(8, os.cpu_count() or 1)


def map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[S], T], items: Iterable[S], limit: Callable[[], int]
) -> Iterator[T]:
    """Yield ``function(item)`` in order, while at most ``limit()`` items (at least one) are under way in the pool."""
    waiting: deque[Future[T]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        while len(waiting) >= max(1, limit()):
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class MemoryBound:
    """Says how many cases may be in memory at once, from the largest seen so far."""

    def __init__(self, most: int, budget_bytes: int = 1 << 30) -> None:
        self.most = most
        self.budget_bytes = budget_bytes
        self.largest = 0

    def note(self, num_bytes: int) -> None:
        """Take notice of a case that needs this much."""
        self.largest = max(self.largest, num_bytes)

    def limit(self) -> int:
        """Return how many cases may be under way."""
        if not self.largest:
            return min(self.most, NUM_THREADS)
        return max(1, min(self.most, self.budget_bytes // self.largest))
