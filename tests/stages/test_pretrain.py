"""A pretraining that is watched, stopped, gone on with, and one that collapses."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from fmseg.errors import UsageError
from fmseg.learning.runtime import Runtime
from fmseg.networks.vit import ViT
from fmseg.networks.weights import load_backbone, read_note, save_weights
from fmseg.planning import watching
from fmseg.planning.overview import TWO_CORES
from fmseg.planning.pretraining import CorpusFacts, plan_pretraining
from fmseg.records.foundation import Origin, read_seen
from fmseg.records.run import PretrainConfig, Provenance, RunFolder
from fmseg.stages.fingerprint import fingerprint
from fmseg.stages.plan import plan
from fmseg.stages.preprocess import preprocess
from fmseg.stages.pretrain import PretrainOptions, pretrain, preview
from fmseg.stages.pretrain.finish import LAST, PROBE_MARGIN, choose_best
from fmseg.stages.pretrain.learn import Pace, build_task, learn
from fmseg.stages.pretrain.longer import lengthened
from fmseg.stages.pretrain.watch import BEST, Watcher
from fmseg.tasks.dino_troubles import all_troubles

DISCS, OTHERS = "Dataset501_Discs", "Dataset502_Others"
TINY = {
    "iterations": "12",
    "batch_size": "4",
    "num_prototypes": "32",
    "head_hidden": "16",
    "head_bottleneck": "8",
    "precision": "float32",
    "architecture.width": "16",
    "architecture.depth": "2",
    "architecture.num_heads": "2",
}


TWO_DOZEN = CorpusFacts(24, 1, (0.5,), (0.2,), "ultrasound", (48, 48))
#: a tiny run that learns, or at least does not collapse, in a second
PLANNED = plan_pretraining(TWO_DOZEN, TWO_CORES, budget_s=60.0)[0]
SOUND = PLANNED.evolve(
    architecture=PLANNED.architecture.evolve(width=32, depth=2, num_heads=2),
    iterations=60,
    warmup_iterations=6,
    temperature_warmup_iterations=18,
    batch_size=8,
    num_prototypes=256,
    head_hidden=32,
    head_bottleneck=16,
    learning_rate=3e-3,
    precision="float32",
)


def options(**changes):
    return PretrainOptions(**({"settings": TINY, "num_workers": 0, "checkpoint_minutes": 0.0} | changes))


@pytest.fixture
def prepared(raw_dataset, monkeypatch):
    """Return a function that prepares two datasets, one with masks and one of ``task``; there are three looks a run."""
    monkeypatch.setattr(watching, "MOST_LOOKS", 3)
    monkeypatch.setattr(watching, "WATCH_SHARE", 1e6)

    def make(task):
        made = raw_dataset(DISCS, num_patients=4)
        raw_dataset(OTHERS, num_patients=6, task=task, seed=1)
        for name in (DISCS, OTHERS):
            fingerprint(made, name, num_processes=0)
            preprocess(made, name, plan(made, name), num_processes=0)
        return made

    return make


@pytest.fixture
def workspace(prepared):
    """Return two prepared datasets, the second without labels, which are quicker."""
    return prepared("unlabelled")


@pytest.fixture
def without_pictures(monkeypatch):
    """Pictures take longer than all else here."""
    for name in ("attention_picture", "feature_picture"):
        monkeypatch.setattr(f"fmseg.stages.pretrain.watch.{name}", lambda *_: b"")
    monkeypatch.setattr("fmseg.stages.pretrain.watch.draw_progress", lambda *_: None)


def lines_of(run):
    return run.metrics.read_text().splitlines()


def test_it_is_watched_with_all_labelled_datasets_and_ends_with_a_card(prepared):
    workspace = prepared("classification")
    (card,) = pretrain(workspace, [DISCS], options())
    run = RunFolder(workspace.foundation("ultrasound", "d501"))
    lines = [json.loads(line) for line in lines_of(run)]
    scores = {"probe_d501_dice", "probe_d502_linear_f1", "probe_d502_knn_f1", "rankme_cls", "rankme_patches"}
    assert {name.removeprefix("random_") for name in lines[0]} == scores | {"step"}
    looks = [line for line in lines if "rankme_cls" in line]
    assert [line["step"] for line in looks] == [4, 8, 12]
    assert all(set(line) == scores | {"step"} for line in looks)
    assert [probe.dataset for probe in card.probes] == [DISCS, OTHERS], "the second was not pretrained on"
    assert card.seconds > 0
    assert card.finished
    assert card.best.step == read_note(run.path / BEST)["step"]
    assert {"loss", "rankme_cls", "probe_d501_dice"} <= set(card.metrics)
    for name in ("progress.png", "attention.png", "features.png", "card.md"):
        assert (run.path / name).stat().st_size > 1000


def test_stopped_between_two_looks_it_ends_in_the_same_numbers_and_the_same_best(
    workspace, without_pictures, monkeypatch
):
    pretrain(workspace, [DISCS], options(name="whole"))
    real = Watcher.draw

    def stop(watcher, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(Watcher, "draw", stop)  # after step 10, behind the look at 8
    with pytest.raises(KeyboardInterrupt):
        pretrain(workspace, [DISCS], options(name="parts"))
    monkeypatch.setattr(Watcher, "draw", real)
    pretrain(workspace, [DISCS], options(name="parts"))
    whole, parts = (RunFolder(workspace.foundation("ultrasound", name)) for name in ("whole", "parts"))
    assert lines_of(whole) == lines_of(parts)
    for name in (BEST, "backbone.safetensors"):
        assert (whole.path / name).read_bytes() == (parts.path / name).read_bytes()


def test_it_goes_on_from_a_checkpoint_with_its_heads_and_counts_all_samples(workspace, without_pictures):
    (first,) = pretrain(workspace, [DISCS], options())
    parent_folder = workspace.foundation("ultrasound", "d501")
    (second,) = pretrain(
        workspace, [OTHERS], options(init="d501", settings={"iterations": "4", "learning_rate": "0.0"})
    )
    assert second.name == "d502-from-d501"
    assert second.architecture == first.architecture
    assert second.parent.sha256 == first.weights_sha256
    assert second.parent.keeps_heads
    assert second.total_samples == first.samples_seen + second.samples_seen
    folder = workspace.foundation("ultrasound", second.name)
    assert set(read_seen(parent_folder)) < set(read_seen(folder))
    start = json.loads(lines_of(RunFolder(folder))[0])
    assert start["probe_d501_dice"] == pytest.approx(first.metrics["probe_d501_dice"])
    assert "random_probe_d501_dice" in start


def test_nobody_foretells_what_going_on_from_other_peoples_weights_brings(workspace, without_pictures):
    (first,) = pretrain(workspace, [DISCS], options())
    (ahead,) = preview(workspace, [OTHERS], options(init="d501"))
    assert "over scratch" in ahead.benefit
    origin = Origin(
        source="dinov2", title="DINOv2", where="", licence="", commercial=True, file="", sha256="", input_px=16
    )
    first.evolve(origin=origin).save(workspace.foundation("ultrasound", "d501") / "foundation.json")
    (ahead,) = preview(workspace, [OTHERS], options(init="d501"))
    assert "over scratch" not in ahead.benefit
    assert "d501 is other people's" in ahead.benefit


@pytest.mark.slow
def test_where_the_best_teacher_became_the_backbone_heads_are_learned_anew(workspace, without_pictures):
    pretrain(workspace, [DISCS], options())
    folder = workspace.foundation("ultrasound", "d501")
    vit, card = load_backbone(folder)
    vit.norm.bias.data += 1
    sha256 = save_weights(vit, folder / "backbone.safetensors")
    card.evolve(weights_sha256=sha256).save(folder / "foundation.json")
    (second,) = pretrain(workspace, [DISCS], options(init="d501", settings={"iterations": "2", "learning_rate": "0.0"}))
    assert not second.parent.keeps_heads


def test_a_finished_run_is_not_changed_but_gone_on_from(workspace, without_pictures):
    pretrain(workspace, [DISCS], options())
    with pytest.raises(UsageError, match=r"finished.*--init d501"):
        pretrain(workspace, [DISCS], options(settings=TINY | {"learning_rate": "0.5"}))
    with pytest.raises(UsageError, match=r"cannot go on from itself.*--name"):
        pretrain(workspace, [DISCS], options(name="d501", init="d501", fresh=True))
    assert RunFolder(workspace.foundation("ultrasound", "d501")).is_finished
    with pytest.raises(UsageError, match="No foundation checkpoint is called 'other'"):
        pretrain(workspace, [DISCS], options(init="other"))
    assert [path.name for path in workspace.foundations().glob("*/*")] == ["d501"]


def test_a_finished_run_gets_longer_by_what_was_asked_for_beyond_it(workspace, without_pictures):
    first, again = (pretrain(workspace, [DISCS], options())[0] for _ in "12")
    assert again == first
    longer, once_more = (pretrain(workspace, [DISCS], options(settings=TINY | {"iterations": "20"}))[0] for _ in "12")
    assert once_more == longer
    assert (longer.name, longer.iterations, longer.total_samples) == ("d501-longer", 8, 80)
    assert longer.parent.sha256 == first.weights_sha256
    assert longer.parent.keeps_heads
    folder = workspace.foundation("ultrasound", "d501")
    config = PretrainConfig.load(folder.with_name("d501-longer") / "run.json")
    (why,) = (reason.because for reason in config.because if reason.key == "lengthens")
    assert "d501 is finished" in why
    assert "8 steps more" in why
    # it is what going on from it by hand would have given, byte for byte
    by_hand = options(init="d501", name="hand", settings=TINY | {"iterations": "8"})
    assert pretrain(workspace, [DISCS], by_hand)[0].weights_sha256 == longer.weights_sha256
    # and the finished one can still be gone on from
    assert (folder / "backbone.safetensors").exists()
    assert pretrain(workspace, [DISCS], options())[0] == first


def test_only_more_time_than_a_run_and_what_made_it_longer_had_makes_it_longer(workspace):
    corpus = SimpleNamespace(modality="ultrasound", default_name="d501")

    def finish(name, budget_s):
        run = RunFolder(workspace.foundation("ultrasound", name))
        run.path.mkdir(parents=True)
        PretrainConfig(
            modality="ultrasound",
            recipe=SOUND,
            because=(),
            sources=(),
            budget_s=budget_s,
            plugins=(),
            provenance=Provenance(fmseg="", commit="", packages={}, command=""),
        ).save(run.path / "run.json")
        run.finish({})

    def asked(**typed):
        found = lengthened(workspace, corpus, PretrainOptions(**typed))
        return found.name, found.init, found.budget_s, found.settings

    assert asked(budget_s=7200.0) == (None, None, 7200.0, {})
    finish("d501", 3600.0)
    assert asked(budget_s=3600.0) == (None, None, 3600.0, {})
    assert asked(budget_s=7200.0) == ("d501-longer", "d501", 3600.0, {})
    assert asked(budget_s=7200.0, fresh=True) == (None, None, 7200.0, {})
    assert asked(budget_s=7200.0, init="other") == (None, "other", 7200.0, {})
    finish("d501-longer", 3600.0)
    assert asked(budget_s=7200.0) == ("d501-longer", "d501", 3600.0, {})
    assert asked(budget_s=9000.0) == ("d501-longer2", "d501-longer", 1800.0, {})
    assert asked(settings={"iterations": "121"}) == ("d501-longer2", "d501-longer", None, {"iterations": "1"})
    # a run that was planned by steps, or by an older release, has no time to compare with
    finish("old", None)
    assert asked(name="old", budget_s=9e9) == ("old", None, 9e9, {})


def test_a_preview_costs_nothing_and_leaves_nothing(workspace):
    (found,) = preview(workspace, [DISCS], options(budget_s=3600.0))
    assert found.cost.samples_seen == 48
    assert found.cost.memory_gb > 0
    assert found.cost.disk_gb > 0
    assert "Dice" in found.benefit
    assert not workspace.results.exists()


@pytest.mark.parametrize(
    ("kind", "best", "last", "is_used"),
    [
        ("probe_d501_dice", 0.60, 0.60 - PROBE_MARGIN / 2, False),
        ("probe_d501_dice", 0.60, 0.60 - 2 * PROBE_MARGIN, True),
        ("rankme_cls", 40.0, 15.0, False),
        ("rankme_cls", 40.0, 8.0, True),
    ],
)
def test_the_best_teacher_is_used_only_if_it_is_better_by_more_than_chance(tmp_path, kind, best, last, is_used):
    run = RunFolder(tmp_path)
    measure = "probes" if kind.startswith("probe") else "rankme"
    save_weights(ViT(SOUND.architecture), tmp_path / BEST, {"step": 5, "measure": measure, "score": best})
    run.log(10, {"rankme_cls": 30.0, kind: last})
    found = choose_best(run, 10)
    assert (found.step, found.is_used, found.last_score) == (5, is_used, last)


@pytest.mark.slow
def test_a_best_teacher_that_is_used_is_the_backbone_and_the_last_is_kept(workspace, without_pictures, monkeypatch):
    real = Watcher.look

    def look(watcher, step):
        values = real(watcher, step)
        return values | {"probe_d501_dice": 0.0} if step == 12 else values

    monkeypatch.setattr(Watcher, "look", look)
    (card,) = pretrain(workspace, [DISCS], options())
    folder = workspace.foundation("ultrasound", "d501")
    assert card.best.is_used
    assert (folder / LAST).exists()
    best, _ = load_backbone(folder)
    assert card.weights_sha256 != save_weights(best, folder / "again.safetensors", {"step": 0})


class Memory:
    """Images of a disc each."""

    def __init__(self, num_images=24):
        rng = np.random.default_rng(0)
        noise = rng.normal(60, 12, (num_images, 48, 48)).clip(0, 255).astype(np.uint8)
        centres = rng.integers(18, 30, (num_images, 2)).tolist()
        self.images = [cv2.circle(image, at, 14, 160, -1)[None] for image, at in zip(noise, centres, strict=True)]

    def __len__(self):
        return len(self.images)

    def image(self, index):
        return self.images[index]


def troubles_of(tmp_path, **changes):
    """Train for 60 tiny steps; return the names of the troubles."""
    recipe = SOUND.evolve(**changes)
    run, runtime, store = RunFolder(tmp_path), Runtime.detect("float32"), Memory()
    numbers = np.arange(len(store))
    corpus = SimpleNamespace(stores=(store,), distinct=lambda _: numbers, modality="test")
    learn(build_task(recipe), corpus, recipe, run, runtime, Pace(num_workers=0), log_every=3)
    return {trouble.name for trouble in all_troubles(run.history(), [], recipe)}


def test_a_run_that_collapses_is_told_and_one_that_does_not_is_not(tmp_path):
    collapse = {"one_point", "few_prototypes", "one_word"}
    assert not collapse & troubles_of(tmp_path / "fine")
    found = troubles_of(tmp_path / "collapsed", teacher_temperature=[0.005, 0.005], koleo_weight=0.0)
    assert collapse <= found


@pytest.mark.parametrize("deterministic", [None, False])
def test_the_algorithms_are_noted_and_told_in_the_card(workspace, without_pictures, deterministic):
    try:
        (card,) = pretrain(workspace, [DISCS], options(deterministic=deterministic))
        is_deterministic = deterministic is None
        assert torch.are_deterministic_algorithms_enabled() == is_deterministic
    finally:
        torch.use_deterministic_algorithms(True)
    folder = workspace.foundation("ultrasound", "d501")
    assert PretrainConfig.load(folder / "run.json").provenance.deterministic == is_deterministic
    assert card.provenance.deterministic == is_deterministic
    wanted = "| algorithms | deterministic |" if is_deterministic else "| algorithms | fast"
    assert wanted in (folder / "card.md").read_text()


@pytest.mark.slow
def test_a_run_that_has_begun_may_be_compiled_or_not(workspace, without_pictures, monkeypatch):
    asked = []
    monkeypatch.setattr("fmseg.tasks.dino.DinoTask.compile_blocks", lambda task: asked.append(task))
    monkeypatch.setattr(Watcher, "draw", lambda watcher, step: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pretrain(workspace, [DISCS], options(settings=TINY | {"compile": "true"}))
    assert len(asked) == 1
    monkeypatch.undo()
    pretrain(workspace, [DISCS], options(settings=TINY | {"compile": "false"}))
    assert not PretrainConfig.load(workspace.foundation("ultrasound", "d501") / "run.json").recipe.compile
