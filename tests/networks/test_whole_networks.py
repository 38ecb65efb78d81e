"""The contract of all networks that draw label maps, and what each baseline has of its own."""

import pytest
import torch
from torch.nn import functional as F

from fmseg.networks import unet
from fmseg.networks.multiresunet import MultiResBlock, MultiResUNet
from fmseg.networks.segmenter import segmenters
from fmseg.networks.unet import UNet
from fmseg.networks.unetr import Unetr
from fmseg.records.plans import Architecture
from fmseg.records.recipe import Recipe, UNetShape

SHAPE = UNetShape(
    features=(4, 8, 16, 16),
    kernels=((3, 3),) * 4,
    strides=((1, 1), (2, 2), (2, 2), (2, 1)),
    supervision=(0.6667, 0.3333),
)
ARCHITECTURE = Architecture(
    name="tiny",
    patch_size=8,
    width=16,
    depth=2,
    num_heads=2,
    mlp_ratio=2.0,
    ffn="mlp",
    num_registers=0,
    layer_scale=None,
    layer_norm_eps=1e-6,
    channels=2,
    image_size=(40, 56),
    position_interpolation="size",
    position_antialias=True,
)
SIZE = (40, 56)


def build(name):
    torch.manual_seed(0)
    recipe = Recipe.model_construct(
        network=name,
        decoder="linear",
        decoder_channels=4,
        freeze_backbone=False,
        drop_path=0.0,
        input_size=SIZE,
        unet=SHAPE,
    )
    return segmenters[name](recipe, ARCHITECTURE, 3)


def test_the_baselines_of_the_paper_are_there():
    assert {"vit", "unet", "unetr", "multiresunet"} <= set(segmenters)


@pytest.mark.parametrize("name", segmenters.names())
def test_logits_have_the_size_of_the_image_and_are_float32_under_autocast(name):
    network, image = build(name).eval(), torch.randn(2, 2, *SIZE)
    assert network(image).shape == (2, 3, *SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(image).dtype == torch.float32


@pytest.mark.parametrize("name", segmenters.names())
def test_images_of_a_batch_do_not_mix_in_evaluation(name):
    network, image = build(name).eval(), torch.randn(3, 2, *SIZE)
    torch.testing.assert_close(network(image)[1:2], network(image[1:2]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", segmenters.names())
def test_gradients_reach_every_parameter_that_learns(name):
    network, image = build(name).train(), torch.randn(2, 2, *SIZE)
    maps = network.scales(image) if isinstance(network, UNet) else [network(image)]
    sum(each.square().mean() for each in maps).backward()
    assert not [key for key, value in network.named_parameters() if value.requires_grad and value.grad is None]


@pytest.mark.parametrize("name", segmenters.names())
def test_weights_are_a_function_of_the_seed(name):
    one, two = build(name).state_dict(), build(name).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", ["unet", "multiresunet"])
@pytest.mark.parametrize("size", [(33, 47), (5, 8), (64, 20)])
def test_convolutions_take_images_of_any_size(name, size):
    assert build(name).train()(torch.randn(2, 2, *size)).shape == (2, 3, *size)


def test_the_unet_answers_at_the_resolutions_that_it_learns_at():
    network = build("unet")
    assert network.strides == [(1, 1), (2, 2)]
    assert [tuple(each.shape[-2:]) for each in network.scales(torch.randn(1, 2, 37, 50))] == [(37, 50), (19, 25)]
    assert network.total_stride == (8, 4)


def test_the_unet_is_monais_at_every_resolution():
    network, image = build("unet").train(), torch.randn(2, 2, 40, 56)
    torch.manual_seed(0)
    reference = unet._dynunet(SHAPE, 2, 3).train()
    first, second = reference(image).unbind(1)
    ours = network.scales(image)
    assert torch.equal(ours[0], first)
    assert torch.equal(F.interpolate(ours[1], size=(40, 56)), second)
    assert torch.equal(network.eval()(image), reference.eval()(image))


def test_a_unet_of_three_stages_learns_at_one_resolution():
    shape = UNetShape(features=(4, 4, 4), kernels=((3, 3),) * 3, strides=((1, 1), (2, 2), (2, 2)), supervision=(1.0,))
    assert len(UNet(shape, 1, 2).scales(torch.randn(1, 1, 16, 16))) == 1


def test_unetr_takes_the_size_that_it_was_built_for():
    network = build("unetr")
    assert isinstance(network, Unetr)
    with pytest.raises(ValueError, match="40, 56"):
        network(torch.randn(1, 2, 32, 32))


def test_a_multires_block_is_about_as_wide_as_planned():
    # the published widths for 32 and 512 maps, which are rounded down part by part
    assert [MultiResBlock(1, width).outputs for width in (32, 512)] == [51, 854]
    weights = sum(value.numel() for value in MultiResUNet(3, 1, 32).parameters())
    assert 7.0e6 < weights < 7.4e6  # 7.26 million in the paper
