import copy
import math

import dino_reference
import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional as F

from fmseg.records.plans import Architecture, Pretraining, Views
from fmseg.tasks import dino_targets
from fmseg.tasks.dino import DinoTask
from fmseg.tasks.dino_collapse import collapse_measures, rankme
from fmseg.tasks.dino_losses import _to_gradient_, koleo, prototype_cross_entropy
from fmseg.tasks.dino_prototypes import Prototypes
from fmseg.tasks.dino_targets import Centre, sinkhorn_targets, softmax_targets

ARCHITECTURE = Architecture(
    name="test",
    patch_size=8,
    width=24,
    depth=2,
    num_heads=2,
    mlp_ratio=2.0,
    ffn="mlp",
    num_registers=1,
    layer_scale=0.5,
    layer_norm_eps=1e-6,
    channels=1,
    image_size=(32, 32),
    position_interpolation="offset",
    position_antialias=False,
)
RECIPE = Pretraining(
    architecture=ARCHITECTURE,
    views=Views(
        global_size=(32, 32),
        local_size=(16, 16),
        num_locals=3,
        global_scale=(0.4, 1.0),
        local_scale=(0.1, 0.4),
        aspect=(0.75, 1.33),
        flip="none",
        jitter_probability=0.0,
        brightness=0.0,
        contrast=0.0,
        blur_probability=(0.0, 0.0, 0.0),
        blur_sigma_px=(0.1, 2.0),
        solarize_probability=0.0,
        min_content=0.0,
    ),
    mean=(0.2,),
    std=(0.2,),
    num_prototypes=40,
    head_hidden=20,
    head_bottleneck=12,
    shared_head=True,
    trainable_gain=True,
    centering="softmax",
    center_momentum=0.9,
    student_temperature=0.1,
    teacher_temperature=(0.04, 0.07),
    temperature_warmup_iterations=4,
    dino_weight=0.9,
    ibot_weight=1.1,
    koleo_weight=0.1,
    mask_probability=0.5,
    mask_ratio=(0.1, 0.5),
    drop_path=0.0,
    batch_size=4,
    accumulation=1,
    iterations=10,
    warmup_iterations=1,
    freeze_last_layer_iterations=1,
    learning_rate=1e-3,
    min_learning_rate=1e-6,
    weight_decay=(0.04, 0.4),
    layer_decay=0.9,
    patch_embed_factor=0.2,
    teacher_momentum=(0.9, 1.0),
    clip_norm=3.0,
    precision="float32",
    seed=0,
)


def make_task(**changes):
    """A task whose teacher, centres and gains have already moved."""
    torch.manual_seed(0)
    task = DinoTask.build(RECIPE.evolve(**changes))
    with torch.no_grad():
        for parameter in task.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for centre in (task.dino_centre, task.ibot_centre):
            if centre is not None:
                centre.value.normal_(std=0.05)
    return task


def make_batch(num_images=4, num_locals=3, share=0.3, seed=0):
    torch.manual_seed(100 + seed)
    masks = torch.rand(2 * num_images, 16) < share
    masks[::2] = False
    return {
        "globals": torch.randn(2 * num_images, 1, 32, 32),
        "locals": torch.randn(num_locals * num_images, 1, 16, 16),
        "masks": masks,
    }


def test_the_pixel_loss_is_the_error_of_cell_means_of_masked_patches():
    task, batch = make_task(pixel_weight=0.5), make_batch()
    without = copy.deepcopy(task)
    without.model.pixel_head = None
    loss, values = task.training_loss(batch, 1)
    backbone = task.model.backbone
    tokens = backbone.forward_groups([batch["globals"]], [batch["masks"]])[0][:, backbone.num_prefix_tokens :]
    guesses = task.model.pixel_head.guess(tokens)
    errors = []
    for image, guess, mask in zip(batch["globals"], guesses, batch["masks"], strict=True):
        patches = image[0].reshape(4, 8, 4, 8).permute(0, 2, 1, 3).reshape(16, 4, 2, 4, 2)
        of_patches = (patches.mean((2, 4)).flatten(1) - guess).square().mean(1)
        errors.append(of_patches[mask].mean() if mask.any() else torch.tensor(0.0))
    assert float(values["pixels"]) == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)
    plain = without.training_loss(batch, 1)[0]
    assert loss.item() == pytest.approx(plain.item() + 0.5 * float(values["pixels"]), rel=1e-5)


@pytest.mark.parametrize("centering", ["softmax", "sinkhorn"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("num_locals", "share"), [(3, 0.3), (0, 0.3), (2, 0.0)])
def test_loss_gradients_and_centres_are_those_of_the_slow_reference(centering, shared, num_locals, share):
    task = make_task(centering=centering, shared_head=shared)
    batch = make_batch(num_locals=num_locals, share=share)
    student, teacher = (copy.deepcopy(network).double().eval() for network in (task.model, task.teacher))
    loss, values = task.training_loss(batch, 1)
    loss.backward()

    torch.set_default_dtype(torch.float64)
    try:
        centres = None if centering == "sinkhorn" else (task.dino_centre.value, task.ibot_centre.value)
        want = dino_reference.losses(RECIPE, student, teacher, batch, temperature=0.05, centres=centres)
        total = 0.9 * (want["dino_local"] + want["dino_global"]) + 1.1 * want["ibot"] + 0.1 * want["koleo"]
        total.backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert float(loss.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    for name in ("dino_local", "dino_global", "ibot", "koleo"):
        assert float(values[name]) == pytest.approx(float(want[name].detach()), rel=1e-5, abs=1e-7), name
    theirs = dict(student.named_parameters())
    for name, parameter in task.model.named_parameters():
        gradient = theirs[name].grad
        gradient = torch.zeros_like(parameter) if gradient is None else gradient.float()
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5 * max(1, float(gradient.abs().max())))

    if centres is not None:
        before = task.ibot_centre.value.clone()
        expected = 0.9 * task.dino_centre.value + 0.1 * want["cls_mean"].float()
        task.after_step(1)
        torch.testing.assert_close(task.dino_centre.value, expected, rtol=1e-5, atol=1e-6)
        moved = 0.9 * before + 0.1 * want["patch_mean"].float() if share else before
        torch.testing.assert_close(task.ibot_centre.value, moved, rtol=1e-5, atol=1e-6)


def test_nothing_local_and_nothing_masked_still_reaches_every_weight():
    task = make_task(shared_head=False)
    loss, values = task.training_loss(make_batch(num_locals=0, share=0.0), 0)
    loss.backward()
    assert math.isfinite(loss.item())
    assert values["dino_local"] == values["ibot"] == 0
    assert all(parameter.grad is not None for parameter in task.model.parameters())


def test_rows_are_taken_in_pieces_without_a_difference(monkeypatch):
    task, batch = make_task(), make_batch()
    whole, _ = task.training_loss(batch, 0)
    whole.backward()
    gradients = [parameter.grad.clone() for parameter in task.model.parameters()]
    task.zero_grad()
    monkeypatch.setitem(dino_targets.CHUNK_ELEMENTS, "cpu", 5 * RECIPE.num_prototypes)
    monkeypatch.setitem(dino_targets.BLOCK_ELEMENTS, "cpu", 2 * RECIPE.num_prototypes)
    pieces, _ = task.training_loss(batch, 0)
    pieces.backward()
    torch.testing.assert_close(pieces, whole)
    for parameter, gradient in zip(task.model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_locals", [3, 0])
def test_the_parts_of_a_batch_have_the_loss_of_the_whole(num_locals):
    task, batch = make_task(koleo_weight=0.0, shared_head=False), make_batch(num_locals=num_locals)
    whole, _ = task.training_loss(batch, 1)
    whole.backward()
    gradients = [parameter.grad.clone() for parameter in task.model.parameters()]
    task.zero_grad()
    task.forget_step()
    parts = task.split(batch, 2)
    losses = [task.training_loss(part, 1)[0] / 2 for part in parts]
    sum(losses).backward()
    torch.testing.assert_close(sum(losses), whole)
    for parameter, gradient in zip(task.model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    assert task.split(batch, 4) is None, "KoLeo needs two images"
    assert task.split(batch, 3) is None


def test_a_step_that_is_begun_anew_moves_the_centre_once():
    task, batch = make_task(), make_batch()
    other = copy.deepcopy(task)
    task.training_loss(batch, 1)
    task.forget_step()
    for each in (task, other):
        each.training_loss(batch, 1)
        each.after_step(1)
    assert torch.equal(task.dino_centre.value, other.dino_centre.value)


@pytest.mark.parametrize("patch", [8, 14, 16])
@pytest.mark.parametrize(("ffn", "registers"), [("mlp", 0), ("swiglu", 4)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_kind_of_vit_learns_from_rectangular_views(patch, ffn, registers, checkpointing):
    shape = {"patch_size": patch, "ffn": ffn, "num_registers": registers, "image_size": (3 * patch, 4 * patch)}
    recipe = RECIPE.evolve(architecture=ARCHITECTURE.evolve(**shape), drop_path=0.3, checkpointing=checkpointing)
    torch.manual_seed(0)
    task = DinoTask.build(recipe)
    assert task.model.backbone.checkpointing is checkpointing
    masks = torch.rand(8, 12) < 0.4
    batch = {
        "globals": torch.randn(8, 1, 3 * patch, 4 * patch),
        "locals": torch.randn(12, 1, 2 * patch, patch),
        "masks": masks,
    }
    loss, values = task.training_loss(batch, 0)
    loss.backward()
    task.after_step(0)
    assert math.isfinite(loss.item())
    assert float(values["target_entropy"]) > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.model.parameters())


def test_the_fused_cross_entropy_is_torchs():
    rows = F.normalize(torch.randn(7, 5), dim=-1).requires_grad_()
    prototypes, targets, weights = Prototypes(5, 9, trainable_gain=True), torch.randn(7, 9).softmax(-1), torch.rand(7)
    torch.nn.init.uniform_(prototypes.weight_g, 0.5, 2.0)
    loss, values = prototype_cross_entropy(rows, prototypes, lambda part: targets[part], weights, 0.1)
    want = F.cross_entropy(rows @ prototypes().T / 0.1, targets, reduction="none")
    torch.testing.assert_close(values, want.detach())
    torch.testing.assert_close(loss, (want * weights).sum())
    trained = (rows, *prototypes.parameters())
    got = torch.autograd.grad(3 * loss, trained)
    wanted = torch.autograd.grad(3 * (want * weights).sum(), trained)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert not values.requires_grad


def test_bfloat16_changes_little():
    task, batch = make_task(), make_batch()
    exact, _ = task.training_loss(batch, 0)
    exact.backward()
    gradient = task.model.dino_head.last_layer.weight_v.grad.clone()
    task.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rounded, values = task.training_loss(batch, 0)
    rounded.backward()
    assert rounded.dtype == torch.float32
    assert all(
        value.dtype == torch.float32 and value.ndim == 0 and not value.requires_grad for value in values.values()
    )
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)
    assert (
        F.cosine_similarity(gradient.flatten(), task.model.dino_head.last_layer.weight_v.grad.flatten(), dim=0) > 0.99
    )


def test_equal_features_have_a_finite_koleo():
    features = torch.randn(4, 8)
    features[1] = features[0]
    assert math.isfinite(koleo(features.half()).item())
    assert koleo(features[:1]) == 0
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert koleo(opposite).item() == pytest.approx(-math.log(2))


def test_sinkhorn_uses_all_prototypes_alike_also_for_large_gains():
    rows, prototypes = F.normalize(torch.randn(64, 6), dim=-1), F.normalize(torch.randn(10, 6), dim=-1)
    targets = sinkhorn_targets(rows, prototypes, 0.1, iterations=100)(slice(None))
    torch.testing.assert_close(targets.sum(1), torch.ones(64))
    torch.testing.assert_close(targets.sum(0), torch.full((10,), 6.4), rtol=1e-2, atol=0)
    assert sinkhorn_targets(rows, 10 * prototypes, 0.1)(slice(None)).isfinite().all()


def share_targets(rank, rendezvous, rows, prototypes, queue):
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    mine = (rows[:5], rows[5:])[rank]
    nobody = rows[:0] if rank else rows
    centre = Centre(len(prototypes), 0.9)
    centre.observe((mine @ prototypes.T).sum(0), len(mine))
    centre.update()
    targets = [sinkhorn_targets(each, prototypes, 0.05)(slice(None)) for each in (mine, nobody)]
    queue.put((rank, *(each.numpy() for each in targets), centre.value.numpy()))
    distributed.barrier()
    distributed.destroy_process_group()


def test_two_ranks_agree_with_one_on_sinkhorn_and_centre(tmp_path):
    torch.manual_seed(0)
    rows, prototypes = F.normalize(torch.randn(8, 6), dim=-1), F.normalize(torch.randn(10, 6), dim=-1)
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    workers = multiprocessing.spawn(share_targets, (tmp_path / "meet", rows, prototypes, queue), nprocs=2, join=False)
    found = sorted((queue.get() for _ in range(2)), key=lambda answer: answer[0])
    while not workers.join():
        pass
    targets = sinkhorn_targets(rows, prototypes, 0.05)(slice(None))
    centre = Centre(10, 0.9)
    centre.observe((rows @ prototypes.T).sum(0), len(rows))
    centre.update()
    torch.testing.assert_close(torch.cat([torch.tensor(answer[1]) for answer in found]), targets)
    # a rank with nothing masked takes part all the same
    torch.testing.assert_close(torch.tensor(found[0][2]), targets)
    assert found[1][2].shape == (0, 10)
    for answer in found:
        torch.testing.assert_close(torch.tensor(answer[3]), centre.value)
    assert centre.value.any()


def test_softmax_targets_are_centred_and_sharpened():
    rows, prototypes, centre = torch.randn(3, 6), torch.randn(10, 6), torch.randn(10)
    targets = softmax_targets(rows, prototypes, centre, 0.5)
    want = ((rows @ prototypes.T - centre) / 0.5).softmax(-1)
    torch.testing.assert_close(targets(slice(None)), want)
    torch.testing.assert_close(targets(slice(1, 2)), want[1:2])


def test_the_teacher_follows_slowly_and_is_never_trained():
    task = make_task()
    task.train()
    assert task.model.training
    assert not any(module.training for module in task.teacher.modules())
    assert not any(parameter.requires_grad for parameter in task.teacher.parameters())
    before = [parameter.clone() for parameter in task.teacher.parameters()]
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter += 1
    task.after_step(0)
    for old, student, new in zip(before, task.model.parameters(), task.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * student)
    assert task.teacher_backbone is task.teacher.backbone


def test_teacher_starts_as_the_student():
    task = DinoTask.build(RECIPE)
    for student, teacher in zip(task.model.parameters(), task.teacher.parameters(), strict=True):
        assert torch.equal(student, teacher)


def test_schedules_have_their_ends_and_middles():
    task = make_task()
    assert [task.teacher_temperature(step) for step in (0, 3, 4, 99)] == [0.04, 0.07, 0.07, 0.07]
    assert task.teacher_temperature(1) == pytest.approx(0.05)
    assert task.teacher_momentum(0) == pytest.approx(0.9)
    assert task.teacher_momentum(5) == pytest.approx(0.95)
    assert task.teacher_momentum(10) == task.teacher_momentum(11) == 1.0


def test_modules_to_clip_and_gains_follow_the_recipe():
    task = make_task(shared_head=False, trainable_gain=False)
    assert task.clip_modules() == [task.model.backbone, task.model.dino_head, task.model.ibot_head]
    assert not task.model.dino_head.last_layer.weight_g.requires_grad
    assert len(make_task().clip_modules()) == 2


def run_steps(task, first, last):
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1)
    for step in range(first, last):
        torch.manual_seed(step)
        optimizer.zero_grad()
        task.training_loss(make_batch(seed=step), step)[0].backward()
        optimizer.step()
        task.after_step(step)
    return task


@pytest.mark.parametrize("centering", ["softmax", "sinkhorn"])
def test_state_dict_holds_all_that_a_step_needs(centering):
    straight = run_steps(make_task(drop_path=0.3, centering=centering), 0, 4)
    halfway = run_steps(make_task(drop_path=0.3, centering=centering), 0, 2)
    resumed = DinoTask.build(RECIPE.evolve(drop_path=0.3, centering=centering))
    resumed.load_state_dict(halfway.state_dict())
    run_steps(resumed, 2, 4)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_learning_lowers_the_loss_against_a_fixed_teacher():
    task, batch = make_task(koleo_weight=0.0), make_batch()
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss, _ = task.training_loss(batch, 0)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_collapse_measures_know_a_point_and_a_sphere():
    one = torch.zeros(6, 10)
    one[:, 3] = 1
    point = collapse_measures(torch.ones(6, 4), one)
    assert {name: round(value.item(), 5) for name, value in point.items()} == {
        "feature_std": 0.0,
        "target_entropy": 0.0,
        "prototype_usage": 0.1,
    }
    sphere = collapse_measures(torch.cat([torch.eye(4), -torch.eye(4)]), torch.full((8, 10), 0.1))
    assert sphere["feature_std"].item() == pytest.approx(1)
    assert sphere["target_entropy"].item() == pytest.approx(math.log(10))
    assert sphere["prototype_usage"].item() == pytest.approx(1)


def test_rankme_counts_dimensions():
    basis = nn.init.orthogonal_(torch.empty(50, 8))
    assert rankme(basis).item() == pytest.approx(8, rel=1e-4)
    assert rankme(basis[:, :1] @ torch.randn(1, 8)).item() == pytest.approx(1, rel=1e-4)


def test_cross_entropies_are_float32_also_under_autocast():
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 40), torch.randn(6, 40).softmax(-1)
    plain = _to_gradient_(logits.clone(), targets)
    with torch.autocast("cpu", torch.bfloat16):
        rows = _to_gradient_(logits.clone(), targets)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, plain)
