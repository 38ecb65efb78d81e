import pytest

from fmseg.planning.augmentation import mirror_axes_of, plan_augmentation
from fmseg.planning.classification import careful_with_classes, mixing_of
from fmseg.planning.finetuning import adapt_finetuning, predicted_fold_seconds
from fmseg.planning.overview import EIGHT_GPUS, ONE_GPU, TWO_CORES
from fmseg.records.foundation import Foundation
from fmseg.records.labels import LabelScheme
from fmseg.records.recipe import recipes, resolve
from fmseg.records.run import Provenance


def scheme(*names):
    values = tuple((index,) for index in range(1, len(names) + 1))
    painted = tuple(range(1, len(names) + 1))
    return LabelScheme(names=names, values=values, painted=painted, has_regions=False, ignore=None)


def foundation(plans, samples_seen, *, made_here=True):
    recipe = plans.pretraining
    return Foundation(
        name="d501",
        modality="ultrasound",
        architecture=recipe.architecture,
        mean=recipe.mean,
        std=recipe.std,
        recipe=recipe if made_here else None,
        datasets=(),
        num_images=1000,
        iterations=1,
        samples_seen=samples_seen,
        metrics={},
        weights_sha256="",
        seen_count=0,
        licence="",
        provenance=Provenance(fmseg="", commit="", packages={}, command=""),
    )


@pytest.mark.parametrize("num_images", [2, 20, 600, 100_000])
@pytest.mark.parametrize("hardware", [TWO_CORES, ONE_GPU, EIGHT_GPUS], ids=["cpu", "gpu", "gpus"])
def test_every_number_can_be_used(make_plans, num_images, hardware):
    recipe = make_plans(hardware, num_images=num_images).finetuning
    assert recipe.batch_size % hardware.num_devices == 0
    assert 0 < recipe.warmup_iterations < recipe.iterations
    assert 5 <= recipe.iterations / recipe.validation_interval <= 10
    assert 1e-4 <= recipe.learning_rate <= 1e-3
    assert 0.9 <= recipe.ema_decay < 1
    assert 0 <= recipe.drop_path <= 0.4


def test_a_fold_takes_minutes_without_a_gpu(make_plans):
    plans = make_plans(TWO_CORES)
    seconds = predicted_fold_seconds(plans.finetuning, plans.pretraining.architecture, TWO_CORES)
    assert 500 <= seconds <= 900


def test_few_images_on_a_gpu_get_the_steps_of_the_paper_and_fewer_ones_fewer(make_plans):
    steps = [make_plans(ONE_GPU, num_images=n).finetuning.iterations for n in (5, 20, 200, 1500)]
    assert steps == sorted(steps)
    assert steps[-1] == 20_000
    assert steps[0] < 20_000


def test_the_network_sees_the_prepared_image(make_plans, machine):
    plans = make_plans(machine)
    assert plans.finetuning.input_size == plans.preprocessing.image_size


def test_random_weights_leave_the_plan_as_it_is(make_plans):
    planned = make_plans().finetuning
    recipe, because = adapt_finetuning(planned, None)
    assert recipe == planned
    assert recipe.layer_decay == 1
    assert "random weights" in because[0].because


def test_caution_grows_with_the_samples_seen(make_plans, machine):
    plans = make_plans(machine)
    samples = [10_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 80_000_000]
    adapted = [adapt_finetuning(plans.finetuning, foundation(plans, count))[0] for count in samples]
    rates = [recipe.learning_rate for recipe in adapted]
    decays = [recipe.layer_decay for recipe in adapted]
    assert rates == sorted(rates, reverse=True)
    assert decays == sorted(decays, reverse=True)
    # weak weights are treated like random ones: anything else was worse than nothing
    assert (rates[1], decays[1]) == (plans.finetuning.learning_rate, 1.0)
    assert decays[3] == 1.0
    assert decays[-1] == 0.75
    assert rates[-1] < rates[0]


def test_on_a_gpu_well_pretrained_weights_get_the_learning_rate_of_the_paper(make_plans):
    plans = make_plans(ONE_GPU)
    recipe, because = adapt_finetuning(plans.finetuning, foundation(plans, 80_000_000))
    assert recipe.learning_rate == pytest.approx(1e-4)
    assert "80,000,000" in because[0].because


def test_weights_from_elsewhere_count_as_well_pretrained(make_plans):
    plans = make_plans()
    theirs, _ = adapt_finetuning(plans.finetuning, foundation(plans, 0, made_here=False))
    ours, _ = adapt_finetuning(plans.finetuning, foundation(plans, 80_000_000))
    assert theirs == ours


def test_every_recipe_can_be_made_of_the_plan(make_plans, machine):
    plans = make_plans(machine)
    for name in recipes:
        assert resolve(name, plans.finetuning, {}).name == name
    assert set(plans.recipes) <= set(recipes)


@pytest.mark.parametrize(
    ("names", "sides"),
    [
        (("head",), False),
        (("left ventricle", "right ventricle"), True),
        (("kidney_L", "kidney_R", "liver"), True),
        (("cleft", "bright"), False),
    ],
)
def test_labels_of_left_and_right_forbid_mirroring(make_plans, names, sides):
    plans = make_plans(labels=scheme(*names))
    assert plans.mirror_axes == (() if sides else ("horizontal",))
    assert plans.pretraining.views.flip == ("none" if sides else "horizontal")
    assert plans.finetuning.augmentation.flip_horizontal == (not sides)
    if sides:
        keys = ("mirror_axes", "pretraining.views.flip", "finetuning.augmentation.flip_horizontal")
        reasons = [reason.because for reason in plans.because if reason.key.endswith(keys)]
        assert len(reasons) == 3
        assert all(name in because for because in reasons for name in names[:2])


def test_depth_is_never_mirrored_in_ultrasound(make_plans):
    plans = make_plans()
    assert not plans.finetuning.augmentation.flip_vertical
    assert plans.finetuning.augmentation.speckle_std > 0
    assert plans.finetuning.augmentation.shadow_probability == pytest.approx(0.15)
    assert plan_augmentation("ct", None)[0].shadow_probability == 0
    assert mirror_axes_of("microscopy", None)[0] == ("horizontal", "vertical")


def test_foreground_is_forced_where_images_may_lack_it(make_plans):
    assert make_plans().finetuning.foreground_share == 0
    assert make_plans(is_3d=True).finetuning.foreground_share == pytest.approx(0.33)


def test_classes_are_learned_with_care_from_any_pretraining(make_plans, machine):
    planned = make_plans(machine).finetuning
    rates = [careful_with_classes(planned, strength)[0].learning_rate for strength in (0.0, 0.5, 1.0)]
    assert rates[0] <= 3e-4 and rates[-1] == 1e-4 and rates == sorted(rates, reverse=True)
    # a rate that is lower already stays
    assert careful_with_classes(planned.evolve(learning_rate=1e-5), 0.0)[0].learning_rate == 1e-5


def test_images_are_mixed_where_they_are_seen_often():
    assert mixing_of(21)[0] == (0.0, 0.0) and "21 passes" in mixing_of(21)[1]
    assert mixing_of(200)[0] == (0.8, 1.0)
