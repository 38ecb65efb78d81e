"""What a backbone sees in whole images: one feature vector each, for probes and for looking at data."""

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fmseg.networks.vit import ViT


class Images(Protocol):
    """What is needed of a store: prepared images by number."""

    def image(self, index: int) -> np.ndarray:
        """Return (C, h, w), uint8 or float16."""


@torch.no_grad()
def embed(
    vit: ViT,
    images: Images,
    indices: Sequence[int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 32,
) -> np.ndarray:
    """Return (N, 2 D) float32: CLS and mean patch token of each image, in the order of ``indices``.

    mean, std: of the checkpoint, of images in [0, 1]. Images go through whole, in the prepared size, on the
    device of ``vit``; neighbours of one size share a batch.
    """
    device = next(vit.parameters()).device
    vit.eval()
    rows: list[Tensor] = []
    sizes = [images.image(index).shape for index in indices]
    for _, group in groupby(range(len(indices)), key=lambda position: sizes[position]):
        positions = list(group)
        for first in range(0, len(positions), batch_size):
            chunk = [images.image(indices[position]) for position in positions[first : first + batch_size]]
            rows += _features(vit, normalised(np.stack(chunk), mean, std).to(device)).cpu()
    return torch.stack(rows).numpy()


def _features(vit: ViT, image: Tensor) -> Tensor:
    patch = vit.architecture.patch_size
    image = F.pad(image, (0, -image.shape[-1] % patch, 0, -image.shape[-2] % patch))
    tokens = vit(image)  # (B, P + N, D)
    return torch.cat([vit.summary(tokens), tokens[:, vit.num_prefix_tokens :].mean(dim=1)], dim=1).float()


def normalised(batch: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return stored images (N, C, h, w) as the network wants them: (value in [0, 1] - mean) / std."""
    values = torch.from_numpy(batch).float()
    if batch.dtype == np.uint8:
        values = values / 255
    return (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
