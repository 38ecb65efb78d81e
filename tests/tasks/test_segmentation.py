import pytest
import torch

from fmseg.networks.segmenter import build_segmenter
from fmseg.networks.unet import UNet
from fmseg.records.labels import LabelScheme
from fmseg.records.plans import Architecture
from fmseg.records.recipe import Recipe, UNetShape
from fmseg.tasks.segmentation import SegmentationTask
from fmseg.tasks.segmentation_losses import losses

ARCHITECTURE = Architecture(
    name="tiny",
    patch_size=8,
    width=32,
    depth=4,
    num_heads=2,
    mlp_ratio=2.0,
    ffn="mlp",
    num_registers=0,
    layer_scale=0.1,
    layer_norm_eps=1e-6,
    channels=1,
    image_size=(48, 48),
    position_interpolation="size",
    position_antialias=True,
)
CLASSES = LabelScheme(names=("bright", "dim"), values=((1,), (2,)), painted=(1, 2), has_regions=False, ignore=None)
REGIONS = LabelScheme(names=("all", "dim"), values=((1, 2), (2,)), painted=(1, 2), has_regions=True, ignore=None)


def build(decoder="upernet", scheme=CLASSES, ema_decay=0.0, freeze_backbone=False):
    torch.manual_seed(0)
    recipe = Recipe.model_construct(
        decoder=decoder, decoder_channels=32, freeze_backbone=freeze_backbone, drop_path=0.0
    )
    segmenter = build_segmenter(recipe, ARCHITECTURE, scheme.num_outputs)
    return SegmentationTask(segmenter, scheme, loss_name="ce_dice", ema_decay=ema_decay)


def discs():
    """Four images of a bright and a dim disc in noise, and their label maps."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    labels = torch.zeros(4, 48, 48, dtype=torch.int64)
    for index, (row, column) in enumerate([(14, 14), (14, 30), (30, 14), (24, 20)]):
        labels[index][(y - row) ** 2 + (x - column) ** 2 < 81] = 1
        labels[index][(y - 40) ** 2 + (x - 40 + 8 * index) ** 2 < 36] = 2
    image = torch.tensor([-1.0, 2.0, 0.5])[labels] + 0.2 * torch.randn(4, 48, 48, generator=generator)
    return {"image": image[:, None], "label": labels}


def train(task, steps, learning_rate=3e-3, start=0):
    batch = discs()
    learning = [value for value in task.model.parameters() if value.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=learning_rate)
    for step in range(start, start + steps):
        loss, _ = task.training_loss(batch, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        task.after_step(step)


@pytest.mark.parametrize("scheme", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_four_images_are_learned_by_heart(scheme):
    task, batch = build(scheme=scheme).train(), discs()
    optimiser = torch.optim.AdamW(task.model.parameters(), lr=2e-3)
    for step in range(100):
        loss, _ = task.training_loss(batch, step)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), 1.0)
        optimiser.step()
    _, values = task.eval().training_loss(batch, 100)
    assert values["dice"] > 0.95


def test_values_are_detached_and_without_axes():
    loss, values = build().training_loss(discs(), 0)
    assert loss.requires_grad
    assert set(values) == {"ce", "dice_loss", "dice"}
    assert all(value.ndim == 0 and not value.requires_grad for value in values.values())


def test_the_average_obeys_its_law_and_warms_up():
    task = build(ema_decay=0.9).train()
    name = "decoder.classify.weight"
    expected = task.model.state_dict()[name].clone()
    decays = []
    for step in range(100):
        with torch.no_grad():
            task.model.get_parameter(name).add_(torch.randn(1))
        task.after_step(step)
        decays.append(min(0.9, (1 + step) / (10 + step)))
        expected = decays[-1] * expected + (1 - decays[-1]) * task.model.get_parameter(name).detach()
    torch.testing.assert_close(task.averaged.get_parameter(name).detach(), expected)
    assert decays[0] == 0.1
    assert decays[-1] == 0.9


def test_the_average_of_weights_that_stand_still_is_these_weights():
    task = build(ema_decay=0.99)
    before = {key: value.clone() for key, value in task.averaged.state_dict().items()}
    for step in range(5):
        task.after_step(step)
    assert all(torch.equal(before[key], value) for key, value in task.averaged.state_dict().items())


def test_buffers_of_the_average_are_those_of_the_model():
    task = build("linear", ema_decay=0.9).train()
    train(task, 3)
    buffers = dict(task.averaged.named_buffers())
    assert buffers["decoder.norm.num_batches_tracked"] == 3
    assert all(torch.equal(value, buffers[name]) for name, value in task.model.named_buffers())


def test_the_average_learns_nothing_and_is_always_evaluated():
    task = build(ema_decay=0.9).train()
    assert task.model.training
    assert not any(module.training for module in task.averaged.modules())
    assert not any(value.requires_grad for value in task.averaged.parameters())


def test_without_averaging_the_model_itself_is_kept():
    task = build(ema_decay=0.0)
    assert task.averaged is task.model
    train(task, 1)
    assert all(name.startswith("model.") for name in task.state_dict())


@pytest.mark.parametrize("decoder", ["upernet", "linear"])
def test_a_run_that_is_resumed_from_its_state_ends_in_the_same_bits(decoder):
    torch.manual_seed(1)
    whole = build(decoder, ema_decay=0.9).train()
    torch.manual_seed(1)
    train(whole, 2)
    state = {key: value.clone() for key, value in whole.state_dict().items()}
    torch.manual_seed(2)  # dropout
    train(whole, 2, start=2)
    resumed = build(decoder, ema_decay=0.9).train()
    resumed.load_state_dict(state)
    torch.manual_seed(2)
    train(resumed, 2, start=2)
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())


def test_a_frozen_backbone_stays_as_it_is():
    task = build("linear", ema_decay=0.9, freeze_backbone=True).train()
    before = {key: value.clone() for key, value in task.state_dict().items()}
    train(task, 3, learning_rate=0.1)
    changed = {key for key, value in task.state_dict().items() if not torch.equal(before[key], value)}
    assert {key.split(".")[1] for key in changed} == {"decoder"}
    assert {key.split(".")[0] for key in changed} == {"model", "average"}


def test_gradients_are_clipped_over_all_that_learns():
    task = build(ema_decay=0.9)
    clipped = {id(value) for module in task.clip_modules() for value in module.parameters()}
    assert {id(value) for value in task.parameters() if value.requires_grad} <= clipped


def unet_task(scheme=CLASSES):
    torch.manual_seed(0)
    shape = UNetShape(
        features=(8, 16, 16, 16),
        kernels=((3, 3),) * 4,
        strides=((1, 1), (2, 2), (2, 2), (2, 2)),
        supervision=(0.6667, 0.3333),
    )
    return SegmentationTask(UNet(shape, 1, scheme.num_outputs), scheme, loss_name="ce_dice", ema_decay=0.0)


def test_a_unet_learns_at_each_resolution_by_its_share():
    ignoring = CLASSES.evolve(ignore=3)
    task, batch = unet_task(ignoring).train(), discs()
    batch["label"][:, :9] = 3
    loss, values = task.training_loss(batch, 0)
    criterion = losses["ce_dice"](ignoring)
    fine, coarse = task.model.scales(batch["image"])
    first, expected_values = criterion(fine, batch["label"])
    second, _ = criterion(coarse, batch["label"][:, ::2, ::2])
    torch.testing.assert_close(loss, 0.6667 * first + 0.3333 * second)
    assert values["dice"] == expected_values["dice"]


def test_a_unet_learns_four_images_by_heart():
    task, batch = unet_task().train(), discs()
    optimiser = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    for step in range(40):
        loss, _ = task.training_loss(batch, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    _, values = task.eval().training_loss(batch, 40)
    assert values["dice"] > 0.95
