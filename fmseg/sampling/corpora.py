"""Which prepared datasets are pretrained on together: those of one modality and number of channels."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from fmseg.errors import NotReady
from fmseg.files import sha256
from fmseg.records.plans import Plans
from fmseg.sampling.store import Store, store_folder
from fmseg.workspace import Workspace, dataset_id

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The prepared datasets of one modality."""

    modality: str
    names: tuple[str, ...]
    plans: tuple[Plans, ...]
    stores: tuple[Store, ...]

    @property
    def num_images(self) -> int:
        """Number of 2D images in all stores."""
        return sum(len(store) for store in self.stores)

    @property
    def default_name(self) -> str:
        """A checkpoint's name that says what it has seen: ``d501-d902``."""
        parts = [f"d{dataset_id(name)}" for name in self.names]
        if len(parts) <= 4:
            return "-".join(parts)
        return f"{parts[0]}-and-{len(parts) - 1}-more-{sha256('-'.join(parts).encode())[:6]}"


def collect_corpora(workspace: Workspace, names: Sequence[str]) -> list[Corpus]:
    """Return the prepared datasets by modality and number of channels."""
    groups: dict[str, list[tuple[str, Plans]]] = {}
    for name in names:
        path = workspace.prepared(name) / "plans.json"
        plans = Plans.load(path) if path.exists() else None
        if plans is None or not store_folder(path.parent, plans).exists():
            logger.warning("%s is left out: not prepared yet. fmseg plan_and_preprocess -d %d", name, dataset_id(name))
            continue
        channels = plans.preprocessing.channels
        modality = plans.modality if channels == 1 else f"{plans.modality}-{channels}channels"
        groups.setdefault(modality, []).append((name, plans))
    if not groups:
        raise NotReady("No dataset is prepared yet. Begin with: fmseg plan_and_preprocess -d 501")
    corpora = []
    for modality, members in groups.items():
        stores = tuple(Store.of(workspace.prepared(name), plans) for name, plans in members)
        corpora.append(Corpus(modality, tuple(n for n, _ in members), tuple(p for _, p in members), stores))
    return corpora
