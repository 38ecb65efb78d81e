"""What frozen features are worth without any learning: the classes of the nearest training images.

The number of neighbours is chosen as the linear probe chooses its strength: by folds within the training cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fmseg.networks.heads import NearestHead
from fmseg.records.labels import ClassScheme
from fmseg.tasks.linear_probe import Candidate, feature_sets, inner_folds, macro_f1_of

# N images, F features, K classes

#: DINOv2's, and two smaller ones for small sets
NEIGHBOURS = (1, 5, 10, 20, 100, 200)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A filled bank."""

    head: NearestHead
    chosen: Candidate
    candidates: tuple[Candidate, ...]


def fit_neighbours(
    features: np.ndarray, targets: np.ndarray, groups: Sequence[str], scheme: ClassScheme, *, num_blocks: int
) -> Neighbours:
    """Choose how many neighbours vote, and keep all images; features as for ``fit_probe``.

    Only the class token of the last block is compared, as in DINOv2's evaluation.
    """
    name, columns = next(iter(feature_sets(features.shape[1], num_blocks).items()))
    folds = list(inner_folds(targets, groups))
    found = []
    for count in NEIGHBOURS:
        scores = [
            macro_f1_of(
                _head(features[train], targets[train], columns, count, scheme)(_tensor(features[val])).numpy(),
                targets[val],
                scheme,
            )
            for train, val in folds
        ]
        found.append(Candidate(name, count, float(np.mean(scores)) if scores else None))
    # of equals the one with fewer neighbours; where nothing can be chosen: DINOv2's usual 10
    chosen = max(found, key=lambda each: each.macro_f1 or 0.0) if folds else found[NEIGHBOURS.index(10)]
    head = _head(features, targets, columns, int(chosen.strength), scheme)
    return Neighbours(head, chosen, tuple(found))


def _head(
    features: np.ndarray, targets: np.ndarray, columns: np.ndarray, count: int, scheme: ClassScheme
) -> NearestHead:
    head = NearestHead(features.shape[1], targets.shape[1], dropout=0.0)
    bank = torch.nn.functional.normalize(_tensor(features[:, columns]), dim=1)
    head.fill(bank, _tensor(targets), torch.from_numpy(columns), count, is_exclusive=scheme.is_exclusive)
    return head


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
