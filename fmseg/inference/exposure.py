"""Which images a model has met before: in its pretraining, by ``seen.npy``, or among its labelled cases.

Images are told by the hash of their pixels as read; the same picture saved with other pixels is not recognised.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fmseg.errors import FmsegError
from fmseg.imaging.measure import read_facts
from fmseg.records.foundation import SEEN, find_foundations, read_seen, was_seen
from fmseg.records.run import Initialisation, RunConfig
from fmseg.records.seen import Seen, Sight
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)


def _nothing() -> np.ndarray:
    return np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True)
class Exposure:
    """What some networks have met, as sorted first 64 bits of content hashes."""

    pretraining: np.ndarray = field(default_factory=_nothing)
    training: np.ndarray = field(default_factory=_nothing)
    #: what is not known of it, in words
    unknown: tuple[str, ...] = ()

    def sight(self, content_hash: str) -> Sight:
        """Return where an image of this hash was met; an empty hash is that of an unknown image."""
        if content_hash and was_seen(self.training, content_hash):
            return "training"
        if content_hash and was_seen(self.pretraining, content_hash):
            return "pretraining"
        return "unknown" if self.unknown or not content_hash else "no"


def pretraining_exposure(workspace: Workspace, starts: Iterable[Initialisation]) -> Exposure:
    """Return what the checkpoints have met that some runs started from; one that is gone is told as unknown."""
    wanted = {start.sha256: start.name for start in starts if start.sha256}
    if not wanted:
        return Exposure()
    try:
        found = find_foundations(workspace.foundations())
    except FmsegError as error:  # a damaged card of any checkpoint: predicting needs none of them
        return Exposure(unknown=(str(error),))
    folders = {card.weights_sha256: folder for folder, card in found}
    foreign = {card.weights_sha256 for _, card in found if any(card.foreign)}
    there = {sha256: folders[sha256] for sha256 in wanted if sha256 in folders and (folders[sha256] / SEEN).exists()}
    unknown = tuple(
        f"what images the weights of others have seen that {name} was made from"
        if sha256 in foreign
        else f"the list of the images that {name} has seen is no longer in {workspace.foundations()}"
        for sha256, name in wanted.items()
        if sha256 not in there or sha256 in foreign
    )
    return Exposure(_union(read_seen(folder) for folder in there.values()), unknown=unknown)


def exposure_of(workspace: Workspace, configs: Sequence[RunConfig]) -> Exposure:
    """Return what the networks of some runs have met, in pretraining and as labelled cases of any fold."""
    found = pretraining_exposure(workspace, [config.init for config in configs])
    training, unknown = [], list(found.unknown)
    for dataset in sorted({config.plans.dataset for config in configs}):
        used = {
            case
            for config in configs
            if config.plans.dataset == dataset
            for case in (*config.cases.train, *config.cases.val)
        }
        hashes = _hashes(workspace, dataset, used)
        training.append(np.unique(np.array([int(text[:16], 16) for text in hashes.values()], np.uint64)))
        if len(hashes) < len(used):
            unknown.append(f"{len(used) - len(hashes)} labelled cases of {dataset} are not in its cases.jsonl")
    return replace(found, training=_union(training), unknown=tuple(unknown))


def seen_cases(workspace: Workspace, dataset: str, cases: Sequence[str], exposure: Exposure) -> Seen:
    """Count what was met of the prepared cases of a dataset."""
    if not len(exposure.pretraining) and not len(exposure.training) and not exposure.unknown:
        return Seen.of("no" for _ in cases)
    hashes = _hashes(workspace, dataset, set(cases))
    return Seen.of(exposure.sight(hashes.get(case, "")) for case in cases)


def tell(seen: Seen, exposure: Exposure | None = None) -> None:
    """Log what was met, and why some of it is not known."""
    if seen.num_cases:
        logger.info("%s", seen.sentence)
    if seen.unknown and exposure is not None:
        for reason in exposure.unknown:
            logger.info("Not known: %s.", reason)


def _hashes(workspace: Workspace, dataset: str, cases: set[str]) -> dict[str, str]:
    """Return case -> content hash of those of the cases that are measured, by this fmseg."""
    path = workspace.prepared(dataset) / "cases.jsonl"
    try:
        facts = read_facts(path) if path.exists() else ()
        return {fact.case: fact.content_hash for fact in facts if fact.case in cases and fact.content_hash}
    except FmsegError as error:  # what is measured by another fmseg trains no more, but what was trained predicts
        logger.debug("%s", error)
        return {}


def _union(parts: Iterable[np.ndarray]) -> np.ndarray:
    found = list(parts)
    return found[0] if len(found) == 1 else np.unique(np.concatenate([_nothing(), *found]))
