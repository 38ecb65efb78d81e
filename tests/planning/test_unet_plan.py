import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fmseg.errors import BadRecord, UsageError
from fmseg.networks.unet import UNet
from fmseg.planning.length import of_length
from fmseg.planning.overview import ONE_GPU, TWO_CORES
from fmseg.planning.unet import stages_of, supervision_of, unet_gflop
from fmseg.records.recipe import UNetShape, resolve


def pools(size, spacing=(1.0, 1.0)):
    """How often each axis is halved."""
    strides = stages_of(size, spacing)[1]
    return tuple(sum(stride[axis] == 2 for stride in strides) for axis in (0, 1))


@pytest.mark.parametrize(
    ("size", "halvings"),
    [((224, 224), (5, 5)), ((512, 512), (7, 7)), ((512, 640), (7, 7)), ((32, 32), (3, 3)), ((192, 272), (5, 5))],
)
def test_depth_follows_the_size_as_in_nnunet(size, halvings):
    assert pools(size) == halvings


def test_a_long_side_is_halved_on_alone_while_it_is_worth_it():
    assert pools((32, 256)) == (3, 5)  # 8 pixels beside 4 are left


def test_a_coarse_axis_waits_for_the_fine_one():
    kernels, strides = stages_of((64, 256), (4.0, 1.0))
    assert strides[:4] == ((1, 1), (1, 2), (1, 2), (2, 2))
    assert kernels[:3] == ((1, 3), (1, 3), (3, 3))


def test_tiny_images_get_the_stages_that_the_network_needs():
    assert stages_of((6, 9), (1.0, 1.0))[1] == ((1, 1), (2, 2), (2, 2))


def test_operations_are_those_that_torch_counts():
    kernels, strides = stages_of((64, 96), (1.0, 1.0))
    shape = UNetShape(
        features=(8, 16, 32, 32, 32)[: len(strides)],
        kernels=kernels,
        strides=strides,
        supervision=supervision_of(len(strides) - 1),
    )
    network = UNet(shape, channels=1, num_outputs=2).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, 64, 96))
    # the rule leaves out the layers that make logits
    assert unet_gflop(shape, (64, 96)) == pytest.approx(counter.get_total_flops() / 1e9, rel=0.1)


def test_supervision_halves_and_adds_up_to_one():
    weights = supervision_of(5)
    assert weights == (0.5333, 0.2667, 0.1333, 0.0667)
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    assert supervision_of(2) == (1.0,)


def test_a_long_run_learns_as_nnunet_does_and_a_short_one_as_all_others(make_plans):
    long = resolve("unet", make_plans(ONE_GPU).finetuning, {})
    assert (long.optimizer, long.learning_rate, long.momentum, long.schedule_power) == ("sgd", 0.01, 0.99, 0.9)
    assert (long.weight_decay, long.clip_norm, long.unet.features[0], max(long.unet.features)) == (3e-5, 12.0, 32, 512)
    planned = of_length(make_plans(TWO_CORES).finetuning, 500)
    short = resolve("unet", planned, {})
    assert (short.optimizer, short.learning_rate) == ("adamw", planned.learning_rate)
    assert short.unet.features[0] == 16


def test_the_planned_network_can_be_built_and_takes_the_planned_size(make_plans):
    recipe = make_plans(TWO_CORES, median_size=[60, 90]).finetuning
    maps = UNet(recipe.unet, 1, 2).scales(torch.zeros(1, 1, *recipe.input_size))
    assert len(maps) == len(recipe.unet.supervision)
    assert tuple(maps[0].shape[-2:]) == recipe.input_size


def test_only_the_unet_keeps_its_shape(make_plans):
    planned = make_plans().finetuning
    assert resolve("upernet", planned, {}).unet is None
    recipe = resolve("unet", planned, {"unet.features": "[8, 16, 32, 32, 32, 32]"})
    assert recipe.unet.features[0] == 8 and recipe.unet_optimisation is None
    with pytest.raises(BadRecord, match="each stage of the U-Net"):
        resolve("unet", planned, {"unet.features": "[8, 16]"})


@pytest.mark.parametrize(
    ("key", "value"), [("decoder_channels", "32"), ("freeze_backbone", "true"), ("layer_decay", "0.9")]
)
def test_settings_of_parts_that_a_network_lacks_are_refused(make_plans, key, value):
    planned = make_plans().finetuning
    assert resolve("upernet", planned, {key: value}) != resolve("upernet", planned, {})
    with pytest.raises(UsageError, match=f"--set {key}={value} would change nothing: the recipe unet"):
        resolve("unet", planned, {key: value})
