"""Each trouble is found in the numbers that show it, and none in those of runs that learned."""

import math

import pytest

from fmseg.planning.overview import TWO_CORES
from fmseg.planning.pretraining import CorpusFacts, plan_pretraining
from fmseg.tasks.dino_troubles import CHECKS, MIN_LINES, all_troubles, find_troubles, guessing_loss

RECIPE, _ = plan_pretraining(
    CorpusFacts(920, 1, (0.16,), (0.18,), "ultrasound", (540, 800)), TWO_CORES, budget_s=1200.0
)
LOG_K = math.log(RECIPE.num_prototypes)
START = {"step": 0, "random_rankme_cls": 17.0, "random_probe_d501_dice": 0.566}
#: what a run of 44,544 samples that did learn has logged at its end
HEALTHY = {
    "loss": 9.69,
    "dino_local": 5.594,
    "dino_global": 0.920,
    "ibot": 3.187,
    "feature_std": 0.985,
    "target_entropy": 6.136,
    "prototype_usage": 0.873,
}
LOOK = {"rankme_cls": 43.0, "probe_d501_dice": 0.606}


def history(look=LOOK, share=1.0, **changes):
    """Lines of a run that has done ``share`` of its steps; it began as all do."""
    done = round(share * RECIPE.iterations)
    steps = [1 + round(index * (done - 1) / 99) for index in range(100)]
    first = HEALTHY | {"feature_std": 0.73, "target_entropy": 6.09, "prototype_usage": 0.62}
    lines = [{"step": step, **(first if step < done / 5 else HEALTHY | changes)} for step in steps]
    return [START, *lines, {"step": done, **look}]


def names(lines, waits=0.01):
    return [trouble.name for trouble in find_troubles(lines, [{"step": 1, "data_wait_share": waits}], RECIPE)]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 1.0])
def test_a_run_that_learned_has_no_troubles(share):
    assert names(history(share=share)) == []


@pytest.mark.parametrize(
    ("trouble", "changes", "look"),
    [
        ("one_point", {"feature_std": 0.3}, {}),
        ("few_dimensions", {}, {"rankme_cls": 3.0}),
        ("few_prototypes", {"prototype_usage": 3 / RECIPE.num_prototypes}, {}),
        ("one_word", {"target_entropy": 0.34}, {}),
        ("says_nothing", {"target_entropy": 0.999 * LOG_K}, {}),
        ("learns_nothing", {"ibot": 0.5 * LOG_K, "dino_local": 6 / 7 * LOG_K, "dino_global": LOG_K / 7}, {}),
        ("no_better_than_random", {}, {"probe_d501_dice": 0.55}),
    ],
)
def test_each_trouble_is_found_and_named_with_a_mend(trouble, changes, look):
    lines = history(LOOK | look, **changes)
    assert names(lines) == [trouble]
    (found,) = find_troubles(lines, [], RECIPE)
    assert any(word in found.text for word in ("--set", "onger"))


def test_fewer_dimensions_than_random_weights_are_normal_where_images_are_told_apart():
    assert names(history(LOOK | {"rankme_cls": 8.3})) == []


def test_waiting_for_images_is_a_trouble_of_its_own():
    assert names(history(), waits=0.4) == ["waits"]
    assert names(history(), waits=0.2) == []


def test_what_is_normal_at_the_start_is_no_trouble_then():
    early = {"target_entropy": 0.999 * LOG_K, "dino_local": 6.2, "dino_global": 1.0}
    assert names(history(share=0.3, **early)) == []
    assert names(history(**early)) == ["says_nothing", "learns_nothing"]


def test_nothing_is_said_of_a_few_lines():
    assert names([START, *[{"step": step, **HEALTHY, "feature_std": 0.0} for step in range(1, MIN_LINES)]]) == []


def test_guessing_costs_what_uniform_answers_cost():
    """Log K a target, times the weights: 1 for the pairs of crops, and the share of crops that hide patches."""
    assert guessing_loss(RECIPE) == pytest.approx(1.5 * LOG_K)
    alone = RECIPE.evolve(views=RECIPE.views.evolve(num_locals=0), mask_probability=0.0)
    assert guessing_loss(alone) == pytest.approx(2 / 3 * LOG_K)


def test_what_was_wrong_for_a_while_is_remembered_as_over():
    lines = history()
    dead = [line | ({"feature_std": 0.2} if 40 <= index < 70 else {}) for index, line in enumerate(lines)]
    (found,) = all_troubles(dead, [], RECIPE)
    assert (found.name, found.is_over) == ("one_point", True)
    assert 0.4 <= found.step / RECIPE.iterations <= 0.6
    ended = [
        line | ({"feature_std": 0.2} if index >= 40 and "loss" in line else {}) for index, line in enumerate(lines)
    ]
    (found,) = all_troubles(ended, [], RECIPE)
    assert (found.name, found.is_over) == ("one_point", False)
    assert all_troubles(lines, [], RECIPE) == ()


def test_every_check_is_tried_here():
    assert len(CHECKS) == 8
