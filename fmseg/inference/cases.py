"""Raw cases through networks: read and prepared ahead in threads, answered in batches, finished behind.

How many cases are under way is bounded by memory. What is wrong with one file does not end the job.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from fmseg.errors import EnvironmentProblem, FmsegError
from fmseg.imaging.case import BadFile, Case
from fmseg.imaging.prepare import prepare
from fmseg.imaging.readers import read_case
from fmseg.inference.pipeline import NUM_THREADS, MemoryBound, map_ahead
from fmseg.records.dataset import CaseFiles
from fmseg.records.plans import Plans

logger = logging.getLogger(__name__)

A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PreparedCase:
    """One case as its file has it, and as the networks see it."""

    files: CaseFiles
    case: Case
    #: (Z, C, h, w)
    images: np.ndarray


@dataclass(frozen=True, slots=True)
class Failure:
    """One case that could not be read or written, and why."""

    files: CaseFiles
    #: without the name of its first image, which whoever tells it knows
    problem: str


@dataclass(frozen=True, slots=True)
class CasePipeline(Generic[A]):
    """How raw cases become answers."""

    plans: Plans
    #: stacks (Z, C, h, w) of several cases -> an answer for each
    answer: Callable[[Sequence[np.ndarray]], Sequence[A]]
    #: images that the networks take at once
    batch_size: int
    #: of the answer per pixel of the file's own grid; what a case needs of memory besides its images
    bytes_per_pixel: int

    def run(
        self, cases: Sequence[CaseFiles], finish: Callable[[PreparedCase, A], T]
    ) -> Iterator[tuple[CaseFiles, T] | Failure]:
        """Yield what ``finish`` makes of each case, in order, or why a case could not be done.

        finish: called in a thread. Its EnvironmentProblem (a full disk) ends it all.
        """
        bound = MemoryBound(most=3 * self.batch_size)
        pool = ThreadPoolExecutor(NUM_THREADS)

        def complete(item: tuple[PreparedCase, A] | Failure) -> tuple[CaseFiles, T] | Failure:
            if isinstance(item, Failure):
                return item
            files = item[0].files
            return _caught(files, lambda: (files, finish(*item)))

        try:
            read = map_ahead(pool, lambda files: self._read(files, bound), cases, bound.limit)
            yield from map_ahead(pool, complete, self._computed(read), bound.limit)
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, files: CaseFiles, bound: MemoryBound) -> PreparedCase | Failure:
        def work() -> PreparedCase:
            case = read_case(files, self.plans.reader)
            images = prepare(case.voxels, case.geometry, self.plans.preprocessing)
            answered = self.bytes_per_pixel * int(np.prod(case.voxels.shape[1:]))
            bound.note(case.voxels.nbytes + images.nbytes + answered)
            return PreparedCase(files, case, images)

        return _caught(files, work)

    def _computed(self, read: Iterator[PreparedCase | Failure]) -> Iterator[tuple[PreparedCase, A] | Failure]:
        """Run the networks over groups of cases that fill a batch; failures pass through in their place."""
        group: list[PreparedCase | Failure] = []
        for item in read:
            group.append(item)
            if sum(len(each.images) for each in group if isinstance(each, PreparedCase)) >= self.batch_size:
                yield from self._answered(group)
                group = []
        yield from self._answered(group)

    def _answered(self, group: Sequence[PreparedCase | Failure]) -> Iterator[tuple[PreparedCase, A] | Failure]:
        answers = iter(self.answer([each.images for each in group if isinstance(each, PreparedCase)]))
        for each in group:
            yield each if isinstance(each, Failure) else (each, next(answers))


def _caught(files: CaseFiles, work: Callable[[], T]) -> T | Failure:
    """Run ``work``; what goes wrong with one file must not end a long job."""
    try:
        return work()
    except EnvironmentProblem:
        raise
    except BadFile as error:
        is_first = error.path == files.images[0]
        return Failure(files, f"{error.problem}. {error.mend}" if is_first else str(error))
    except FmsegError as error:
        return Failure(files, str(error))
    except Exception as error:
        logger.debug("%s", files.name, exc_info=True)
        return Failure(files, f"{type(error).__name__}: {error}")
