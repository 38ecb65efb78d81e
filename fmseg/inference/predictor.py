"""From raw files to label maps on their own grid, with an ensemble: read, prepare, predict, restore, clean up.

While the networks compute, threads read and prepare the next cases and restore and hand on the last ones; how
many are under way is bounded by memory.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from fmseg.errors import EnvironmentProblem, FmsegError
from fmseg.imaging.case import Case
from fmseg.imaging.decode import labels_from_probabilities
from fmseg.imaging.prepare import prepare, restore, to_network
from fmseg.imaging.readers import read_case
from fmseg.inference.ensemble import confidence, disagreement, weighted_mean
from fmseg.inference.members import Member, need_one_plan
from fmseg.inference.pipeline import NUM_THREADS, MemoryBound, map_ahead
from fmseg.inference.postprocess import apply_clean_up
from fmseg.inference.sliding import predict_batch
from fmseg.records.dataset import CaseFiles
from fmseg.records.selection import CleanUp

logger = logging.getLogger(__name__)

T = TypeVar("T")

# C channels, K outputs, h w a prepared image, Z Y X the file's own grid


@dataclass(frozen=True, slots=True)
class PreparedAnswer:
    """What the ensemble says on one prepared case."""

    #: (K, Z, h, w) float32, averaged over the members
    probabilities: np.ndarray
    #: see ``ensemble``
    confidence: float
    disagreement: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """One case, done: its image, and the label map on the same grid."""

    files: CaseFiles
    case: Case
    #: (Z, Y, X) uint8
    labels: np.ndarray
    confidence: float
    disagreement: float


@dataclass(frozen=True, slots=True)
class Failure:
    """One case that could not be read or written, and why."""

    files: CaseFiles
    problem: str


@dataclass(frozen=True, slots=True)
class _Prepared:
    files: CaseFiles
    case: Case
    images: np.ndarray


class Predictor:
    """An ensemble of trained networks that share one preparation."""

    def __init__(self, members: Sequence[Member], *, clean_up: Sequence[CleanUp] = (), mirror: bool = True) -> None:
        need_one_plan(members)
        self.members = tuple(members)
        self.clean_up = tuple(clean_up)
        self.mirror = mirror
        self.scheme = members[0].scheme
        self.preprocessing = members[0].config.plans.preprocessing
        self.batch_size = max(member.config.recipe.batch_size for member in members)

    def predict_prepared(self, stacks: Sequence[np.ndarray]) -> list[PreparedAnswer]:
        """Predict prepared cases together. stacks: one (Z, C, h, w) per case, as in the store, of any sizes."""
        inputs: dict[tuple[tuple[float, ...], ...], list[torch.Tensor]] = {}
        answers: list[list[np.ndarray]] = [[] for _ in stacks]
        for member in self.members:
            scale = (member.config.mean, member.config.std)
            if scale not in inputs:
                inputs[scale] = [torch.from_numpy(to_network(image, *scale)) for stack in stacks for image in stack]
            maps = iter(predict_batch(member.model, inputs[scale], member.sliding(mirror=self.mirror)))
            for stack, answer in zip(stacks, answers, strict=True):
                answer.append(np.stack([next(maps).numpy() for _ in stack], axis=1))
        return [self._together(answer) for answer in answers]

    def predict_cases(
        self, cases: Sequence[CaseFiles], finish: Callable[[Prediction], T]
    ) -> Iterator[tuple[CaseFiles, T] | Failure]:
        """Predict raw cases; yield what ``finish`` makes of each, in order, or why a case could not be done.

        finish: called in a thread, to write the prediction. Its EnvironmentProblem (a full disk) ends it all.
        """
        bound = MemoryBound(most=3 * self.batch_size)
        pool = ThreadPoolExecutor(NUM_THREADS)

        def complete(item: "tuple[_Prepared, PreparedAnswer] | Failure") -> "tuple[CaseFiles, T] | Failure":
            if isinstance(item, Failure):
                return item
            files = item[0].files
            return _caught(files, lambda: (files, finish(self._restored(*item))))

        try:
            read = map_ahead(pool, lambda files: self._read(files, bound), cases, bound.limit)
            yield from map_ahead(pool, complete, self._computed(read), bound.limit)
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, files: CaseFiles, bound: MemoryBound) -> "_Prepared | Failure":
        def work() -> _Prepared:
            case = read_case(files, self.members[0].config.plans.reader)
            images = prepare(case.voxels, case.geometry, self.preprocessing)
            restored = 4 * self.scheme.num_outputs * int(np.prod(case.voxels.shape[1:]))
            bound.note(case.voxels.nbytes + images.nbytes + restored)
            return _Prepared(files, case, images)

        return _caught(files, work)

    def _computed(
        self, read: "Iterator[_Prepared | Failure]"
    ) -> "Iterator[tuple[_Prepared, PreparedAnswer] | Failure]":
        """Run the networks over groups of cases that fill a batch; failures pass through in their place."""
        group: list[_Prepared | Failure] = []
        for item in read:
            group.append(item)
            if sum(len(each.images) for each in group if isinstance(each, _Prepared)) >= self.batch_size:
                yield from self._answered(group)
                group = []
        yield from self._answered(group)

    def _answered(
        self, group: "Sequence[_Prepared | Failure]"
    ) -> "Iterator[tuple[_Prepared, PreparedAnswer] | Failure]":
        answers = iter(self.predict_prepared([each.images for each in group if isinstance(each, _Prepared)]))
        for each in group:
            yield each if isinstance(each, Failure) else (each, next(answers))

    def _together(self, maps: Sequence[np.ndarray]) -> PreparedAnswer:
        mean = weighted_mean(maps, [member.weight for member in self.members])
        single = [labels_from_probabilities(each, self.scheme) for each in maps] if len(maps) > 1 else []
        labels = labels_from_probabilities(mean, self.scheme)
        return PreparedAnswer(mean, confidence(mean, labels, self.scheme), disagreement(single, self.scheme))

    def _restored(self, prepared: _Prepared, answer: PreparedAnswer) -> Prediction:
        _, depth, height, width = prepared.case.voxels.shape
        restored = restore(answer.probabilities, (depth, height, width))
        labels = labels_from_probabilities(restored, self.scheme)
        labels = apply_clean_up(labels, self.clean_up, self.scheme)
        return Prediction(prepared.files, prepared.case, labels, answer.confidence, answer.disagreement)


def _caught(files: CaseFiles, work: Callable[[], T]) -> T | Failure:
    """Run ``work``; what goes wrong with one file must not end a long job."""
    try:
        return work()
    except EnvironmentProblem:
        raise
    except FmsegError as error:
        return Failure(files, str(error))
    except Exception as error:
        logger.debug("%s", files.name, exc_info=True)
        return Failure(files, f"{files.images[0].name}: {type(error).__name__}: {error}")
