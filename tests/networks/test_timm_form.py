"""A checkpoint in timm's form answers as our ViT does."""

import pytest
import torch
from conftest import ARCHITECTURE

from fmseg.networks.timm_form import as_timm
from fmseg.networks.vit import ViT
from fmseg.records.plans import Architecture

VARIANTS = [
    {},
    {"num_registers": 0, "layer_scale": 0.1},
    {"ffn": "swiglu", "position_antialias": True},
    {"position_interpolation": "offset", "channels": 3},
]


def pair(**changes):
    torch.manual_seed(0)
    vit = ViT(Architecture.parse(ARCHITECTURE | changes, "test")).eval()
    with torch.no_grad():  # no weight may be zero, or a mix-up would not be seen
        for parameter in vit.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    channels = vit.architecture.channels
    return vit, as_timm(vit, (0.4,) * channels, (0.2,) * channels)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("size", [(32, 32), (16, 48), (40, 40)], ids=str)
@torch.no_grad()
def test_tokens_are_those_of_our_vit_at_any_size(changes, size):
    vit, timms = pair(**changes)
    image = torch.randn(2, vit.architecture.channels, *size)
    torch.testing.assert_close(timms.forward_features(image), vit(image), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_it_has_what_tools_around_timm_expect():
    from timm.data import resolve_model_data_config

    vit, timms = pair()
    image = torch.randn(2, 1, 32, 32)
    assert timms.num_features == timms.embed_dim == 32 and timms.num_prefix_tokens == vit.num_prefix_tokens
    assert timms(image).shape == (2, 32) and not timms.training
    assert timms.forward_head(timms.forward_features(image), pre_logits=True).shape == (2, 32)
    maps = timms.forward_intermediates(image, indices=[0, 1], norm=True, intermediates_only=True)
    for one, other in zip(maps, vit.forward_taps(image, [0, 1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    config = resolve_model_data_config(timms)
    assert (config["mean"], config["std"], config["input_size"]) == ((0.4,), (0.2,), (1, 32, 32))
    timms.reset_classifier(3)
    assert timms(image).shape == (2, 3)
    assert timms(torch.randn(1, 1, 30, 35)).shape == (1, 3)  # filled up to whole patches
