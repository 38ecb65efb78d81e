"""What frozen features of foundation checkpoints are worth on labelled datasets, beside those of random weights.

Learned on the training cases of folds, scored on their validation cases: no patient is on both sides.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fmseg.console import track
from fmseg.errors import BadData, NotReady, UsageError
from fmseg.inference.members import find_device
from fmseg.inference.probes import probe, thinned
from fmseg.networks.vit import ViT
from fmseg.networks.weights import load_backbone
from fmseg.planning.folds import load_folds
from fmseg.planning.patients import known_patients
from fmseg.planning.planner import DEFAULT_NAME, plans_file
from fmseg.planning.regimes import check_apart
from fmseg.records.dataset import Dataset
from fmseg.records.foundation import Foundation, find_foundations
from fmseg.records.labels import LabelScheme
from fmseg.records.plans import Fold, Plans
from fmseg.registry import unknown
from fmseg.sampling.store import Store
from fmseg.workspace import Workspace, dataset_id

logger = logging.getLogger(__name__)

#: what a probe returns -> what people call it
TITLES = {
    "dice": "patch probe, Dice",
    "linear_f1": "linear probe, macro F1",
    "knn_f1": "kNN, macro F1",
}


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One probe of one checkpoint on one dataset; means over the folds."""

    dataset: str
    checkpoint: str
    probe: str
    score: float
    #: standard error over the folds; None for a single one
    error: float | None
    #: of the same network with random weights
    random: float
    num_folds: int
    #: cases that were learned from, and scored on, in the first fold
    num_train: int
    num_test: int


@dataclass(frozen=True, slots=True)
class Probed:
    """A labelled dataset, opened."""

    name: str
    store: Store
    folds: tuple[Fold, ...]
    labels: LabelScheme | Mapping[str, str]
    patients: Mapping[str, str]

    def scores(self, vit: ViT, card: Foundation) -> list[dict[str, float]]:
        """Return the scores of a backbone on each fold."""
        return [probe(vit, (card.mean, card.std), self.store, fold, self.labels, self.patients) for fold in self.folds]


def probe_foundations(
    workspace: Workspace, datasets: Sequence[str], foundations: Sequence[str], *, num_folds: int, most_cases: int
) -> list[ProbeRow]:
    """Probe checkpoints (all that fit, if none is named) on prepared labelled datasets.

    num_folds, most_cases: folds, and cases that each learns on and is scored on, at most. Raises NotReady or
    UsageError naming what is missing, BadData where a fold has too few patients.
    """
    opened = [open_probed(workspace, name, num_folds, most_cases) for name in datasets]
    found = find_foundations(workspace.foundations())
    unknown_names = [name for name in foundations if name not in [card.name for _, card in found]]
    if unknown_names:
        names = [card.name for _, card in found]
        raise UsageError(unknown("foundation checkpoint", unknown_names[0], names))
    chosen = [each for each in found if each[1].name in foundations or not foundations]
    if not chosen:
        raise NotReady(f"{workspace.foundations()} holds no checkpoint to probe. Make one with: fmseg pretrain")
    rows: list[ProbeRow] = []
    random: dict[tuple[str, str], list[dict[str, float]]] = {}
    pairs = [(one, each) for one in chosen for each in opened]
    for (folder, card), each in track(pairs, "probe", len(pairs)):
        if card.architecture.channels != each.store.channels:
            logger.warning("%s does not fit %s: it is of other channels", card.name, each.name)
            continue
        key = (each.name, f"{card.architecture.digest()} {card.mean} {card.std}")
        if key not in random:
            random[key] = each.scores(_random(card), card)
        vit, _ = load_backbone(folder)
        rows += _rows(each, card.name, each.scores(vit.to(find_device()), card), random[key])
    return rows


def open_probed(workspace: Workspace, name: str, num_folds: int, most_cases: int) -> Probed:
    """Open a prepared labelled dataset and its first folds. Raises BadData if a fold has too few patients."""
    folder, command = workspace.prepared(name), f"fmseg plan_and_preprocess -d {dataset_id(name)}"
    plans = Plans.load(workspace.need(folder / plans_file(DEFAULT_NAME), command))
    if plans.labels is None:
        raise UsageError(f"{name} has no labels to probe with. Name a labelled dataset.")
    store = Store.of(folder, plans)
    folds = load_folds(workspace.need(folder / "splits_final.json", command))[:num_folds]
    dataset = Dataset.load(workspace.raw_dataset(name))
    patients = known_patients(workspace, dataset, list(store.cases))
    kept = tuple(thinned(fold, store, most_cases) for fold in folds)
    for number, fold in enumerate(kept):
        check_apart(fold, patients, f"{name}, fold {number}")
        if not fold.val or len({patients[case] for case in fold.train}) < 2:
            raise BadData(f"{name}, fold {number}: it takes two patients to learn from and one to be scored on.")
    labels = plans.labels if isinstance(plans.labels, LabelScheme) else dataset.classes_of_cases()
    return Probed(name, store, kept, labels, patients)


def _random(card: Foundation) -> ViT:
    torch.manual_seed(0)
    return ViT(card.architecture).to(find_device())


def _rows(
    opened: Probed, name: str, scores: Sequence[Mapping[str, float]], random: Sequence[Mapping[str, float]]
) -> list[ProbeRow]:
    rows = []
    for key in scores[0]:
        values = [each[key] for each in scores]
        rows.append(
            ProbeRow(
                dataset=opened.name,
                checkpoint=name,
                probe=TITLES[key],
                score=float(np.mean(values)),
                error=float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None,
                random=float(np.mean([each[key] for each in random])),
                num_folds=len(values),
                num_train=len(opened.folds[0].train),
                num_test=len(opened.folds[0].val),
            )
        )
    return rows
