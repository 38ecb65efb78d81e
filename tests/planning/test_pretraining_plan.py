import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmseg.planning.budget import memory_gb, num_parameters, predict_cost
from fmseg.planning.fine_views import fine_recipe
from fmseg.planning.ladder import RUNGS, default_budget_s, useful_samples
from fmseg.planning.overview import EIGHT_GPUS, ONE_GPU, TWO_CORES
from fmseg.planning.pretraining import CorpusFacts, plan_pretraining, pool_facts
from fmseg.records.plans import Hardware

MACHINES = [
    TWO_CORES,
    TWO_CORES.evolve(has_bfloat16=False, gflops=80.0),
    ONE_GPU,
    ONE_GPU.evolve(num_devices=3),
    EIGHT_GPUS,
]
DAY = 86400.0


def corpus(num_images, size=(540, 800), **changes):
    values = {"channels": 1, "mean": (0.1843,), "std": (0.2188,), "modality": "ultrasound"}
    return CorpusFacts(num_images=num_images, median_size=size, **(values | changes))


images = st.integers(2, 10_000_000)
sides = st.integers(20, 2000)
budgets = st.floats(1.0, 60 * DAY)


@settings(max_examples=60)
@given(images, st.tuples(sides, sides), st.sampled_from(MACHINES), st.none() | budgets)
def test_every_number_can_be_used(num_images, size, hardware, budget_s):
    recipe, _ = plan_pretraining(corpus(num_images, size), hardware, budget_s=budget_s)
    views, patch = recipe.views, recipe.architecture.patch_size
    for side in (*views.global_size, *views.local_size, *recipe.architecture.image_size):
        assert side >= 2 * patch
        assert side % patch == 0
    assert views.local_size[0] <= views.global_size[0]
    assert recipe.architecture.width % recipe.architecture.num_heads == 0
    # at least two images at a time on each device, for KoLeo
    assert recipe.batch_size % (recipe.accumulation * hardware.num_devices) == 0
    assert recipe.batch_size >= 2 * recipe.accumulation * hardware.num_devices
    counts = (recipe.warmup_iterations, recipe.freeze_last_layer_iterations, recipe.temperature_warmup_iterations)
    assert all(0 < count < recipe.iterations for count in counts)
    assert math.log2(recipe.num_prototypes).is_integer()
    for scales in (views.local_scale, views.global_scale):
        assert 0 < scales[0] < scales[1] <= 1
    assert all(local < whole for local, whole in zip(views.local_scale, views.global_scale, strict=True))
    assert 0 < recipe.teacher_temperature[0] <= recipe.teacher_temperature[1] < recipe.student_temperature
    assert 0 < recipe.architecture.layer_scale <= 1


@settings(max_examples=60)
@given(images, st.sampled_from(MACHINES), budgets, st.floats(1.0, 20.0))
def test_more_time_never_means_fewer_samples_or_a_smaller_network(num_images, hardware, budget_s, factor):
    less, _ = plan_pretraining(corpus(num_images), hardware, budget_s=budget_s)
    more, _ = plan_pretraining(corpus(num_images), hardware, budget_s=budget_s * factor)
    assert more.batch_size * more.iterations >= less.batch_size * less.iterations
    assert num_parameters(more.architecture) >= num_parameters(less.architecture)


@settings(max_examples=40)
@given(images, st.sampled_from(MACHINES), st.floats(300.0, 60 * DAY))
def test_the_budget_is_kept(num_images, hardware, budget_s):
    recipe, _ = plan_pretraining(corpus(num_images), hardware, budget_s=budget_s)
    cost = predict_cost(recipe, hardware)
    assert cost.seconds <= budget_s + 2 * cost.step_s or recipe.iterations == 20
    # one step more than what is of use, at most
    main = recipe.iterations * recipe.batch_size
    assert main <= max(useful_samples(num_images) + recipe.batch_size, 20 * recipe.batch_size)
    assert cost.samples_seen <= 1.02 * main + recipe.batch_size


@pytest.mark.parametrize(
    ("num_images", "hardware", "name"), [(2_000_000, EIGHT_GPUS, "vit_base"), (2_000_000, ONE_GPU, "vit_small")]
)
def test_at_two_million_images_on_gpus_it_is_the_recipe_of_the_paper(num_images, hardware, name):
    # so many images are prepared no larger than this
    recipe, _ = plan_pretraining(corpus(num_images, prepared_size=(208, 320)), hardware)
    assert recipe.fine is None
    vit, views = recipe.architecture, recipe.views
    assert (vit.name, vit.patch_size, vit.num_registers, vit.channels) == (name, 16, 4, 1)
    assert (vit.depth, vit.mlp_ratio, vit.ffn, vit.layer_norm_eps) == (12, 4.0, "mlp", 1e-6)
    assert vit.width == 64 * vit.num_heads
    assert vit.layer_scale == 1e-5
    assert (vit.position_interpolation, vit.position_antialias) == ("offset", False)
    assert recipe.batch_size == 512
    assert recipe.accumulation == (1 if hardware.num_devices == 8 else recipe.accumulation)
    assert recipe.learning_rate == pytest.approx(4e-3 * math.sqrt(512 / 1024), rel=1e-4)
    assert recipe.warmup_iterations == pytest.approx(recipe.iterations / 10, abs=1)
    assert recipe.temperature_warmup_iterations == pytest.approx(0.3 * recipe.iterations, abs=1)
    assert recipe.freeze_last_layer_iterations == pytest.approx(0.01 * recipe.iterations, abs=1)
    assert (recipe.min_learning_rate, recipe.weight_decay, recipe.clip_norm) == (1e-6, (0.04, 0.4), 3.0)
    assert (recipe.teacher_momentum, recipe.teacher_temperature) == ((0.992, 1.0), (0.04, 0.07))
    assert (recipe.student_temperature, recipe.centering, recipe.center_momentum) == (0.1, "softmax", 0.9)
    assert (recipe.num_prototypes, recipe.head_hidden, recipe.head_bottleneck) == (65536, 2048, 256)
    assert recipe.shared_head
    assert (recipe.dino_weight, recipe.ibot_weight, recipe.koleo_weight) == (1.0, 1.0, 0.1)
    assert (recipe.mask_probability, recipe.mask_ratio, recipe.drop_path) == (0.5, (0.1, 0.5), 0.3)
    assert (recipe.layer_decay, recipe.patch_embed_factor) == (0.9, 0.2)
    assert (recipe.contrast_weight, recipe.patch_contrast_weight) == (0.0, 0.0)
    assert (views.global_size, views.local_size, views.num_locals) == ((224, 224), (96, 96), 8)
    assert (views.global_scale, views.local_scale) == ((0.32, 1.0), (0.05, 0.32))
    assert (views.jitter_probability, views.brightness, views.contrast) == (0.8, 0.4, 0.4)
    assert (views.blur_probability, views.blur_sigma_px) == ((0.0, 0.9, 0.5), (0.1, 2.0))
    assert (views.solarize_probability, views.min_content) == (0.2, 0.0)
    assert (recipe.mean, recipe.std) == ((0.1843,), (0.2188,))
    passes = recipe.iterations * recipe.batch_size / num_images
    assert passes == pytest.approx(40, rel=0.05)


def test_on_two_cores_it_is_the_recipe_of_the_trials_and_ends_in_minutes():
    recipe, _ = plan_pretraining(corpus(1326), TWO_CORES, budget_s=25 * 60.0)
    views = recipe.views
    assert (recipe.architecture.name, recipe.architecture.layer_scale) == ("vit_tiny_d6", 1.0)
    assert (recipe.batch_size, recipe.num_prototypes, views.num_locals) == (64, 1024, 6)
    assert (views.global_scale, views.local_scale) == ((0.15, 0.6), (0.03, 0.2))
    assert (recipe.contrast_weight, recipe.patch_contrast_weight, recipe.contrast_temperature) == (1.0, 1.0, 0.2)
    assert (recipe.layer_decay, recipe.patch_embed_factor) == (1.0, 1.0)
    assert recipe.learning_rate == pytest.approx(1e-3)
    assert recipe.teacher_momentum[0] == 0.985
    assert recipe.teacher_temperature == (0.045, 0.045)
    assert recipe.precision == "bfloat16"
    usual, _ = plan_pretraining(corpus(1326), TWO_CORES)
    assert 25 * 60 <= predict_cost(usual, TWO_CORES).seconds <= 30 * 60


def test_the_rule_of_thumb_agrees_with_what_was_measured():
    """57 images a second with ViT-Ti of depth 6, two cores; 2.0 with ViT-S on 2 x 224 + 8 x 96 pixels."""
    tiny, _ = plan_pretraining(corpus(1326), TWO_CORES)
    assert predict_cost(tiny, TWO_CORES).images_per_s == pytest.approx(57, rel=0.15)
    small, _ = plan_pretraining(corpus(2_000_000), ONE_GPU)
    assert predict_cost(small, TWO_CORES).images_per_s == pytest.approx(2.0, rel=0.15)


def test_a_measured_step_replaces_the_rule_of_thumb():
    facts, budget_s = corpus(1326), 1200.0
    guess, _ = plan_pretraining(facts, TWO_CORES, budget_s=budget_s)
    step_s = predict_cost(guess, TWO_CORES).step_s
    same, _ = plan_pretraining(facts, TWO_CORES, budget_s=budget_s, measured_step_s=step_s)
    assert same == guess
    slower, _ = plan_pretraining(facts, TWO_CORES, budget_s=budget_s, measured_step_s=2 * step_s)
    assert slower.iterations == pytest.approx(guess.iterations / 2, rel=0.05)


def test_numbers_move_smoothly_between_the_regimes():
    """Half the time never moves LayerScale by more than 1.5 of the five orders of magnitude between the regimes."""
    recipes = [plan_pretraining(corpus(2_000_000), ONE_GPU, budget_s=DAY / 2**k)[0] for k in range(16)]
    scales = [math.log10(recipe.architecture.layer_scale) for recipe in recipes]
    assert scales == sorted(scales)
    assert max(shorter - longer for longer, shorter in pairwise(scales)) < 1.5
    prototypes = [recipe.num_prototypes for recipe in recipes]
    assert prototypes == sorted(prototypes, reverse=True)


@pytest.mark.parametrize("memory_gb", [36.0, 24.0, 12.0])
def test_little_memory_computes_layers_anew_before_it_cuts_the_batch(memory_gb):
    facts, rich = corpus(2_000_000), ONE_GPU.evolve(memory_gb=1000.0)
    whole, _ = plan_pretraining(facts, rich, budget_s=DAY)
    assert (whole.batch_size, whole.accumulation, whole.checkpointing) == (512, 1, False)
    card = ONE_GPU.evolve(memory_gb=memory_gb)
    recipe, reasons = plan_pretraining(facts, card, budget_s=DAY)
    assert (recipe.batch_size, recipe.checkpointing) == (512, True)
    assert predict_cost(recipe, card).memory_gb <= memory_gb
    if recipe.accumulation > 1:
        assert predict_cost(recipe.evolve(accumulation=1), card).memory_gb > 0.8 * memory_gb
    (because,) = (reason.because for reason in reasons if reason.key == "pretraining.checkpointing")
    assert "computed anew" in because


def test_long_runs_end_on_finer_views_where_the_images_have_them_and_short_ones_never():
    facts = corpus(500_000, prepared_size=(368, 544))
    recipe, reasons = plan_pretraining(facts, EIGHT_GPUS, budget_s=5 * DAY)
    fine, finer = recipe.fine, fine_recipe(recipe)
    assert fine.global_size == finer.architecture.image_size == (368, 368)
    assert fine.local_size == (160, 160)
    assert fine.batch_size * fine.iterations == pytest.approx(0.02 * recipe.batch_size * recipe.iterations, rel=0.01)
    assert finer.learning_rate == pytest.approx(recipe.learning_rate / 4 / math.sqrt(2), rel=0.01)
    assert (finer.fine, finer.drop_path, finer.num_prototypes) == (None, recipe.drop_path, recipe.num_prototypes)
    cost, without = predict_cost(recipe, EIGHT_GPUS), predict_cost(recipe.evolve(fine=None), EIGHT_GPUS)
    assert 1.02 < cost.seconds / without.seconds < 1.2
    assert cost.memory_gb <= EIGHT_GPUS.memory_gb
    told = {reason.key: reason.because for reason in reasons}
    assert "368x544" in told["pretraining.fine.global_size"]
    # images that are prepared hardly larger than the views, and a run that still has much to learn
    coarse, why = plan_pretraining(corpus(500_000, prepared_size=(256, 384)), EIGHT_GPUS, budget_s=5 * DAY)
    assert coarse.fine is None
    assert "hardly finer" in {reason.key: reason.because for reason in why}["pretraining.fine"]
    short, why = plan_pretraining(corpus(1326), TWO_CORES)
    assert short.fine is None
    assert "10,000,000 samples" in {reason.key: reason.because for reason in why}["pretraining.fine"]


def test_half_precision_follows_the_device():
    def precision(**changes):
        return plan_pretraining(corpus(1000), Hardware(**(ONE_GPU.model_dump() | changes)))[0].precision

    assert precision() == "bfloat16"
    assert precision(has_bfloat16=False) == "float16"
    assert precision(has_bfloat16=False, device="cpu") == "float32"


@pytest.mark.parametrize(
    ("modality", "sided", "flip"),
    [("ultrasound", (), "horizontal"), ("ultrasound", ("left lung",), "none"), ("xray", ("left lung",), "none")],
)
def test_views_are_flipped_where_that_gives_another_possible_image(modality, sided, flip):
    recipe, why = plan_pretraining(corpus(100, modality=modality, sided=sided), TWO_CORES)
    assert recipe.views.flip == flip
    because = {reason.key: reason.because for reason in why}["pretraining.views.flip"]
    assert all(name in because for name in sided)


@pytest.mark.parametrize(("channels", "why"), [(1, "grey has no colour"), (3, "hue and saturation stay")])
def test_the_reason_for_no_change_of_colour_fits_the_images(channels, why):
    facts = corpus(100, channels=channels, mean=(0.2,) * channels, std=(0.2,) * channels)
    _, reasons = plan_pretraining(facts, TWO_CORES)
    (because,) = (each.because for each in reasons if each.key.endswith("views.contrast"))
    assert why in because


def test_useful_samples_grow_with_the_images_but_slower():
    counts = [20, 500, 5_000, 100_000, 1_000_000, 2_000_000]
    samples = [useful_samples(count) for count in counts]
    assert samples == sorted(samples)
    assert useful_samples(2_000_000) == 40 * 2_000_000
    passes = [count / n for count, n in zip(samples, counts, strict=True)]
    assert passes == sorted(passes, reverse=True)


def test_rungs_lead_upwards():
    assert [rung.samples for rung in RUNGS] == sorted(rung.samples for rung in RUNGS)
    assert default_budget_s(TWO_CORES) < default_budget_s(ONE_GPU)


def test_pooled_facts_are_those_of_all_images_together():
    import numpy as np

    rng = np.random.default_rng(0)
    sets = [rng.uniform(0, 0.5, (30, 64)), rng.uniform(0.2, 1, (10, 64))]
    parts = [
        corpus(
            len(pixels), mean=(float(pixels.mean()),), std=(float(pixels.std()),), sided=("left lung", f"lung {index}")
        )
        for index, pixels in enumerate(sets)
    ]
    pooled = pool_facts(parts)
    together = np.concatenate(sets)
    assert pooled.num_images == 40
    assert pooled.mean[0] == pytest.approx(together.mean(), abs=1e-4)
    assert pooled.std[0] == pytest.approx(together.std(), abs=1e-4)
    assert pooled.sided == ("left lung", "lung 0", "lung 1")


def test_without_a_gpu_the_libraries_lie_in_the_same_memory_as_the_network():
    recipe, _ = plan_pretraining(corpus(2_000_000), TWO_CORES)
    cpu, mps, cuda = (memory_gb(recipe, 0, TWO_CORES.evolve(device=device)) for device in ("cpu", "mps", "cuda"))
    assert cpu == mps == pytest.approx(cuda + 0.55)
