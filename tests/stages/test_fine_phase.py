"""The end of a pretraining on finer views: the same function at its start, resumed anywhere, used if it did no harm."""

import json

import pytest
import torch

from fmseg.errors import Interrupted
from fmseg.learning import loop
from fmseg.networks.vit import ViT
from fmseg.networks.weights import load_backbone
from fmseg.planning.fine_views import fine_recipe
from fmseg.records.run import RunFolder
from fmseg.stages.fingerprint import fingerprint
from fmseg.stages.plan import plan
from fmseg.stages.preprocess import preprocess
from fmseg.stages.pretrain import PretrainOptions, pretrain
from fmseg.stages.pretrain.fine import refined
from fmseg.stages.pretrain.learn import build_task

NAME = "Dataset501_Discs"
FINE = {
    "global_size": [48, 48],
    "local_size": [24, 24],
    "iterations": 4,
    "batch_size": 4,
    "accumulation": 2,
    "checkpointing": True,
    "learning_rate": 1e-4,
}
SETTINGS = {
    "iterations": "6",
    "batch_size": "4",
    "num_prototypes": "32",
    "head_hidden": "16",
    "head_bottleneck": "8",
    "precision": "float32",
    "architecture.width": "16",
    "architecture.depth": "2",
    "architecture.num_heads": "2",
    "architecture.image_size": "[32, 32]",
    "views.global_size": "[32, 32]",
    "views.local_size": "[16, 16]",
    "fine": json.dumps(FINE),
}
#: no time for checkpoints by the clock; every stop is told by the test
OPTIONS = {"settings": SETTINGS, "num_workers": 0, "checkpoint_minutes": 60.0}


@pytest.fixture
def workspace(raw_dataset, monkeypatch):
    for name in ("attention_picture", "feature_picture"):
        monkeypatch.setattr(f"fmseg.stages.pretrain.watch.{name}", lambda *_: b"")
    monkeypatch.setattr("fmseg.stages.pretrain.watch.draw_progress", lambda *_: None)
    made = raw_dataset(num_patients=4, task="unlabelled")
    fingerprint(made, NAME, num_processes=0)
    preprocess(made, NAME, plan(made, NAME), num_processes=0)
    return made


def files(run: RunFolder) -> dict[str, bytes]:
    names = ("backbone.safetensors", "metrics.jsonl", "fine/metrics.jsonl")
    return {name: (run.path / name).read_bytes() for name in names}


@pytest.mark.parametrize("interpolation", ["offset", "size"])
def test_positions_are_resampled_to_the_very_function_that_was_there(interpolation):
    recipe = recipe_of(interpolation)
    task = build_task(recipe)
    finer = refined(task, build_task(fine_recipe(recipe)))
    torch.manual_seed(1)
    image = torch.randn(2, 1, 48, 48)
    for one, other in ((task.model, finer.model), (task.teacher, finer.teacher)):
        assert other.backbone.pos_embed.shape == (1, 1 + 36, 16)
        torch.testing.assert_close(one.backbone(image), other.backbone(image), rtol=0, atol=0)
    assert not torch.equal(finer.teacher.backbone.pos_embed, build_task(fine_recipe(recipe)).model.backbone.pos_embed)
    for name, tensor in task.state_dict().items():
        if not name.endswith("pos_embed"):
            assert torch.equal(finer.state_dict()[name], tensor)


def recipe_of(interpolation):
    from fmseg.planning.overview import TWO_CORES
    from fmseg.planning.pretraining import CorpusFacts, plan_pretraining
    from fmseg.records.settings import apply_settings

    facts = CorpusFacts(24, 1, (0.5,), (0.2,), "ultrasound", (48, 48))
    recipe, _ = plan_pretraining(facts, TWO_CORES, budget_s=60.0)
    way = {"architecture.position_interpolation": interpolation}
    return apply_settings(recipe, SETTINGS | way)


def test_stopped_anywhere_it_ends_in_the_same_bytes(workspace, monkeypatch):
    (card,) = pretrain(workspace, [NAME], PretrainOptions(**OPTIONS, name="whole"))
    whole = RunFolder(workspace.foundation("ultrasound", "whole"))
    vit, found = load_backbone(whole.path)
    assert found.architecture.image_size == vit.architecture.image_size == (48, 48)
    assert (card.iterations, card.samples_seen) == (10, 40)
    # before the first finer step, the teacher was looked at
    assert next(line["step"] for line in RunFolder(whole.path / "fine").history() if "rankme_cls" in line) == 0
    stops, finish_step = iter([6, 7, 9]), loop._Loop.finish_step
    count = 0

    def stopped(self, done, hooks, stop):
        nonlocal count, next_stop
        count += 1
        if count == next_stop:
            next_stop = next(stops, None)
            stop.signal_number = 15
        finish_step(self, done, hooks, stop)

    next_stop = next(stops)
    monkeypatch.setattr(loop._Loop, "finish_step", stopped)
    times = 0
    while True:
        try:
            pretrain(workspace, [NAME], PretrainOptions(**OPTIONS, name="stopped"))
            break
        except Interrupted:
            times += 1
    assert times == 3
    assert files(RunFolder(workspace.foundation("ultrasound", "stopped"))) == files(whole)


@pytest.mark.slow
def test_a_phase_that_did_harm_is_not_used_and_one_can_go_on_from_it(workspace, monkeypatch):
    def measured(watcher, vit: ViT):
        is_fine = watcher.run.path.name == "fine"
        # good before the first finer step, dead ever after
        value = (9.0 if not watcher.run.history() else 0.1) if is_fine else 5.0
        return {"rankme_cls": value, "rankme_patches": value}

    monkeypatch.setattr("fmseg.stages.pretrain.watch.Watcher.measure", measured)
    (card,) = pretrain(workspace, [NAME], PretrainOptions(**OPTIONS, name="harmed"))
    assert (card.best.step, card.best.is_used) == (0, True)
    harmed = workspace.foundation("ultrasound", "harmed")
    assert (harmed / "last.safetensors").exists()
    vit, _ = load_backbone(harmed)
    fresh = SETTINGS | {"fine": "null"}
    fresh = {name: text for name, text in fresh.items() if not name.startswith(("architecture", "views"))}
    (child,) = pretrain(
        workspace, [NAME], PretrainOptions(**OPTIONS | {"settings": fresh}, name="child", init="harmed")
    )
    assert child.parent.samples_seen == 40
    assert child.architecture == vit.architecture
