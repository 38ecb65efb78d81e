"""Weights fitted to other images than those that they were made for: other channels, other patches."""

import torch
from torch import Tensor

from fmseg.errors import UsageError
from fmseg.networks.sources.source import State
from fmseg.records.foundation import moments_for
from fmseg.records.plans import Architecture

STEM, BIAS = "patch_embed.proj.weight", "patch_embed.proj.bias"


def fit_channels(state: State, mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> State:
    """Return the weights for images of so many channels, normalised by ``moments_for``.

    Three channels become one exactly: it gives what three times the same grey image gave, its normalisation folded
    into the stem. One becomes three exactly for grey images; of others it sees the mean of the channels.
    """
    weight, bias = state[STEM], state[BIAS]  # (D, C, p, p), (D)
    if weight.shape[1] == channels:
        return state
    (new_mean, *_), (new_std, *_) = moments_for(mean, std, channels)
    if channels == 1:
        scale, shift = (_per_channel(values) for values in ([new_std / s for s in std], _shifts(new_mean, mean, std)))
        bias = bias + (weight.double() * shift).sum((1, 2, 3)).float()
        weight = (weight.double() * scale).sum(1, keepdim=True).float()
    else:
        weight = weight.repeat(1, channels, 1, 1) / channels
    return state | {STEM: weight, BIAS: bias}


def _shifts(new_mean: float, mean: tuple[float, ...], std: tuple[float, ...]) -> list[float]:
    return [(new_mean - m) / s for m, s in zip(mean, std, strict=True)]


def _per_channel(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def fit_patch(state: State, architecture: Architecture, patch: int) -> tuple[State, Architecture]:
    """Return weights and architecture for patches of another size, on the same grid.

    The stem answers to an image that was scaled up as it did to the image itself, as far as that can be (its kernel
    is resampled by the pseudo-inverse of scaling [1]): close, not exact.

    [1] Beyer et al., FlexiViT, 2023. https://arxiv.org/abs/2212.08013
    """
    if patch == architecture.patch_size:
        return state, architecture
    if patch < 1:
        raise UsageError(f"--patch {patch}: type its side in pixels, as in --patch 16.")
    from timm.layers import resample_patch_embed

    size = tuple(side // architecture.patch_size * patch for side in architecture.image_size)
    stem = resample_patch_embed(state[STEM], [patch, patch]).contiguous()
    return state | {STEM: stem}, architecture.evolve(patch_size=patch, image_size=size)
