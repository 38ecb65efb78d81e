"""A trainer, as data: every number of one finetuning.

The planner fills in the numbers (``Plans.finetuning``); a registered recipe is a function that changes some of
them. ``fmseg train 501 0 -r linear --set iterations=500`` changes them once more.
"""

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from fmseg.errors import NotReady, UsageError
from fmseg.records.record import Part
from fmseg.records.settings import apply_settings, parse_setting
from fmseg.registry import Registry

Change = Callable[["Recipe"], "Recipe"]

#: chosen so that a faint rest of what lies behind stays visible, as it was to whoever drew the label
SHADOW_DARKNESS, SHADOW_WIDTH = (0.3, 0.8), (0.05, 0.2)


class Augmentation(Part):
    """Strength of the random changes of training images; see ``imaging.augment``."""

    #: share of the images that are warped, and how: degrees, factor range, share of the side
    warp_probability: float
    rotation_deg: float
    scale: tuple[float, float]
    shift: float
    flip_horizontal: bool
    flip_vertical: bool
    #: share of the images that get each of the intensity changes
    intensity_probability: float
    brightness: float
    contrast: float
    #: gamma is drawn log-uniformly from this range
    gamma: tuple[float, float]
    #: standard deviation of additive noise and of multiplicative speckle, in units of the full intensity range
    noise_std: float
    speckle_std: float
    blur_sigma_px: float
    # left out of the file where they say nothing new, so that digests of older plans stand
    #: share of the images over which an acoustic shadow falls
    shadow_probability: float = Field(default=0.0, exclude_if=lambda value: not value)
    #: range of the share of intensity that is lost in it
    shadow_darkness: tuple[float, float] = Field(default=SHADOW_DARKNESS, exclude_if=lambda v: v == SHADOW_DARKNESS)
    #: range of its width where it begins, as share of the image's width
    shadow_width: tuple[float, float] = Field(default=SHADOW_WIDTH, exclude_if=lambda v: v == SHADOW_WIDTH)


class UNetShape(Part):
    """The stages of a U-Net, that of the full resolution first."""

    features: tuple[int, ...]
    #: (y, x) of the two convolutions of each stage; the first one of them strides
    kernels: tuple[tuple[int, int], ...]
    strides: tuple[tuple[int, int], ...]
    #: share of the loss of the logits at each resolution, the full one first
    supervision: tuple[float, ...]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        stages = [len(self.features), len(self.kernels), len(self.strides)]
        if len(set(stages)) != 1 or not 0 < len(self.supervision) < len(self.strides):
            raise ValueError(
                "features, kernels and strides need an entry for each stage of the U-Net, and have {}, {} and {}; "
                "supervision needs fewer, and has {}".format(*stages, len(self.supervision))
            )
        return self


class Optimisation(Part):
    """How the weights of a network are moved; ``Recipe`` has the same numbers."""

    optimizer: Literal["adamw", "sgd"]
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule_power: float
    clip_norm: float


class Recipe(Part):
    """One way to train: network, decoder, what is frozen, and all the numbers."""

    name: str
    decoder: str
    #: width of the decoder's feature maps
    decoder_channels: int
    freeze_backbone: bool
    #: 2D input of the network, (height, width) in pixels
    input_size: tuple[int, int]
    batch_size: int
    iterations: int
    warmup_iterations: int
    learning_rate: float
    #: factor on the backbone's learning rate per layer away from the decoder; 1 switches it off
    layer_decay: float
    weight_decay: float
    drop_path: float
    clip_norm: float
    #: decay per step of the averaged weights that are validated and kept; 0 switches averaging off
    ema_decay: float
    #: share of each batch that must show a foreground class
    foreground_share: float
    loss: str
    augmentation: Augmentation
    #: iterations between two validations
    validation_interval: int
    #: at most this many cases are predicted at each of them; all at the end
    validation_cases: int
    precision: Literal["float32", "bfloat16", "float16"]
    seed: int
    # below: left out of the file where they change nothing, so that digests of older plans stand
    #: ``vit`` for a backbone with the decoder; else a whole network, which starts from random weights
    network: str = Field(default="vit", exclude_if=lambda value: value == "vit")
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", exclude_if=lambda value: value == "adamw")
    #: Nesterov's, of ``sgd``
    momentum: float = Field(default=0.0, exclude_if=lambda value: not value)
    #: after the warm-up the learning rate falls as (1 - progress) to this power
    schedule_power: float = Field(default=1.0, exclude_if=lambda value: value == 1)
    #: a run ends after so many validations without a better one, and keeps the best weights; 0: never
    patience: int = Field(default=0, exclude_if=lambda value: not value)
    #: what the recipe ``unet`` trains, and how
    unet: UNetShape | None = Field(default=None, exclude_if=lambda value: value is None)
    unet_optimisation: Optimisation | None = Field(default=None, exclude_if=lambda value: value is None)
    # of classification alone
    #: factor on the loss of each class, in the order of the label scheme; empty for 1 each
    class_weights: tuple[float, ...] = Field(default=(), exclude_if=lambda value: not value)
    #: share of the target that is spread over all classes
    label_smoothing: float = Field(default=0.0, exclude_if=lambda value: not value)
    #: mixup's alpha: images are mixed in pairs, their shares drawn from Beta(alpha, alpha); 0 switches it off
    mixup: float = Field(default=0.0, exclude_if=lambda value: not value)
    #: CutMix's alpha: a box of another image is put in, its area 1 minus a share from Beta(alpha, alpha); 0: off.
    #: Where both are on, each image gets one of them
    cutmix: float = Field(default=0.0, exclude_if=lambda value: not value)
    #: share of the features that the head does not see in a step
    head_dropout: float = Field(default=0.0, exclude_if=lambda value: not value)
    #: the head sees class token and mean patch after so many last blocks
    head_blocks: int = Field(default=1, exclude_if=lambda value: value == 1)
    #: steps: by gradient, in the loop. On frozen features: the best of a grid of regressions, a regression on the
    #: class token alone, the votes of the nearest images
    learned_by: Literal["steps", "grid", "logreg", "neighbours"] = Field(
        default="steps", exclude_if=lambda value: value == "steps"
    )


recipes: Registry[Change] = Registry("recipe")


def changed(**changes: Any) -> Change:
    """Return a recipe that is the planned one with some values changed."""
    return lambda planned: planned.evolve(**changes)


#: learning rate of a random head on features that stay
HEAD_RATE = 1e-3


def frozen(recipe: Recipe) -> Recipe:
    """Return a recipe whose backbone stays as it is, with what follows from that: no caution for it.

    A linear decoder learns at ten times the rate, the head of classes at that of random weights. UPerNet is as random
    as beside a backbone that learns, so it keeps the rate.
    """
    rates = {"linear": 10 * recipe.learning_rate, "class_head": HEAD_RATE, "attentive_head": HEAD_RATE}
    return recipe.evolve(
        freeze_backbone=True,
        layer_decay=1.0,
        drop_path=0.0,
        learning_rate=rates.get(recipe.decoder, recipe.learning_rate),
    )


def thawed(recipe: Recipe, planned: Recipe) -> Recipe:
    """Return a recipe whose backbone learns, as carefully as planned."""
    careful = {key: getattr(planned, key) for key in ("learning_rate", "layer_decay", "drop_path")}
    return recipe.evolve(freeze_backbone=False, **careful)


recipes.add("upernet", changed(decoder="upernet"))
recipes.add("linear", lambda planned: frozen(planned.evolve(decoder="linear")))
recipes.add("upernet_frozen", lambda planned: frozen(planned.evolve(decoder="upernet")))


def whole_network(planned: Recipe, name: str, **changes: Any) -> Recipe:
    """Return a recipe for a network without our backbone: all of its layers are random, and learn alike."""
    return planned.evolve(
        network=name, decoder="none", freeze_backbone=False, layer_decay=1.0, drop_path=0.0, **changes
    )


def _unet(planned: Recipe) -> Recipe:
    shape, optimisation = _planned_unet(planned)
    return whole_network(planned, "unet", decoder_channels=0, unet=shape, **optimisation.model_dump())


def _planned_unet(planned: Recipe) -> tuple[UNetShape, Optimisation]:
    if planned.unet is None or planned.unet_optimisation is None:
        raise NotReady(
            "The plan has no U-Net: it is of classes, which need none, or older than this fmseg. "
            "For a dataset with label maps, make it anew: fmseg plan -d NUMBER"
        )
    return planned.unet, planned.unet_optimisation


recipes.add("unet", _unet)
recipes.add(
    "multiresunet",
    lambda planned: whole_network(planned, "multiresunet", decoder_channels=_planned_unet(planned)[0].features[0]),
)
# 16 maps at the full resolution, as in the paper
recipes.add("unetr", lambda planned: whole_network(planned, "unetr", decoder_channels=16))

recipes.add("finetune", changed(decoder="class_head"))


# the features are those of the checkpoint: nothing is warmed up, decayed or averaged, and no image is changed
def _probe(decoder: str, learned_by: str) -> Change:
    # all see as many blocks, so that they share the features that are kept
    return changed(
        decoder=decoder,
        freeze_backbone=True,
        learned_by=learned_by,
        head_blocks=4,
        drop_path=0.0,
        mixup=0.0,
        cutmix=0.0,
    )


recipes.add("linear_probe", _probe("class_head", "grid"))
recipes.add("logreg", _probe("class_head", "logreg"))
recipes.add("knn", _probe("nearest_head", "neighbours"))
recipes.add("attentive_probe", lambda planned: frozen(planned.evolve(decoder="attentive_head")))
recipes.add("resnet18", lambda planned: whole_network(planned, "resnet18"))
recipes.add("resnet50", lambda planned: whole_network(planned, "resnet50"))
recipes.add("efficientnetv2", lambda planned: whole_network(planned, "efficientnetv2"))


#: numbers of a ViT and the decoder on it
OF_BACKBONE = {"decoder", "freeze_backbone", "layer_decay", "drop_path"}


def resolve(name: str, planned: Recipe, settings: dict[str, str]) -> Recipe:
    """Return the recipe ``name`` from the planned numbers, with ``--set`` settings applied.

    Whether the backbone stays comes first, then what follows from it, then all other settings. Raises UnknownName for a
    recipe, UsageError for a setting that does not exist, does not fit or would do nothing.
    """
    recipe = recipes[name](planned).evolve(name=name, unet_optimisation=None)
    if recipe.network != "unet":
        recipe = recipe.evolve(unet=None)
    absent = set() if recipe.network == "vit" else set(OF_BACKBONE)
    if not recipe.decoder_channels:
        absent.add("decoder_channels")
    for key in sorted(absent.intersection(settings)):
        raise UsageError(f"--set {key}={settings[key]} would change nothing: the recipe {name} has no such part.")
    stays = parse_setting(settings.get("freeze_backbone", ""))
    if isinstance(stays, bool) and stays != recipe.freeze_backbone:
        recipe = frozen(recipe) if stays else thawed(recipe, planned)
    found = apply_settings(recipe, settings)
    if found.learned_by != "steps" and stays is False:
        raise UsageError(
            f"--set freeze_backbone=false would change nothing: the recipe {name} solves its head on features that "
            "stay. Take one that learns by steps, such as finetune."
        )
    return found
