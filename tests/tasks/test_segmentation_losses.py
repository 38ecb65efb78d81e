import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn import functional as F

from fmseg.errors import UnknownName
from fmseg.networks.ranks import alone
from fmseg.records.labels import LabelScheme
from fmseg.tasks.segmentation_losses import losses

CLASSES = LabelScheme(names=("a", "b"), values=((1,), (2,)), painted=(1, 2), has_regions=False, ignore=3)
REGIONS = LabelScheme(names=("whole", "core"), values=((1, 2), (2,)), painted=(1, 2), has_regions=True, ignore=3)
SCHEMES = pytest.mark.parametrize("scheme", [CLASSES, REGIONS], ids=["classes", "regions"])


def batch(scheme, num_images=4, values=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(num_images, scheme.num_outputs, 9, 7, generator=generator)
    return logits, torch.randint(0, values, (num_images, 9, 7), generator=generator)


def membership(labels, scheme):
    groups = scheme.values if scheme.has_regions else ((0,), *scheme.values)
    return torch.stack([sum(labels == value for value in group) for group in groups], dim=1).float()


def test_soft_dice_of_two_squares_by_hand():
    """Two images: class 1 is half found (probability 1 on 2 of 4 pixels), class 2 is painted where nothing is."""
    labels = torch.zeros(2, 4, 4, dtype=torch.int64)
    labels[0, :2, :2] = 1
    found = torch.zeros(2, 4, 4, dtype=torch.int64)
    found[0, :1, :2] = 1
    found[1, 0, 0] = 2
    logits = 100 * F.one_hot(found, 3).permute(0, 3, 1, 2).float()
    loss, values = losses["ce_dice"](CLASSES)(logits, labels)
    torch.testing.assert_close(values["dice_loss"], torch.tensor(1 - (2 * 2 / (2 + 4) + 0) / 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(values["dice"], torch.tensor(1 / 3))
    torch.testing.assert_close(values["ce"], torch.tensor(100 * 3 / 32))  # three wrong pixels of 32
    torch.testing.assert_close(loss, values["ce"] + values["dice_loss"])


@pytest.mark.slow  # importing MONAI takes ten seconds
@SCHEMES
def test_dice_agrees_with_monai(scheme):
    from monai.losses import DiceLoss

    logits, labels = batch(scheme)
    reference = DiceLoss(
        include_background=scheme.has_regions,
        softmax=not scheme.has_regions,
        sigmoid=scheme.has_regions,
        batch=True,
        smooth_nr=1e-5,
        smooth_dr=1e-5,
    )
    expected = reference(logits, membership(labels, scheme))
    torch.testing.assert_close(losses["ce_dice"](scheme)(logits, labels)[1]["dice_loss"], expected)


def test_cross_entropy_of_classes_agrees_with_torch():
    logits, labels = batch(CLASSES, values=4)
    expected = F.cross_entropy(logits, labels, ignore_index=3)
    torch.testing.assert_close(losses["ce"](CLASSES)(logits, labels)[0], expected)


def test_cross_entropy_of_regions_agrees_with_torch():
    logits, labels = batch(REGIONS)
    expected = F.binary_cross_entropy_with_logits(logits, membership(labels, REGIONS))
    torch.testing.assert_close(losses["ce"](REGIONS)(logits, labels)[0], expected)


@pytest.mark.parametrize("name", losses.names())
@SCHEMES
def test_ignored_pixels_count_nowhere(name, scheme):
    logits, labels = batch(scheme, values=4)
    logits.requires_grad_()
    loss, values = losses[name](scheme)(logits, labels)
    loss.backward()
    ignored = (labels == 3)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].any()
    other = torch.where(ignored, torch.randn_like(logits), logits.detach())
    assert torch.equal(losses[name](scheme)(other, labels)[0], loss.detach())
    assert torch.equal(losses[name](scheme)(other, labels)[1]["dice"], values["dice"])


@SCHEMES
def test_a_batch_of_ignored_pixels_only_has_finite_loss_and_no_gradient(scheme):
    logits, labels = batch(scheme)
    logits.requires_grad_()
    loss, values = losses["ce_dice"](scheme)(logits, torch.full_like(labels, 3))
    loss.backward()
    assert loss.isfinite()
    assert all(value.isfinite() for value in values.values())
    assert not logits.grad.any()


@pytest.mark.parametrize("name", losses.names())
@SCHEMES
def test_a_perfect_prediction_costs_nothing_and_its_dice_is_one(name, scheme):
    _, labels = batch(scheme)
    loss, values = losses[name](scheme)(200 * (membership(labels, scheme) - 0.5), labels)
    assert 0 <= loss < 1e-5
    assert values["dice"] == 1
    assert all(value.ndim == 0 and not value.requires_grad for value in values.values())


def test_dice_that_is_shown_leaves_out_classes_that_do_not_occur():
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[0, 0] = 1
    logits = 10 * F.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    assert losses["ce_dice"](CLASSES)(logits, labels)[1]["dice"] == 1


@SCHEMES
def test_the_order_of_the_images_does_not_matter(scheme):
    logits, labels = batch(scheme, values=4)
    loss = losses["ce_dice"](scheme)
    torch.testing.assert_close(loss(logits, labels)[0], loss(logits.flip(0), labels.flip(0))[0])


def test_half_precision_logits_are_summed_in_float32():
    logits, labels = batch(CLASSES)
    half = logits.bfloat16()
    loss, _ = losses["ce_dice"](CLASSES)(half, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, losses["ce_dice"](CLASSES)(half.float(), labels)[0])


def test_an_unknown_loss_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'ce_dice'"):
        losses["ce_dise"]


def loss_of_a_rank(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    logits, labels = batch(CLASSES, values=4)
    own = logits[2 * rank : 2 * rank + 2].requires_grad_()
    if rank == 0:
        with alone():  # a rank that tries its memory does not wait for the others
            losses["ce_dice"](CLASSES)(own, labels[:2])
    loss, values = losses["ce_dice"](CLASSES)(own, labels[2 * rank : 2 * rank + 2])
    loss.backward()
    torch.save({"loss": loss.detach(), "grad": own.grad, **values}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_have_the_loss_and_the_gradient_of_one(tmp_path):
    multiprocessing.start_processes(loss_of_a_rank, (str(tmp_path),), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    logits, labels = batch(CLASSES, values=4)
    logits.requires_grad_()
    loss, values = losses["ce_dice"](CLASSES)(logits, labels)
    loss.backward()
    for rank in (first, second):
        torch.testing.assert_close(rank["loss"], loss.detach())
        torch.testing.assert_close({name: rank[name] for name in values}, values)
    # gradients of the ranks are averaged over them, so each is twice its share
    torch.testing.assert_close(torch.cat([first["grad"], second["grad"]]) / 2, logits.grad)
