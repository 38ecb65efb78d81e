from pathlib import Path

import pytest

from fmseg.errors import UnknownName, UsageError
from fmseg.planning.budget import predict_cost
from fmseg.planning.continuation import HEADS, find_parent, plan_continuation
from fmseg.planning.finetuning import pretraining_strength
from fmseg.planning.overview import ONE_GPU, TWO_CORES
from fmseg.planning.pretraining import CorpusFacts, plan_pretraining
from fmseg.records.foundation import Foundation, Origin
from fmseg.records.run import Parent, Provenance

HERE = CorpusFacts(5000, 1, (0.3,), (0.25,), "ultrasound", (400, 400))
THERE = CorpusFacts(100_000, 1, (0.1843,), (0.2188,), "ultrasound", (540, 800))


def card(samples=20_000_000, modality="ultrasound", channels=1, hardware=ONE_GPU, **changes):
    recipe, _ = plan_pretraining(THERE, hardware, budget_s=86400.0)
    return Foundation(
        name="large",
        modality=modality,
        architecture=recipe.architecture.evolve(channels=channels),
        mean=(0.1843,),
        std=(0.2188,),
        recipe=recipe,
        datasets=(),
        num_images=100_000,
        iterations=10,
        samples_seen=samples,
        metrics={},
        weights_sha256="0",
        seen_count=10,
        licence="",
        provenance=Provenance(fmseg="", commit="", packages={}, command=""),
    ).evolve(**changes)


@pytest.mark.parametrize("keeps_heads", [True, False])
def test_the_network_is_the_parents_and_the_length_that_of_the_new_images(keeps_heads):
    parent = card()
    recipe, because = plan_continuation(parent, HERE, TWO_CORES, keeps_heads=keeps_heads, budget_s=7200.0)
    assert recipe.architecture == parent.architecture
    assert (recipe.mean, recipe.std) == (parent.mean, parent.std)
    assert recipe.views.global_size == parent.recipe.views.global_size
    assert all(getattr(recipe, name) == getattr(parent.recipe, name) for name in HEADS) is keeps_heads
    assert predict_cost(recipe, TWO_CORES).seconds <= 7200.0
    keys = [reason.key for reason in because]
    assert len(keys) == len(set(keys))
    _, fresh_because = plan_pretraining(HERE, TWO_CORES, budget_s=7200.0)
    assert {reason.key for reason in fresh_because} <= set(keys)
    longer, _ = plan_continuation(parent, HERE, TWO_CORES, keeps_heads=keeps_heads, budget_s=14400.0)
    assert longer.iterations > recipe.iterations


def test_what_was_learned_is_handled_with_care_and_what_was_not_is_not():
    def plan(samples):
        recipe, _ = plan_continuation(card(samples), HERE, ONE_GPU, keeps_heads=False, budget_s=7200.0)
        return recipe.learning_rate, recipe.layer_decay, recipe.patch_embed_factor, -recipe.teacher_momentum[0]

    weak, middle, strong = plan(10_000), plan(1_000_000), plan(20_000_000)
    assert all(a > b > c for a, b, c in zip(weak, middle, strong, strict=True))
    fresh, _ = plan_pretraining(HERE, ONE_GPU, budget_s=7200.0)
    assert weak[1:3] == pytest.approx((fresh.layer_decay, fresh.patch_embed_factor), abs=0.01)
    assert strong[0] == pytest.approx(weak[0] / 4, rel=0.01)


def test_time_goes_into_length_before_the_size_of_views_also_from_other_peoples_weights():
    origin = Origin(source="dinov2", title="", where="", licence="", commercial=True, file="", sha256="", input_px=518)
    theirs = card(recipe=None, origin=origin, samples=0)
    theirs = theirs.evolve(architecture=theirs.architecture.evolve(patch_size=14, width=384))
    sides = []
    for hardware, budget_s in ((TWO_CORES, 2400.0), (ONE_GPU, 2 * 3600.0), (ONE_GPU, 48 * 3600.0)):
        recipe, because = plan_continuation(theirs, HERE, hardware, keeps_heads=False, budget_s=budget_s)
        assert predict_cost(recipe, hardware).seconds <= budget_s
        assert all(side % 14 == 0 for side in (*recipe.views.global_size, *recipe.views.local_size))
        assert any("unknown number of samples" in reason.because for reason in because)
        sides.append(recipe.views.global_size[0])
    assert sides[0] == 112
    assert sides == sorted(sides)
    assert sides[-1] == 224
    # weights that were made for small images stay at their size
    small = theirs.evolve(origin=origin.evolve(input_px=84))
    recipe, _ = plan_continuation(small, HERE, ONE_GPU, keeps_heads=False, budget_s=7200.0)
    assert recipe.views.global_size == (84, 84)


def test_a_measured_step_changes_the_length():
    plans = [
        plan_continuation(card(), HERE, TWO_CORES, keeps_heads=True, budget_s=7200.0, measured_step_s=step_s)[0]
        for step_s in (4.0, 8.0)
    ]
    assert plans[0].iterations == pytest.approx(2 * plans[1].iterations, rel=0.1)


def test_samples_of_the_parents_count_but_apart():
    parent = Parent(name="first", modality="ultrasound", sha256="1", samples_seen=9_000_000, keeps_heads=False)
    child = card(1_000_000, parent=parent)
    assert (child.samples_seen, child.total_samples) == (1_000_000, 10_000_000)
    assert pretraining_strength(child) == 1.0


def test_a_checkpoint_that_cannot_be_gone_on_from_is_refused_with_the_mend():
    found = [(Path("a"), card()), (Path("b"), card(modality="mri", name="brains"))]
    assert find_parent(found, "ultrasound", 1, "large")[0] == Path("a")
    with pytest.raises(UnknownName, match="brains, large"):
        find_parent(found, "ultrasound", 1, "small")
    with pytest.raises(UsageError, match=r"of mri, and the images are of ultrasound.*--init mri/brains"):
        find_parent(found, "ultrasound", 1, "brains")
    assert find_parent(found, "ultrasound", 1, "mri/brains")[0] == Path("b")
    assert find_parent(found, "ultrasound-3channels", 3, "large")[1].architecture.channels == 3
    with pytest.raises(UsageError, match=r"takes 1 channel.*the images have 2"):
        find_parent(found, "ultrasound-2channels", 2, "large")
