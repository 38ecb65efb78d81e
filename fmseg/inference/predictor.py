"""From raw files to label maps on their own grid, with an ensemble: prepare, predict, restore, clean up."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from fmseg.imaging.case import Case
from fmseg.imaging.decode import labels_from_probabilities
from fmseg.imaging.prepare import prepare, restore, to_network
from fmseg.inference.cases import CasePipeline, Failure, PreparedCase
from fmseg.inference.ensemble import confidence, disagreement, weighted_mean
from fmseg.inference.members import Member
from fmseg.inference.postprocess import apply_clean_up
from fmseg.inference.sliding import predict_batch
from fmseg.inference.trained import need_one_plan
from fmseg.records.dataset import CaseFiles
from fmseg.records.selection import CleanUp

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


class Predictor:
    """An ensemble of trained networks that share one preparation."""

    def __init__(self, members: Sequence[Member], *, clean_up: Sequence[CleanUp] = (), mirror: bool = True) -> None:
        need_one_plan([member.config for member in members])
        self.members = tuple(members)
        self.clean_up = tuple(clean_up)
        self.mirror = mirror
        self.scheme = members[0].scheme
        self.plans = members[0].config.plans
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
        pipeline = CasePipeline(
            self.plans, self.predict_prepared, self.batch_size, bytes_per_pixel=4 * self.scheme.num_outputs
        )
        return pipeline.run(cases, lambda prepared, answer: finish(self._restored(prepared, answer)))

    def predict_case(self, case: Case) -> Prediction:
        """Predict one case that is in memory. Raises BadData if it does not fit the plan."""
        images = prepare(case.voxels, case.geometry, self.plans.preprocessing)
        prepared = PreparedCase(CaseFiles(case.name, (), None), case, images)
        return self._restored(prepared, self.predict_prepared([images])[0])

    def _together(self, maps: Sequence[np.ndarray]) -> PreparedAnswer:
        mean = weighted_mean(maps, [member.weight for member in self.members])
        single = [labels_from_probabilities(each, self.scheme) for each in maps] if len(maps) > 1 else []
        labels = labels_from_probabilities(mean, self.scheme)
        return PreparedAnswer(mean, confidence(mean, labels, self.scheme), disagreement(single, self.scheme))

    def _restored(self, prepared: PreparedCase, answer: PreparedAnswer) -> Prediction:
        _, depth, height, width = prepared.case.voxels.shape
        restored = restore(answer.probabilities, (depth, height, width))
        labels = labels_from_probabilities(restored, self.scheme)
        labels = apply_clean_up(labels, self.clean_up, self.scheme)
        return Prediction(prepared.files, prepared.case, labels, answer.confidence, answer.disagreement)
