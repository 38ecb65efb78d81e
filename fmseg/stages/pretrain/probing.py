"""What a pretraining is looked at with: labelled datasets of its modality, and images of its own corpus."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fmseg.errors import BadData, FmsegError
from fmseg.inference.probes import MEASURES, Moments, probe, thinned
from fmseg.inference.representation import spread_indices
from fmseg.networks.vit import ViT
from fmseg.planning.folds import load_folds
from fmseg.planning.patients import known_patients
from fmseg.planning.watching import CASES, LabelledSet, median_size
from fmseg.records.dataset import Dataset
from fmseg.records.labels import LabelScheme
from fmseg.records.plans import Fold, Plans
from fmseg.sampling.corpora import Corpus
from fmseg.sampling.store import Store
from fmseg.workspace import Workspace, dataset_id

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probe:
    """The first fold of a labelled dataset, so that no patient is learned from and scored on."""

    name: str
    #: of the score that counts, in words
    measure: str
    store: Store
    fold: Fold
    labels: LabelScheme | Mapping[str, str]
    patients: Mapping[str, str]

    def scores(self, vit: ViT, moments: Moments) -> dict[str, float]:
        """Return the scores of a backbone, the one that counts first."""
        return probe(vit, moments, self.store, self.fold, self.labels, self.patients)

    @property
    def key(self) -> str:
        """What its scores are called in metrics.jsonl: ``d501``."""
        return f"d{dataset_id(self.name)}"


def fitting_datasets(workspace: Workspace, corpus: Corpus, channels: int) -> list[LabelledSet]:
    """Return the prepared labelled datasets of a modality, pretrained on or not."""
    found = []
    for name in workspace.dataset_names():
        path = workspace.prepared(name) / "plans.json"
        try:
            if not path.exists() or not _fits(Plans.load(path), corpus, channels):
                continue
            opened = open_probe(workspace, name, CASES[0])
        except FmsegError as error:
            logger.info("%s is not probed: %s", name, error)
            continue
        sizes = [(int(height), int(width)) for height, width in opened.store.sizes]
        found.append(LabelledSet(name, len(opened.fold.train), len(opened.fold.val), median_size(sizes)))
    return found


def open_probe(workspace: Workspace, name: str, cases: int) -> Probe:
    """Open a labelled dataset. Raises BadData if a fold has too few patients, NotReady before it is prepared."""
    folder = workspace.prepared(name)
    plans = Plans.load(folder / "plans.json")
    store = Store.of(folder, plans)
    fold = thinned(load_folds(folder / "splits_final.json")[0], store, cases)
    dataset = Dataset.load(workspace.raw_dataset(name))
    patients = known_patients(workspace, dataset, [*fold.train, *fold.val])
    if not fold.val or len({patients[case] for case in fold.train}) < 2:
        raise BadData(f"{name}: it takes two patients to learn from and one to be scored on")
    labels = plans.labels if isinstance(plans.labels, LabelScheme) else dataset.classes_of_cases()
    return Probe(name, MEASURES[plans.task], store, fold, labels, patients)


def open_probes(workspace: Workspace, names: Sequence[str], cases: int) -> list[Probe]:
    """Open what can be opened; the others are named in the log."""
    probes = []
    for name in names:
        try:
            probes.append(open_probe(workspace, name, cases))
        except FmsegError as error:
            logger.warning("%s cannot be probed any more: %s", name, error)
    return probes


def spread_images(corpus: Corpus, most: int) -> Iterator[np.ndarray]:
    """Yield images of all stores, evenly drawn."""
    for index in spread_indices(corpus.num_images, most):
        for store in corpus.stores:
            if index < len(store):
                yield store.image(index)
                break
            index -= len(store)


def _fits(plans: Plans, corpus: Corpus, channels: int) -> bool:
    is_same = plans.modality.split("-")[0] == corpus.modality.split("-")[0]
    return plans.task in MEASURES and is_same and plans.preprocessing.channels == channels
