"""What a backbone makes of images that nobody has labelled: its tokens, where it looks, which parts it holds alike.

Legend: N images, h w patches, D width, A heads.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fmseg.inference.features import normalised
from fmseg.networks.vit import ViT

#: mean and std of a checkpoint, of images in [0, 1]
Moments = tuple[Sequence[float], Sequence[float]]
#: patches of an image that RankMe of patches is measured on
PATCHES_PER_IMAGE = 8


def spread_indices(total: int, most: int) -> list[int]:
    """Return at most ``most`` numbers below ``total``, evenly spaced, each in the middle of its share."""
    count = min(most, total)
    return [int((position + 0.5) * total / count) for position in range(count)]


@torch.no_grad()
def sampled_tokens(vit: ViT, images: Iterable[np.ndarray], moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Return the CLS tokens (N, D), and some patch tokens of each image (n, D), evenly spaced; float32.

    images: stored (C, H, W) each; they go through whole, in the prepared size.
    """
    cls, patches = [], []
    for image in images:
        tokens = vit.eval()(prepared(vit, image, moments))[0].float().cpu()
        own = tokens[vit.num_prefix_tokens :]
        cls.append(vit.summary(tokens[None])[0])
        patches.append(own[spread_indices(len(own), PATCHES_PER_IMAGE)])
    return torch.stack(cls).numpy(), torch.cat(patches).numpy()


@torch.no_grad()
def look_closely(vit: ViT, image: np.ndarray, moments: Moments, long_side: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the attention of CLS in the last block (A, h, w), and the patch tokens (h, w, D).

    A head's attention sums to 1 together with that to the tokens that are no patch. It is None for a ViT without CLS,
    or whose attention depends on positions.

    image: stored (C, H, W); it goes through enlarged, so that its longer side has about ``long_side`` patches. The
    attention's weights exist nowhere else: they are computed here from the block's queries and keys.
    """
    grown = prepared(vit, image, moments, long_side)
    caught: list[Tensor] = []
    attention: Any = vit.blocks[-1].attn
    handle = attention.qkv.register_forward_hook(lambda module, inputs, output: caught.append(output))
    try:
        tokens = vit.eval()(grown)[0].float()
    finally:
        handle.remove()
    patch = vit.architecture.patch_size
    grid = (grown.shape[-2] // patch, grown.shape[-1] // patch)
    features = tokens[vit.num_prefix_tokens :].unflatten(0, grid).cpu().numpy()
    if vit.cls_token is None or vit.architecture.relation != "none":
        return None, features
    query, key, _ = caught[0].reshape(len(tokens), 3, attention.num_heads, -1).float().permute(1, 2, 0, 3)
    scores = query[:, :1] @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (A, 1, P + N)
    weights = scores.softmax(-1)[:, 0, vit.num_prefix_tokens :]
    return weights.unflatten(1, grid).cpu().numpy(), features


def prepared(vit: ViT, image: np.ndarray, moments: Moments, long_side: int | None = None) -> Tensor:
    """Return (1, C, H, W) on the network's device: normalised, resized to whole patches; see ``look_closely``."""
    patch = vit.architecture.patch_size
    batch = normalised(image[None], *moments)
    height, width = batch.shape[-2:]
    scale = 1.0 if long_side is None else max(1.0, long_side * patch / max(height, width))
    size = [max(1, round(side * scale / patch)) * patch for side in (height, width)]
    if size != [height, width]:
        batch = F.interpolate(batch, size=size, mode="bicubic", antialias=True)
    return batch.to(next(vit.parameters()).device)
