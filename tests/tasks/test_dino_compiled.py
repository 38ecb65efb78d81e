"""Compiled layers say what plain ones say: losses and gradients, with all that a training does to a layer."""

import pytest
import torch
from test_dino import RECIPE, make_batch

from fmseg.tasks.dino import DinoTask

#: traces and partitions forward and backward pass as the default does, without a compiler for C++
BACKEND = "aot_eager"


def learned(recipe, *, compiled: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of a batch and the gradients of the student."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    task = DinoTask.build(recipe)
    if compiled:
        task.compile_blocks(BACKEND)
    torch.manual_seed(1)
    loss, _ = task.training_loss(make_batch(), 0)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("changes", [{}, {"checkpointing": True, "drop_path": 0.3}], ids=str)
def test_compiled_layers_give_the_same_losses_and_gradients(changes):
    recipe = RECIPE.evolve(**changes)
    (loss, gradients), (found, others) = (learned(recipe, compiled=compiled) for compiled in (False, True))
    torch.testing.assert_close(found, loss, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            others[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_views_of_any_size_are_looked_at_uncompiled_and_the_names_of_weights_stay():
    recipe = RECIPE
    task = DinoTask.build(recipe)
    names = list(task.state_dict())
    task.compile_blocks(BACKEND)
    assert list(task.state_dict()) == names
    torch._dynamo.reset()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    patch, channels = recipe.architecture.patch_size, recipe.architecture.channels
    for side in range(2, 5):
        task.teacher_backbone(torch.zeros(1, channels, side * patch, patch))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


def test_each_training_of_a_process_is_compiled_however_many_came_before(monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    for num_images in range(2, 5):
        before = graphs["unique_graphs"]
        task = DinoTask.build(RECIPE)
        task.compile_blocks("eager")
        task.training_loss(make_batch(num_images), 0)
        assert graphs["unique_graphs"] > before
