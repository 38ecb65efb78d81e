import pytest

from fmseg.errors import BadRecord, UnknownName, UsageError
from fmseg.records.recipe import Augmentation, Recipe, UNetShape, changed, recipes, resolve

PLANNED = Recipe(
    name="planned",
    decoder="upernet",
    decoder_channels=64,
    freeze_backbone=False,
    input_size=(64, 96),
    batch_size=8,
    iterations=100,
    warmup_iterations=10,
    learning_rate=1e-3,
    layer_decay=0.9,
    weight_decay=0.01,
    drop_path=0.1,
    clip_norm=1.0,
    ema_decay=0.99,
    foreground_share=0.33,
    loss="ce_dice",
    augmentation=Augmentation(
        warp_probability=0.5,
        rotation_deg=15,
        scale=(0.8, 1.2),
        shift=0.1,
        flip_horizontal=True,
        flip_vertical=False,
        intensity_probability=0.5,
        brightness=0.2,
        contrast=0.2,
        gamma=(0.8, 1.25),
        noise_std=0.02,
        speckle_std=0.1,
        blur_sigma_px=1.0,
    ),
    validation_interval=20,
    validation_cases=10,
    precision="float32",
    seed=0,
)


def test_a_recipe_changes_only_what_it_says():
    linear = resolve("linear", PLANNED, {})
    assert (linear.name, linear.decoder, linear.freeze_backbone) == ("linear", "linear", True)
    assert linear.iterations == PLANNED.iterations


def test_settings_win_over_the_recipe():
    recipe = resolve("linear", PLANNED, {"learning_rate": "1e-5", "input_size": "[32, 48]", "freeze_backbone": "false"})
    assert (recipe.learning_rate, recipe.input_size, recipe.freeze_backbone) == (1e-5, (32, 48), False)


#: what follows from a backbone that stays or learns, beside the decoder
FOLLOWS = ("freeze_backbone", "learning_rate", "layer_decay", "drop_path")


def follows(name, settings):
    recipe = resolve(name, PLANNED.evolve(learning_rate=1e-4), settings)
    return [getattr(recipe, key) for key in FOLLOWS]


@pytest.mark.parametrize("freeze", ["true", "false"])
@pytest.mark.parametrize(("one", "other"), [("upernet", "upernet_frozen"), ("finetune", "attentive_probe")])
def test_recipes_differ_in_nothing_once_both_backbones_stay_or_both_learn(one, other, freeze):
    settings = {"freeze_backbone": freeze}
    assert follows(one, settings) == follows(other, settings) == follows(other if freeze == "true" else one, {})


def test_a_linear_decoder_on_a_backbone_that_learns_is_as_careful_as_any():
    assert follows("linear", {"freeze_backbone": "false"}) == follows("upernet", {})
    assert follows("linear", {"freeze_backbone": "true"}) == follows("linear", {}) == [True, 1e-3, 1.0, 0.0]
    # what else is typed comes last
    typed = {"learning_rate": "0.3", "freeze_backbone": "false", "drop_path": "0.2"}
    assert follows("linear", typed) == [False, 0.3, PLANNED.layer_decay, 0.2]


@pytest.mark.parametrize("name", ["linear_probe", "logreg", "knn"])
def test_heads_that_are_solved_need_features_that_stay(name):
    with pytest.raises(UsageError, match="freeze_backbone=false would change nothing"):
        resolve(name, PLANNED, {"freeze_backbone": "false"})


def test_a_recipe_of_ones_own_keeps_its_rate_while_its_backbone_stays(monkeypatch):
    monkeypatch.setitem(recipes._items, "own", changed(freeze_backbone=True, learning_rate=0.7))
    assert resolve("own", PLANNED, {"freeze_backbone": "true"}).learning_rate == 0.7
    assert resolve("own", PLANNED, {"freeze_backbone": "false"}).learning_rate == PLANNED.learning_rate


def test_unknown_recipes_and_settings_are_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'upernet'"):
        resolve("upernett", PLANNED, {})
    with pytest.raises(UsageError, match="Did you mean 'iterations'"):
        resolve("upernet", PLANNED, {"iteration": "5"})
    with pytest.raises(BadRecord, match="'iterations' is 'many'"):
        resolve("upernet", PLANNED, {"iterations": "many"})


def test_another_length_stretches_the_schedules_unless_they_are_set():
    longer = resolve("upernet", PLANNED, {"iterations": "300", "validation_interval": "7"})
    assert (longer.warmup_iterations, longer.validation_interval) == (30, 7)
    assert resolve("upernet", PLANNED, {"iterations": "2"}).warmup_iterations == 1


def test_nested_settings_are_typed_with_a_dot():
    recipe = resolve("upernet", PLANNED, {"augmentation.rotation_deg": "5.0"})
    assert recipe.augmentation == PLANNED.augmentation.evolve(rotation_deg=5.0)
    with pytest.raises(UsageError, match="Did you mean 'rotation_deg'"):
        resolve("upernet", PLANNED, {"augmentation.rotation": "5.0"})
    with pytest.raises(UsageError, match="'seed' is a single value"):
        resolve("upernet", PLANNED, {"seed.value": "5"})


def test_a_recipe_of_ones_own_is_one_line(monkeypatch):
    monkeypatch.setitem(recipes._items, "frozen", changed(freeze_backbone=True, iterations=7))
    assert resolve("frozen", PLANNED, {}).iterations == 7


def test_numbers_of_classification_leave_files_and_digests_of_segmentation_as_they_were():
    new = {"class_weights", "label_smoothing", "mixup", "head_dropout", "head_blocks", "learned_by"}
    assert new <= set(Recipe.model_fields) and not new & set(PLANNED.model_dump(mode="json"))
    several = PLANNED.evolve(mixup=0.2, class_weights=(1.0, 2.0))
    assert Recipe.parse(several.model_dump(mode="json"), "test") == several
    assert several.digest() != PLANNED.digest()
    assert several.evolve(mixup=0.0, class_weights=()).digest() == PLANNED.digest()


def test_plans_without_shadows_load_and_keep_their_digest():
    older = PLANNED.model_dump(mode="json")
    assert not [key for key in older["augmentation"] if key.startswith("shadow")]
    assert Recipe.parse(older, "test") == PLANNED and PLANNED.augmentation.shadow_probability == 0
    shadowed = resolve("upernet", PLANNED, {"augmentation.shadow_probability": "0.15"})
    assert Recipe.parse(shadowed.model_dump(mode="json"), "test") == shadowed
    assert shadowed.digest() != resolve("upernet", PLANNED, {}).digest()


def test_a_u_net_whose_numbers_do_not_fit_together_is_answered_with_them():
    shape = UNetShape(features=(8, 16), kernels=((3, 3), (3, 3)), strides=((1, 1), (2, 2)), supervision=(1.0,))
    with pytest.raises(BadRecord, match=r"^UNetShape: features, kernels .* have 3, 2 and 2; supervision .* has 1\.$"):
        shape.evolve(features=(8, 16, 32))
