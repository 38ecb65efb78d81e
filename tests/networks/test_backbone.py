import pytest
import torch
from torch.nn import functional as F

from fmseg.networks.backbone import Backbone, tap_blocks
from fmseg.networks.vit import ViT
from fmseg.records.plans import Architecture

ARCHITECTURE = Architecture(
    name="tiny",
    patch_size=8,
    width=32,
    depth=4,
    num_heads=2,
    mlp_ratio=2.0,
    ffn="mlp",
    num_registers=1,
    layer_scale=0.1,
    layer_norm_eps=1e-6,
    channels=1,
    image_size=(32, 32),
    position_interpolation="size",
    position_antialias=True,
)


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return Backbone(ViT(ARCHITECTURE), tap_blocks(4)).eval()


def test_taps_are_those_of_ultradino_and_scale_with_depth():
    assert tap_blocks(12) == (3, 5, 7, 11)
    assert tap_blocks(24) == (7, 11, 15, 23)
    assert tap_blocks(4) == (0, 1, 2, 3)


@pytest.mark.parametrize("depth", range(1, 41))
def test_taps_ascend_and_end_with_the_last_block(depth):
    taps = tap_blocks(depth)
    assert len(taps) == 4
    assert list(taps) == sorted(taps)
    assert taps[0] >= 0
    assert taps[-1] == depth - 1
    if depth >= 4:
        assert len(set(taps)) == 4 or depth == 5


@pytest.mark.parametrize(("size", "grid"), [((32, 32), (4, 4)), ((33, 57), (5, 8)), ((1, 7), (1, 1)), ((8, 9), (1, 2))])
def test_any_image_size_gives_one_map_per_tap(backbone, size, grid):
    features = backbone(torch.randn(2, 1, *size))
    assert len(features) == len(backbone.channels) == len(backbone.strides) == 4
    for feature, channels, stride in zip(features, backbone.channels, backbone.strides, strict=True):
        assert feature.shape == (2, channels, *grid)
        assert stride == 8


def test_an_odd_image_is_filled_up_with_zeros_at_the_right_and_bottom(backbone):
    image = torch.randn(1, 1, 21, 30)
    by_hand = backbone(F.pad(image, (0, 2, 0, 3)))
    for feature, expected in zip(backbone(image), by_hand, strict=True):
        assert torch.equal(feature, expected)


def test_a_shallow_vit_gives_a_block_twice():
    vit = ViT(ARCHITECTURE.evolve(depth=2)).eval()
    features = Backbone(vit, tap_blocks(2))(torch.randn(1, 1, 16, 16))
    assert torch.equal(features[0], features[1])
    assert not torch.equal(features[0], features[3])
