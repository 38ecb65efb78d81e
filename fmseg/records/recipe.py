"""A trainer, as data: every number of one finetuning.

The planner fills in the numbers (``Plans.finetuning``); a registered recipe is a function that changes some of
them. ``fmseg train 501 0 -r linear --set iterations=500`` changes them once more.
"""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from fmseg.records.record import Part
from fmseg.records.settings import apply_settings
from fmseg.registry import Registry

Change = Callable[["Recipe"], "Recipe"]


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


class Recipe(Part):
    """One way to train: decoder, what is frozen, and all the numbers."""

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
    # of classification alone; left out of the file where they change nothing, so that digests of older plans stand
    #: factor on the loss of each class, in the order of the label scheme; empty for 1 each
    class_weights: tuple[float, ...] = Field(default=(), exclude_if=lambda value: not value)
    #: share of the target that is spread over all classes
    label_smoothing: float = Field(default=0.0, exclude_if=lambda value: not value)
    #: mixup's alpha: images are mixed in pairs, their shares drawn from Beta(alpha, alpha); 0 switches it off
    mixup: float = Field(default=0.0, exclude_if=lambda value: not value)
    #: share of the features that the head does not see in a step
    head_dropout: float = Field(default=0.0, exclude_if=lambda value: not value)
    #: the head sees class token and mean patch after so many last blocks
    head_blocks: int = Field(default=1, exclude_if=lambda value: value == 1)
    #: steps: by gradient, in the loop; grid: the best of a grid of regressions on frozen features
    learned_by: Literal["steps", "grid"] = Field(default="steps", exclude_if=lambda value: value == "steps")


recipes: Registry[Change] = Registry("recipe")


def changed(**changes: Any) -> Change:
    """Return a recipe that is the planned one with some values changed."""
    return lambda planned: planned.evolve(**changes)


recipes.add("upernet", changed(decoder="upernet"))
# a frozen backbone needs no caution: ten times the learning rate, no averaging of few weights
recipes.add(
    "linear",
    lambda planned: planned.evolve(
        decoder="linear",
        freeze_backbone=True,
        learning_rate=10 * planned.learning_rate,
        layer_decay=1.0,
        drop_path=0.0,
    ),
)


recipes.add("finetune", changed(decoder="class_head"))
# the features are those of the checkpoint: nothing is warmed up, decayed or averaged, and no image is changed
recipes.add(
    "linear_probe",
    changed(decoder="class_head", freeze_backbone=True, learned_by="grid", head_blocks=4, drop_path=0.0, mixup=0.0),
)


def resolve(name: str, planned: Recipe, settings: dict[str, str]) -> Recipe:
    """Return the recipe ``name`` from the planned numbers, with ``--set`` settings applied.

    Raises UnknownName for a recipe, UsageError for a setting that does not exist or does not fit.
    """
    return apply_settings(recipes[name](planned).evolve(name=name), settings)
