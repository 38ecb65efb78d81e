"""What follows from the number of steps follows one that is typed."""

import pytest
from test_finetuning_plan import foundation

from fmseg.errors import BadRecord
from fmseg.planning.assignment import Assignment
from fmseg.planning.finetuning import adapt_finetuning, predicted_fold_seconds
from fmseg.planning.length import for_start, of_length, of_settings
from fmseg.planning.overview import ONE_GPU, TWO_CORES
from fmseg.records.plans import Fold
from fmseg.records.recipe import resolve
from fmseg.records.run import Initialisation
from fmseg.stages.train import TrainOptions, _config
from fmseg.stages.train.start import Start


def checkpoint(plans, **changes):
    """Other people's weights, for a network that differs from the planned one."""
    made = foundation(plans, 0, made_here=False)
    return made.evolve(architecture=made.architecture.evolve(**changes))


@pytest.mark.parametrize("iterations", [250, 3000])
def test_a_length_that_is_typed_leaves_nothing_of_the_planned_one(make_plans, iterations):
    # a GPU's plan has ten times the steps of the other one, and so another rate, average and optimizer
    plans = [make_plans(hardware).finetuning for hardware in (ONE_GPU, TWO_CORES)]
    assert plans[0].iterations > 3000 > plans[1].iterations > 250
    settings = {"iterations": str(iterations)}
    one, other = (
        [resolve(name, of_settings(planned, settings), settings) for name in ("upernet", "linear", "unet")]
        for planned in plans
    )
    keys = ("iterations", "warmup_iterations", "learning_rate", "ema_decay", "drop_path", "optimizer", "momentum")
    for mine, theirs in zip(one, other, strict=True):
        for key in (*keys, "schedule_power", "clip_norm"):
            assert getattr(mine, key) == pytest.approx(getattr(theirs, key)), (mine.name, key)
    assert one[-1].optimizer == ("adamw" if iterations < 1000 else "sgd")


def test_what_is_typed_beside_a_length_stays(make_plans):
    settings = {"iterations": "250", "learning_rate": "0.3", "ema_decay": "0.5"}
    recipe = resolve("upernet", of_settings(make_plans(ONE_GPU).finetuning, settings), settings)
    assert (recipe.iterations, recipe.learning_rate, recipe.ema_decay) == (250, 0.3, 0.5)
    with pytest.raises(BadRecord, match="'iterations' is 'many'"):
        resolve("upernet", of_settings(make_plans(ONE_GPU).finetuning, {"iterations": "many"}), {"iterations": "many"})


def test_images_of_classes_are_mixed_as_the_passes_of_a_typed_length_ask_for(make_plans):
    planned = make_plans(ONE_GPU).finetuning.evolve(batch_size=10, mixup=0.8, cutmix=1.0)
    for steps, mixing in ((900, (0.0, 0.0)), (1000, (0.8, 1.0))):
        recipe = of_settings(planned, {"iterations": str(steps)}, 100)
        assert (recipe.mixup, recipe.cutmix) == mixing
    # label maps are not mixed, and know of no passes
    assert of_settings(planned.evolve(mixup=0.0, cutmix=0.0), {"iterations": "1000"}).mixup == 0


def test_there_and_back_is_the_plan(make_plans):
    planned = make_plans(ONE_GPU).finetuning
    assert of_length(of_length(planned, 2 * planned.iterations), planned.iterations) == planned
    assert of_settings(planned, {"batch_size": "4"}) == planned


def test_a_fold_takes_no_longer_with_a_larger_network_than_with_the_planned_one(make_plans):
    plans = make_plans(TWO_CORES)
    planned = plans.finetuning
    large = checkpoint(plans, width=384, depth=12, num_heads=6)
    recipe, because = for_start(planned, {}, plans, large)
    seconds = [
        predicted_fold_seconds(each, network, TWO_CORES)
        for each, network in ((planned, plans.pretraining.architecture), (recipe, large.architecture))
    ]
    assert seconds[1] == pytest.approx(seconds[0], rel=0.05)
    assert planned.iterations > recipe.iterations >= 100
    # all that follows from the length has followed
    assert recipe == adapt_finetuning(of_length(planned, recipe.iterations), large)[0]
    assert because[0].key == "finetuning.iterations"
    # what is typed goes first, and a network of the planned size changes nothing
    assert for_start(planned, {"iterations": "700"}, plans, large)[0].iterations == 700
    assert for_start(planned, {}, plans, checkpoint(plans))[0].iterations == planned.iterations
    assert for_start(planned, {}, plans, None)[0] == planned


def test_a_fold_takes_no_longer_with_a_cnn_either(make_plans):
    plans = make_plans(TWO_CORES)
    planned, architecture = plans.finetuning, plans.pretraining.architecture
    recipe, because = for_start(planned, {}, plans, None, network="resnet50")
    resnet = resolve("resnet50", recipe, {})
    assert 100 <= resnet.iterations < planned.iterations and "resnet50" in because[0].because
    seconds = [predicted_fold_seconds(each, architecture, TWO_CORES) for each in (planned, resnet)]
    assert seconds[1] == pytest.approx(seconds[0], rel=0.05) or resnet.iterations == 100
    assert for_start(planned, {"iterations": "700"}, plans, None, network="resnet50")[0].iterations == 700


def test_what_is_compared_does_the_same_steps_however_long_they_take(make_plans):
    plans = make_plans(TWO_CORES)
    large = checkpoint(plans, width=384, depth=12, num_heads=6)
    start = Start(Initialisation(name="theirs", sha256="", because=""), card=large)
    cases = Fold(train=("a",), val=("b",))
    trained, compared = (
        _config(Assignment(plans, cases, 0, planned), start, TrainOptions(recipe="upernet"), 1).recipe
        for planned in (None, plans.finetuning)
    )
    assert trained.iterations < plans.finetuning.iterations == compared.iterations


def test_a_gpu_has_time_for_a_larger_network(make_plans):
    plans = make_plans(ONE_GPU)
    large = checkpoint(plans, width=768, depth=12, num_heads=12)
    assert for_start(plans.finetuning, {}, plans, large)[0].iterations == plans.finetuning.iterations
