"""Plan one finetuning: the numbers that all recipes share, and how careful it is with what pretraining learned.

The plan is made before anyone knows from which weights a run starts, so it is for random ones. Once they are known,
``adapt_finetuning`` makes it as careful as they deserve: weakly pretrained weights are hurt by the paper's caution
(a layer decay of 0.75 cost up to 0.14 Dice in trials), well pretrained ones are hurt without it.
"""

import math
from dataclasses import dataclass

from fmseg.planning.classification import class_weights_of, head_dropout_of, label_smoothing_of, mixing_of
from fmseg.planning.reasons import Decision, Reasons, between, between_powers
from fmseg.planning.step_cost import finetuning_gflop, step_gflop
from fmseg.planning.unet import plan_unet
from fmseg.records.fingerprint import Fingerprint
from fmseg.records.foundation import Foundation
from fmseg.records.labels import ClassScheme, OutputScheme
from fmseg.records.plans import Architecture, Hardware, Preprocessing, Pretraining, Reason
from fmseg.records.recipe import Augmentation, Recipe

NUM_FOLDS = 5
#: time of one fold's training, validation apart. On a CPU 200 s were too few: UperNet had a Dice of 0.861 after 250
#: steps on 20 heads, and 0.907 after 1,000 (LOG.md, 2026-11-22)
FOLD_SECONDS = {"cpu": 600.0, "mps": 1200.0, "cuda": 4 * 3600.0}
#: share of a device's sustained speed that a finetuning step reaches: 16 to 20 images a second were measured with
#: UperNet on two cores where all of it would give 40; of an accelerator it is assumed
STEP_SHARE = {"cpu": 0.45, "mps": 0.7, "cuda": 0.7}
LONG_ITERATIONS, MOST_ITERATIONS, MIN_ITERATIONS = 20_000, 80_000, 100
#: learning rate of a run of 1000 steps from random weights; others by the inverse root of their length
LEARNING_RATE_1000 = 1e-3
MIN_LEARNING_RATE = 1e-4
#: samples seen in pretraining: below the first, weights are as good as random; from the last on, they are the paper's
WEAK_SAMPLES, STRONG_SAMPLES = 100_000, 10_000_000
STRONG_LAYER_DECAY = 0.75
NUM_VALIDATIONS = 8


@dataclass(frozen=True, slots=True)
class Effort:
    """How long the networks of a task learn, and from how many images at once."""

    gpu_batch: int
    other_batch: int
    #: of a run that is not cut short by a small set or a slow machine
    long_iterations: int
    #: a set is seen at most so often, and at least so often where time allows
    most_passes: int
    least_passes: int
    source: str


#: the paper's few-shot runs took 20,000 steps, whole sets a little more
SEGMENTATION = Effort(16, 8, LONG_ITERATIONS, 4000, 30, "20,000 in the paper's few-shot runs")
#: one label an image says less than one a pixel, so it is learned by heart sooner
CLASSIFICATION = Effort(32, 16, 2000, 200, 30, "30 to 200 passes over the set, 2,000 steps in between")


@dataclass(frozen=True, slots=True)
class FinetuningFacts:
    """What the plan of a finetuning depends on."""

    fingerprint: Fingerprint
    hardware: Hardware
    preprocessing: Preprocessing
    pretraining: Pretraining

    @property
    def num_training(self) -> int:
        """Number of labelled images that one fold trains on."""
        return max(1, round(self.fingerprint.num_images * (1 - 1 / NUM_FOLDS)))

    @property
    def effort(self) -> Effort:
        """How much this task needs."""
        return SEGMENTATION if self.fingerprint.task == "segmentation" else CLASSIFICATION


def plan_finetuning(
    facts: FinetuningFacts, augmentation: Augmentation, labels: OutputScheme | None
) -> tuple[Recipe, tuple[Reason, ...]]:
    """Return the numbers common to all recipes, for a start from random weights, with the reasons."""
    reasons = Reasons("finetuning")
    is_segmentation = facts.fingerprint.task == "segmentation"
    input_size = reasons.keep("input_size", input_size_of(facts.preprocessing))
    width = reasons.keep("decoder_channels", decoder_width(facts.hardware, is_segmentation))
    batch = reasons.keep("batch_size", batch_size_of(facts.hardware, facts.num_training, facts.effort))
    gflop = finetuning_gflop(facts.pretraining.architecture, input_size, width)
    iterations = reasons.keep("iterations", iterations_of(facts, batch, gflop))
    because = "classes are learned from the last features" if not is_segmentation else "the paper's decoder"
    reasons.share(("name", "decoder", "freeze_backbone"), f"{because}; a recipe changes it (fmseg list recipes)")
    because = "cross-entropy and Dice: pixels and outlines" if is_segmentation else "cross-entropy"
    reasons.share(("loss",), because)
    reasons.share(("warmup_iterations",), "a tenth of the run")
    reasons.share(("weight_decay",), "as in the paper's finetuning")
    reasons.share(("seed",), "any number; the same one gives the same run")
    reasons.share(("clip_norm",), "gradients of the first steps, through a random decoder, can be large")
    because = f"averages about the last tenth of {iterations:,} steps; the average is what is validated and kept"
    ema_decay = reasons.keep("ema_decay", (ema_decay_of(iterations), because))
    most_cases = _validation_cases(facts.hardware, is_segmentation)
    because = f"about {NUM_VALIDATIONS} validations a run, at most {most_cases} cases each"
    reasons.share(("validation_interval", "validation_cases"), because)
    because = "no early end: the learning rate falls to 0 by the planned one, and the averaged weights are best there"
    reasons.share(("patience",), because)
    reasons.share(("precision",), "as in pretraining")
    recipe = Recipe(
        name="planned",
        decoder="upernet" if is_segmentation else "class_head",
        decoder_channels=width,
        freeze_backbone=False,
        input_size=input_size,
        batch_size=batch,
        iterations=iterations,
        warmup_iterations=max(1, iterations // 10),
        learning_rate=reasons.keep("learning_rate", learning_rate_of(iterations)),
        layer_decay=reasons.keep("layer_decay", (1.0, "random weights: every layer has as much to learn")),
        weight_decay=0.01,
        drop_path=reasons.keep("drop_path", drop_path_of(iterations)),
        clip_norm=1.0,
        ema_decay=ema_decay,
        foreground_share=reasons.keep("foreground_share", foreground_share_of(facts.fingerprint)),
        loss="ce_dice" if is_segmentation else "ce",
        augmentation=augmentation,
        validation_interval=max(1, iterations // NUM_VALIDATIONS),
        validation_cases=most_cases,
        precision=facts.pretraining.precision,
        seed=0,
    )
    of_task = _for_classes(recipe, facts, labels) if isinstance(labels, ClassScheme) else _for_pixels(recipe, facts)
    return of_task[0], (*reasons.all(), *of_task[1])


def _for_classes(recipe: Recipe, facts: FinetuningFacts, labels: ClassScheme) -> tuple[Recipe, tuple[Reason, ...]]:
    """Add the numbers that classes need."""
    reasons = Reasons("finetuning")
    (mixup, cutmix), because = mixing_of(recipe.iterations * recipe.batch_size / facts.num_training)
    reasons.share(("mixup", "cutmix"), because)
    share_of = {each.name: each.case_share for each in facts.fingerprint.classes}
    weights = class_weights_of(share_of, facts.fingerprint.num_cases, labels)
    recipe = recipe.evolve(
        class_weights=reasons.keep("class_weights", weights),
        label_smoothing=reasons.keep("label_smoothing", label_smoothing_of(labels)),
        mixup=mixup,
        cutmix=cutmix,
        head_dropout=reasons.keep("head_dropout", head_dropout_of(facts.num_training)),
    )
    return recipe, reasons.all()


def _for_pixels(recipe: Recipe, facts: FinetuningFacts) -> tuple[Recipe, tuple[Reason, ...]]:
    """Add the baseline that label maps are compared with."""
    if facts.fingerprint.task != "segmentation":
        return recipe, ()
    steps, rate = recipe.iterations, recipe.learning_rate
    shape, optimisation, because = plan_unet(recipe.input_size, facts.preprocessing, facts.hardware, steps, rate)
    return recipe.evolve(unet=shape, unet_optimisation=optimisation), because


def input_size_of(preprocessing: Preprocessing) -> Decision[tuple[int, int]]:
    """Return the size (height, width) of what the network sees at once."""
    if preprocessing.size_mode == "fit":
        return preprocessing.image_size, "the whole prepared image"
    return preprocessing.image_size, "the median image at the common spacing; larger ones are cut into windows"


def decoder_width(hardware: Hardware, is_segmentation: bool) -> Decision[int]:
    """Return the width of the decoder's feature maps."""
    if not is_segmentation:
        return 0, "a class needs no maps"
    if hardware.device != "cuda":
        return (
            64,
            "without a GPU: the decoder works on the largest maps, and its cost grows with the square of its width",
        )
    if hardware.memory_gb < 30:
        return 128, f"a GPU with {hardware.memory_gb:.0f} GB"
    return 256, f"a GPU with {hardware.memory_gb:.0f} GB"


def batch_size_of(hardware: Hardware, num_training: int, effort: Effort) -> Decision[int]:
    """Return the images of one step over all devices."""
    usual = effort.gpu_batch if hardware.device == "cuda" else effort.other_batch
    few = 2 ** max(1, math.floor(math.log2(num_training)))
    per_device = max(1, min(usual, few) // hardware.num_devices)
    shared = f", the same number on each of {hardware.num_devices} devices" if hardware.num_devices > 1 else ""
    because = f"{usual} on a {hardware.device}, at most the {num_training:,} training images of a fold{shared}"
    return per_device * hardware.num_devices, because


def finetuning_images_per_s(hardware: Hardware, gflop: float) -> float:
    """Return how many images all devices together train on in a second."""
    return hardware.gflops * hardware.num_devices * STEP_SHARE[hardware.device] / gflop


def iterations_of(facts: FinetuningFacts, batch: int, gflop: float) -> Decision[int]:
    """Return the steps of a run: as the set needs, as the machine allows."""
    hardware, num_training, effort = facts.hardware, facts.num_training, facts.effort
    needed = max(effort.long_iterations, math.ceil(effort.least_passes * num_training / batch))
    needed = max(MIN_ITERATIONS, min(needed, MOST_ITERATIONS, effort.most_passes * num_training // batch))
    speed = finetuning_images_per_s(hardware, gflop)
    possible = round(FOLD_SECONDS[hardware.device] * speed / batch, -1)
    if possible >= needed:
        return needed, f"for {num_training:,} training images; {effort.source}"
    return max(MIN_ITERATIONS, int(possible)), (
        f"about {FOLD_SECONDS[hardware.device] / 60:.0f} minutes a fold at some {speed:.0f} images a second; "
        f"{num_training:,} training images could use {needed:,}, with --set iterations"
    )


def learning_rate_of(iterations: int) -> Decision[float]:
    """Return the learning rate for random weights."""
    rate = min(LEARNING_RATE_1000, LEARNING_RATE_1000 * math.sqrt(1000 / iterations))
    return float(f"{max(MIN_LEARNING_RATE, rate):.2g}"), (
        f"AdamW from random weights: 1e-3 up to 1000 steps, then with the inverse root of the length ({iterations:,})"
    )


def ema_decay_of(iterations: int) -> float:
    """Return the decay per step of weights that are averaged over the last tenth of a run."""
    return round(min(0.999, max(0.9, 1 - 10 / iterations)), 4)


def drop_path_of(iterations: int) -> Decision[float]:
    """Return the highest rate of stochastic depth."""
    long = math.log(LONG_ITERATIONS / 1000)
    progress = min(1.0, max(0.0, math.log(iterations / 1000) / long))
    return between(
        0.0, 0.4, progress, 2
    ), f"none up to 1000 steps, the paper's 0.4 at {LONG_ITERATIONS:,}; {iterations:,} here"


def foreground_share_of(fingerprint: Fingerprint) -> Decision[float]:
    """Return the share of a batch that must show a foreground class."""
    rare = [facts.name for facts in fingerprint.classes if facts.case_share < 1]
    if fingerprint.task != "segmentation":
        return 0.0, "classes of whole images have no foreground"
    if not (rare or fingerprint.is_3d):
        return 0.0, "every image shows every class"
    what = f"some images lack {', '.join(rare[:3])}" if rare else "some slices may show none of the classes"
    return 0.33, f"{what}; a third, as in nnU-Net"


def _validation_cases(hardware: Hardware, is_segmentation: bool) -> int:
    # a class costs one pass through the backbone; and of few cases, the rare classes are missing
    return (100 if hardware.device == "cuda" else 20) * (1 if is_segmentation else 10)


def predicted_fold_seconds(recipe: Recipe, architecture: Architecture, hardware: Hardware) -> float:
    """Return the time of one fold's training, by rule of thumb."""
    gflop = step_gflop(recipe, architecture)
    return recipe.iterations * recipe.batch_size / finetuning_images_per_s(hardware, gflop)


def adapt_finetuning(recipe: Recipe, foundation: Foundation | None) -> tuple[Recipe, tuple[Reason, ...]]:
    """Return a planned recipe made for the weights that a run starts from: None for random ones.

    The learning rate falls to a third, but not below the paper's 1e-4, and the layer decay from 1 to 0.75, as far
    as the pretraining went. Weights from elsewhere count as well pretrained.
    """
    reasons = Reasons("finetuning")
    if foundation is None:
        reasons.share(("learning_rate", "layer_decay"), "random weights: the plan as it is")
        return recipe, reasons.all()
    strength = pretraining_strength(foundation)
    careful = max(MIN_LEARNING_RATE, recipe.learning_rate / 3)
    rate = min(recipe.learning_rate, between_powers(recipe.learning_rate, careful, strength))
    # caution per layer starts half way: below a million samples it cost Dice, for there was little to lose
    decay = between(1.0, STRONG_LAYER_DECAY, max(0.0, 2 * strength - 1), 3)
    is_known = foundation.recipe is not None and not any(foundation.foreign)
    seen = f"{foundation.total_samples:,} samples" if is_known else "an unknown number of samples"
    because = (
        f"{foundation.name} has seen {seen}: {strength:.0%} of the way from weights as good as random "
        f"({WEAK_SAMPLES:,}) to well pretrained ones ({STRONG_SAMPLES:,} and more)"
    )
    reasons.share(("learning_rate", "layer_decay"), because)
    return recipe.evolve(learning_rate=float(f"{rate:.2g}"), layer_decay=decay), reasons.all()


def pretraining_strength(foundation: Foundation) -> float:
    """Return how far a pretraining went: 0 up to 100,000 samples seen, 1 from ten million on."""
    if foundation.recipe is None or any(foundation.foreign):
        return 1.0
    span = math.log10(STRONG_SAMPLES / WEAK_SAMPLES)
    return min(1.0, max(0.0, math.log10(max(1, foundation.total_samples) / WEAK_SAMPLES) / span))
