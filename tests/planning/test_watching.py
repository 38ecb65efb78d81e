import pytest

from fmseg.planning.budget import predict_cost
from fmseg.planning.overview import EIGHT_GPUS, ONE_GPU, TWO_CORES
from fmseg.planning.pretraining import CorpusFacts, plan_pretraining
from fmseg.planning.watching import CASES, MOST_LOOKS, WATCH_SHARE, LabelledSet, plan_watch, seconds_of_look

SIZE = (184, 272)
LABELLED = [LabelledSet("Dataset501_Heads", 400, 100, SIZE), LabelledSet("Dataset502_Planes", 5000, 1000, (224, 224))]
MACHINES = [(TWO_CORES, 1500.0), (TWO_CORES, 7200.0), (ONE_GPU, 86400.0), (EIGHT_GPUS, 86400.0)]


def recipe_for(hardware, budget_s, num_images=5000):
    facts = CorpusFacts(num_images, 1, (0.2,), (0.2,), "ultrasound", (540, 800))
    return plan_pretraining(facts, hardware, budget_s=budget_s)[0]


@pytest.mark.parametrize(("hardware", "budget_s"), MACHINES)
@pytest.mark.parametrize("labelled", [[], LABELLED], ids=["none", "two"])
def test_looking_takes_a_small_share_of_the_time(hardware, budget_s, labelled):
    recipe = recipe_for(hardware, budget_s)
    watch, because = plan_watch(recipe, hardware, labelled, SIZE)
    looks = recipe.iterations // watch.every
    look_s = seconds_of_look(recipe, hardware, labelled, SIZE, watch.cases)
    total_s = recipe.iterations * predict_cost(recipe, hardware).step_s
    assert 1 <= looks <= MOST_LOOKS
    assert looks == 1 or looks * look_s <= WATCH_SHARE * total_s
    assert watch.cases in CASES
    assert watch.datasets == tuple(each.name for each in labelled)
    assert "a look takes" in because


def test_a_longer_run_is_looked_at_as_often_or_more_and_on_as_many_cases_or_more():
    watches = [
        (recipe.iterations // watch.every, watch.cases)
        for budget_s in (600.0, 3600.0, 36000.0)
        for recipe in [recipe_for(TWO_CORES, budget_s)]
        for watch in [plan_watch(recipe, TWO_CORES, LABELLED, SIZE)[0]]
    ]
    assert [looks * cases for looks, cases in watches] == sorted(looks * cases for looks, cases in watches)


def test_the_shortest_run_is_looked_at_once_at_its_end():
    recipe = recipe_for(TWO_CORES, 60.0).evolve(iterations=5)
    assert plan_watch(recipe, TWO_CORES, LABELLED, SIZE)[0].every == 5
