import math

import numpy as np
import pytest
import torch
from timm import create_model
from torch import nn

from fmseg.learning.optim import (
    adamw,
    clip_and_step,
    clip_groups,
    cosine,
    layer_of,
    linear,
    parameter_groups,
    set_step,
    sgd,
    warmup_cosine,
    warmup_poly,
)

OFF = torch.amp.GradScaler("cpu", enabled=False)


def dinov2_schedule(total, warmup, start, peak, end):
    """The published schedule, as an array."""
    steps = np.arange(total - warmup)
    falling = end + 0.5 * (peak - end) * (1 + np.cos(np.pi * steps / len(steps)))
    return np.concatenate([np.linspace(start, peak, warmup), falling])


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("cls_token", 0),
        ("backbone.pos_embed", 0),
        ("model.backbone.vit.patch_embed.proj.weight", 0),
        ("blocks.0.norm1.weight", 1),
        ("backbone.vit.blocks.11.mlp.fc1.bias", 12),
        ("backbone.norm.weight", 13),
        ("dino_head.mlp.0.weight", 13),
        ("decoder.blocks.0.conv.weight", 13),
        ("decoder.pos_embed", 13),
        ("head.weight", 13),
    ],
)
def test_layer_of_names_with_any_prefix(name, layer):
    assert layer_of(name, depth=12) == layer


def test_factors_are_dinov2s():
    """Known values for twelve layers and a decay of 0.9."""
    vit = create_model("vit_tiny_patch16_224", num_classes=0, reg_tokens=4, init_values=1e-5)
    model = nn.ModuleDict({"backbone": vit, "dino_head": nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))})
    groups = parameter_groups(model.named_parameters(), depth=12, layer_decay=0.9, patch_embed_factor=0.2)
    factor = {id(p): (g["lr_factor"], g["wd_factor"]) for g in groups for p in g["params"]}
    names = dict(model.named_parameters())
    expected = {
        "backbone.patch_embed.proj.weight": (0.0508, 1),
        "backbone.pos_embed": (0.254, 1),
        "backbone.reg_token": (0.254, 1),
        "backbone.blocks.0.attn.qkv.weight": (0.282, 1),
        "backbone.blocks.0.ls1.gamma": (0.282, 0),
        "backbone.blocks.11.norm2.bias": (0.9, 0),
        "backbone.norm.weight": (1.0, 0),
        "dino_head.parametrizations.weight.original0": (1.0, 1),
    }
    for name, value in expected.items():
        assert factor[id(names[name])] == pytest.approx(value, abs=5e-4), name
    assert sum(len(g["params"]) for g in groups) == len(names)
    assert len({(g["lr_factor"], g["wd_factor"]) for g in groups}) == len(groups)


def test_groups_leave_out_what_is_frozen_and_mark_prototypes():
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "last_layer": nn.Linear(2, 2, bias=False)})
    model["head"].bias.requires_grad_(False)
    groups = parameter_groups(model.named_parameters(), depth=1)
    assert [(len(g["params"]), g["last_layer"]) for g in groups] == [(1, False), (1, True)]
    optimizer = adamw(groups)
    set_step(optimizer, 0.1, 0.04, last_layer_lr=0.0)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.0]
    set_step(optimizer, 0.2, 0.04)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.2, 0.04), (0.2, 0.04)]


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_warmup_cosine_is_the_published_schedule(warmup):
    reference = dinov2_schedule(50, warmup, 0.0, 4e-3, 1e-6)
    ours = [warmup_cosine(s, total=50, warmup=warmup, start=0.0, peak=4e-3, end=1e-6) for s in range(50)]
    np.testing.assert_allclose(ours, reference, rtol=1e-12, atol=1e-15)
    assert warmup_cosine(80, total=50, warmup=warmup, start=0.0, peak=4e-3, end=1e-6) == 1e-6


def test_simple_schedules():
    assert [linear(s, 3, 0.04, 0.07) for s in (0, 2, 9)] == pytest.approx([0.04, 0.07, 0.07])
    assert [cosine(s, 10, 0.04, 0.4) for s in (0, 5, 10)] == pytest.approx([0.04, 0.22, 0.4])
    poly = [warmup_poly(s, total=12, warmup=2, peak=1.0) for s in range(13)]
    assert poly[:3] == [0.5, 1.0, 1.0] and poly[7] == pytest.approx(0.5) and poly[12] == 0.0


def gradients(model, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def test_each_module_is_clipped_alone_and_the_rest_together():
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)])
    optimizer = adamw(parameter_groups(model.named_parameters(), depth=0))
    gradients(model, 100.0)
    before = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    groups = clip_groups([model[0], model[1]], optimizer)
    norm = clip_and_step(optimizer, groups, 3.0, OFF)
    torch.testing.assert_close(norm, before)
    for layer in model:
        assert torch.cat([p.grad.flatten() for p in layer.parameters()]).norm() == pytest.approx(3.0, rel=1e-4)


def adam(model, fused):
    return torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)


def nesterov(model, fused=False):
    assert not fused
    optimizer = sgd(parameter_groups(model.named_parameters(), depth=0), momentum=0.9)
    set_step(optimizer, 0.1, 0.01)
    return optimizer


@pytest.mark.parametrize(("make", "fused"), [(adam, True), (adam, False), (nesterov, False)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing(make, fused, bad):
    model = nn.Linear(3, 3)
    optimizer = make(model, fused)
    groups = clip_groups([model], optimizer)
    gradients(model)
    assert torch.isfinite(clip_and_step(optimizer, groups, 1.0, OFF))

    def everything():
        tensors = [*model.parameters(), *(v for s in optimizer.state.values() for v in s.values())]
        return [tensor.detach().clone() for tensor in tensors]

    before = everything()
    gradients(model)
    model.bias.grad[1] = bad
    assert not torch.isfinite(clip_and_step(optimizer, groups, 1.0, OFF))
    assert all(torch.equal(one, other) for one, other in zip(before, everything(), strict=True))
    gradients(model)
    clip_and_step(optimizer, groups, 0.0, OFF)
    assert not torch.equal(before[0], model.weight)


def test_a_first_step_that_is_not_finite_leaves_no_momentum_behind():
    spoiled, plain = nn.Linear(3, 3), nn.Linear(3, 3)
    plain.load_state_dict(spoiled.state_dict())
    for model, bad_first in ((spoiled, True), (plain, False)):
        optimizer = nesterov(model)
        groups = clip_groups([model], optimizer)
        for is_bad in [True, False, False] if bad_first else [False, False]:
            gradients(model)
            if is_bad:
                model.bias.grad[1] = math.nan
            clip_and_step(optimizer, groups, 1.0, OFF)
    torch.testing.assert_close(spoiled.state_dict(), plain.state_dict())
