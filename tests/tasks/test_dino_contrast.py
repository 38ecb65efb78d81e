import math

import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn import functional as F

from fmseg.networks.ranks import alone
from fmseg.tasks.dino_contrast import contrast_crops, contrast_patches

IMAGES, LOCALS, WIDTH, TEMPERATURE = 4, 3, 8, 0.2


def unit_rows(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, WIDTH, generator=generator), dim=1)


def test_rows_that_say_nothing_cost_the_logarithm_of_the_images():
    rows = unit_rows(1, 0).expand((LOCALS + 2) * IMAGES, -1)
    teacher = unit_rows(1, 1).expand(2 * IMAGES, -1)
    assert contrast_crops(rows, teacher, TEMPERATURE).item() == pytest.approx(math.log(IMAGES), rel=1e-5)
    assert contrast_patches(rows, rows, torch.full((len(rows),), 1 / len(rows)), TEMPERATURE).item() == pytest.approx(
        math.log(len(rows)), rel=1e-5
    )


def test_the_teachers_own_rows_cost_nearly_nothing_and_others_images_much():
    images = F.normalize(torch.eye(WIDTH)[:IMAGES], dim=1)
    teacher, student = images.repeat(2, 1), images.repeat(LOCALS + 2, 1)
    right = contrast_crops(student, teacher, 0.02)
    wrong = contrast_crops(student.roll(1, 0), teacher, 0.02)
    assert right.item() < 1e-6 and wrong.item() == pytest.approx(50, rel=1e-4)


def test_global_crops_are_compared_with_the_other_crop_alone():
    rows, teacher = unit_rows(2 * IMAGES, 2), unit_rows(2 * IMAGES, 3)
    own = torch.arange(IMAGES)
    expected = [
        F.cross_entropy(rows[:IMAGES] @ teacher[IMAGES:].T / TEMPERATURE, own),
        F.cross_entropy(rows[IMAGES:] @ teacher[:IMAGES].T / TEMPERATURE, own),
    ]
    torch.testing.assert_close(contrast_crops(rows, teacher, TEMPERATURE), torch.stack(expected).mean())


def test_the_order_of_the_images_does_not_matter():
    order = torch.tensor([2, 0, 3, 1])
    rows, teacher = unit_rows((LOCALS + 2) * IMAGES, 4), unit_rows(2 * IMAGES, 5)

    def ordered(crops):
        return torch.cat([crop[order] for crop in crops.split(IMAGES)])

    torch.testing.assert_close(
        contrast_crops(ordered(rows), ordered(teacher), TEMPERATURE), contrast_crops(rows, teacher, TEMPERATURE)
    )


def losses(rows, teacher, patches, targets, weights):
    rows, patches = rows.clone().requires_grad_(), patches.clone().requires_grad_()
    loss = contrast_crops(rows, teacher, TEMPERATURE)
    patch_loss = contrast_patches(patches, targets, weights, TEMPERATURE)
    (loss + patch_loss).backward()
    return loss.detach(), patch_loss.detach(), rows.grad, patches.grad


def made_batch():
    rows, teacher = unit_rows((LOCALS + 2) * IMAGES, 6), unit_rows(2 * IMAGES, 7)
    return rows, teacher, unit_rows(7, 8), unit_rows(7, 9), torch.linspace(0.1, 0.2, 7)


def part_of(rank, rows, teacher, patches, targets, weights):
    def images(crops):
        return torch.cat([crop.chunk(2)[rank] for crop in crops.split(IMAGES)])

    mine = slice(0, 5) if rank == 0 else slice(5, 7)
    # the weighted sum is a mean over the ranks, so each rank's patches count twice there
    return images(rows), images(teacher), patches[mine], targets[mine], 2 * weights[mine]


def losses_of_a_rank(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    if rank == 0:
        with alone():  # a rank that tries its memory does not wait for the others
            losses(*made_batch())
    torch.save(losses(*part_of(rank, *made_batch())), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_have_the_losses_and_gradients_of_one(tmp_path):
    multiprocessing.start_processes(losses_of_a_rank, (str(tmp_path),), nprocs=2, start_method="spawn")
    loss, patch_loss, grad_rows, grad_patches = losses(*made_batch())
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    torch.testing.assert_close((ranks[0][0] + ranks[1][0]) / 2, loss)
    torch.testing.assert_close((ranks[0][1] + ranks[1][1]) / 2, patch_loss)
    torch.testing.assert_close(torch.cat([rank[3] for rank in ranks]) / 2, grad_patches)
    halves = [torch.cat([part.chunk(2)[rank] for part in grad_rows.split(IMAGES)]) for rank in (0, 1)]
    for rank, half in zip(ranks, halves, strict=True):
        torch.testing.assert_close(rank[2] / 2, half)
