"""From prepared images to probabilities of classes: one network, then an ensemble with its temperature.

A case is a stack of images; its probabilities are the mean of theirs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fmseg.imaging.case import Case
from fmseg.imaging.decode import decide, shown_classes
from fmseg.imaging.prepare import centred, prepare, to_network
from fmseg.inference.calibration import tempered
from fmseg.inference.cases import CasePipeline, Failure
from fmseg.inference.members import Member, classes_of
from fmseg.inference.sliding import autocast_dtype, mirrorings
from fmseg.inference.trained import need_one_plan
from fmseg.networks.classifier import Classifier
from fmseg.records.dataset import CaseFiles
from fmseg.records.run import RunConfig

T = TypeVar("T")

# B images at once, C channels, F features, K classes, M members, N cases, Z images of a case


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an ensemble says on one case."""

    #: (K,) float32
    probabilities: np.ndarray
    #: see ``shown_classes``
    classes: tuple[str, ...]
    #: mean probability of what was decided, class by class where they do not exclude each other
    confidence: float
    #: share of the members, by weight, that decide otherwise
    disagreement: float


class ClassPredictor:
    """An ensemble of trained classifiers that share one preparation."""

    def __init__(self, members: Sequence[Member], *, temperature: float = 1.0, mirror: bool = True) -> None:
        need_one_plan([member.config for member in members])
        self.members = tuple(members)
        self.temperature = temperature
        self.mirror = mirror
        self.plans = members[0].config.plans
        self.scheme = classes_of(members[0].config)
        self.batch_size = max(member.config.recipe.batch_size for member in members)

    def predict_prepared(self, stacks: Sequence[np.ndarray]) -> list[Verdict]:
        """Judge prepared cases together. stacks: one (Z, C, h, w) per case, as in the store, of any sizes."""
        found = np.stack(
            [classify_stacks(member.model, member.config, stacks, mirror=self.mirror) for member in self.members]
        )  # (M, N, K)
        return [self._together(found[:, index]) for index in range(len(stacks))]

    def predict_cases(
        self, cases: Sequence[CaseFiles], finish: Callable[[CaseFiles, Case, Verdict], T]
    ) -> Iterator[tuple[CaseFiles, T] | Failure]:
        """Judge raw cases; yield what ``finish`` makes of each, or why it could not be."""
        pipeline = CasePipeline(self.plans, self.predict_prepared, self.batch_size, bytes_per_pixel=0)
        return pipeline.run(cases, lambda prepared, verdict: finish(prepared.files, prepared.case, verdict))

    def predict_case(self, case: Case) -> Verdict:
        """Judge one case that is in memory. Raises BadData if it does not fit the plan."""
        return self.predict_prepared([prepare(case.voxels, case.geometry, self.plans.preprocessing)])[0]

    def _together(self, each: np.ndarray) -> Verdict:
        weights = np.array([member.weight for member in self.members])
        mean = np.average(each, axis=0, weights=weights)
        probabilities = tempered(mean[None], self.temperature, self.scheme)[0]
        decided = decide(probabilities[None], self.scheme)[0]
        others = (decide(each, self.scheme) != decided).any(axis=1)
        sure = (
            probabilities[decided] if self.scheme.is_exclusive else np.where(decided, probabilities, 1 - probabilities)
        )
        return Verdict(
            probabilities.astype(np.float32),
            shown_classes(decided, self.scheme),
            float(sure.mean()),
            float(weights[others].sum() / weights.sum()),
        )


def classify_stacks(model: nn.Module, config: RunConfig, stacks: Sequence[np.ndarray], *, mirror: bool) -> np.ndarray:
    """Return the probabilities (N, K) float64 of prepared cases (Z, C, h, w), each the mean over its images."""
    scheme = classes_of(config)

    def probabilities(image: Tensor) -> Tensor:
        logits = model(image)
        return logits.softmax(dim=1) if scheme.is_exclusive else logits.sigmoid()

    axes = config.plans.mirror_axes if mirror else ()
    images = [image for stack in stacks for image in stack]
    rows = (
        np.zeros((0, scheme.num_outputs)) if not images else _over_batches(model, config, images, probabilities, axes)
    )
    ends = np.cumsum([len(stack) for stack in stacks])[:-1]
    return np.array([part.mean(axis=0) for part in np.split(rows, ends)]) if len(stacks) else rows


def features_of(model: Classifier, config: RunConfig, images: Sequence[np.ndarray]) -> np.ndarray:
    """Return what the head of a network sees of prepared images (C, h, w): (N, F) float64."""
    return _over_batches(model, config, images, model.features, ())


@torch.inference_mode()
def _over_batches(
    model: nn.Module,
    config: RunConfig,
    images: Sequence[np.ndarray],
    call: Callable[[Tensor], Tensor],
    mirror_axes: Sequence[str],
) -> np.ndarray:
    """Return the rows of ``call`` over images as the network sees them, averaged over mirrorings."""
    device = next(model.parameters()).device
    dtype = autocast_dtype(device, config.recipe.precision)
    size, count = config.recipe.input_size, config.recipe.batch_size
    flips = mirrorings(mirror_axes)
    rows: list[np.ndarray] = []
    for first in range(0, len(images), count):
        placed = [to_network(centred(image, size), config.mean, config.std) for image in images[first : first + count]]
        batch = torch.from_numpy(np.stack(placed)).to(device)
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            found = [call(batch.flip(axes) if axes else batch) for axes in flips]
        rows += [torch.stack(found).mean(dim=0, dtype=torch.float32).cpu().double().numpy()]
    return np.concatenate(rows)
