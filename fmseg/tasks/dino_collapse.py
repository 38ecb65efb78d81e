"""Is the representation alive? Cheap measures of each batch, and RankMe over many features.

A falling loss does not say so: a network that maps everything to one point has the lowest loss of all.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def collapse_measures(features: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return 0-d tensors of a batch.

    features: (T, D), the teacher's CLS tokens. targets: (T, K), its distributions over the prototypes.
    ``feature_std``: spread of the normalised features, 1 for all directions alike, 0 for a single point.
    ``target_entropy``: of one target, from 0 (one prototype) to log K (says nothing).
    ``prototype_usage``: effective share of the prototypes that the batch uses together.
    """
    with torch.autocast(features.device.type, enabled=False):
        points = F.normalize(features.float(), dim=-1)
        spread = points.var(0, correction=0).sum().sqrt()
        entropy = torch.special.entr(targets).sum(-1).mean()
        usage = torch.special.entr(targets.mean(0)).sum().exp() / targets.shape[1]
    return {"feature_std": spread, "target_entropy": entropy, "prototype_usage": usage}


@torch.no_grad()
def rankme(features: Tensor) -> Tensor:
    """Return RankMe, the effective number of dimensions of features (N, D): between 1 and min(N, D).

    Garrido et al., 2023. https://arxiv.org/abs/2210.02885
    """
    singular = torch.linalg.svdvals(features.float())
    shares = singular / (singular.sum() + 1e-7)
    return torch.exp(-(shares * torch.log(shares + 1e-7)).sum())
