"""The rules of a pretraining, each with its reason: architecture, views, batch, length, heads, optimisation.

Each number has a value for short runs and one for long ones; ``Scale`` says where between the two a run lies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fmseg.console import duration
from fmseg.planning.ladder import Climb, Rung
from fmseg.planning.reasons import Decision, Reasons, between, between_powers
from fmseg.planning.sides import why_unmirrored
from fmseg.records.plans import Architecture, Views

#: samples seen in the longest of the trials on two cores, about, and in 40 passes over a million images
SHORT_SAMPLES, LONG_SAMPLES = 100_000, 40_000_000
#: of a set without any contrast
MIN_STD = 0.01
#: below this side in pixels, patches are 8 wide, so that an image still has some hundred of them
SMALL_IMAGE_PX = 128
#: of a batch of 1024, scaled with the square root; both regimes agree on it
LEARNING_RATE_1024 = 4e-3
#: of 64 bits, for images of one patient. Of 442,550 pairs of images of different patients (HC18, FETAL_PLANES_DB) none
#: differs in fewer; an image saved as JPEG, brightened, halved or moved by 4 pixels differs in at most 8 from itself
MIN_DIFFERENCE = 8
BECAUSE_DIFFERENT = (
    "equal images are used once, and of one patient (one folder, where patients are not known) those that look "
    "different: frames, slices and copies differ in fewer of 64 bits, images of different patients hardly ever"
)


@dataclass(frozen=True, slots=True)
class Scale:
    """How long a run is: 0 up to 100,000 samples, 1 from 40 million on, logarithmic between."""

    samples: int
    progress: float

    @classmethod
    def of(cls, samples: int) -> "Scale":
        """Return the scale of a run that sees ``samples`` samples."""
        span = math.log10(LONG_SAMPLES / SHORT_SAMPLES)
        progress = math.log10(max(1, samples) / SHORT_SAMPLES) / span
        return cls(samples, 1.0 if samples >= LONG_SAMPLES else max(0.0, progress))

    def describe(self, short: object, long: object, *, tried: bool = True) -> str:
        """Return where a number lies between its values for short and long runs. tried: the short one, in trials."""
        origin = "learned most in trials" if tried else "assumed, not tried"
        if self.progress == 0:
            return f"{short} up to {SHORT_SAMPLES:,} samples ({origin}), {long} from {LONG_SAMPLES:,} on (the paper's)"
        if self.progress == 1:
            return f"{long} from {LONG_SAMPLES:,} samples on, as in the paper"
        return (
            f"between {short} up to {SHORT_SAMPLES:,} samples ({origin}) and {long} from {LONG_SAMPLES:,} on "
            f"(the paper's): {self.progress:.0%} of the way at {self.samples:,}"
        )


def patch_size_for(size: tuple[int, int]) -> int:
    """Return the patch size in pixels for images of ``size`` (height, width)."""
    return 16 if math.sqrt(size[0] * size[1]) >= SMALL_IMAGE_PX else 8


def plan_architecture(
    reached: Climb, views: Views, channels: int, size: tuple[int, int], scale: Scale, reasons: Reasons
) -> Architecture:
    """Return the ViT of the rung."""
    rung = reached.rung
    shape = ("architecture.name", "architecture.width", "architecture.depth", "architecture.num_heads")
    reasons.share(shape, _why_this_rung(reached))
    because = (
        f"{size[0]}x{size[1]} images: 16 from a side of {SMALL_IMAGE_PX} pixels on, else 8, to have enough patches"
    )
    patch = reasons.keep("architecture.patch_size", (patch_size_for(size), because))
    because = (
        "registers take up what a large ViT would else store in patches; a tiny one has none to spare on small views"
    )
    reasons.share(("architecture.num_registers",), because)
    reasons.share(("architecture.channels",), "channels of the prepared images")
    because = "the position embedding is made for the grid of the global views"
    reasons.share(("architecture.image_size",), because)
    because = "as in DINOv2: a plain ViT, its position grid resampled by scale factor with offset 0.1"
    constants = ("mlp_ratio", "ffn", "layer_norm_eps", "position_interpolation", "position_antialias")
    reasons.share(tuple(f"architecture.{name}" for name in constants), because)
    return Architecture(
        name=rung.name,
        patch_size=patch,
        width=rung.width,
        depth=rung.depth,
        num_heads=rung.num_heads,
        mlp_ratio=4.0,
        ffn="mlp",
        num_registers=rung.num_registers,
        layer_scale=reasons.keep("architecture.layer_scale", layer_scale(scale)),
        layer_norm_eps=1e-6,
        channels=channels,
        image_size=views.global_size,
        position_interpolation="offset",
        position_antialias=False,
    )


def _why_this_rung(reached: Climb) -> str:
    text = f"{reached.samples:,} samples fit into {duration(reached.budget_s)}, of {reached.useful_samples:,} of use"
    if reached.next_rung is None:
        return f"{text}; the largest network that this number of images can feed"
    following = reached.next_rung
    return (
        f"{text}; the next step, {following.name} on {following.global_px}-pixel views, "
        f"would need {duration(reached.next_seconds)} to see as many as it is meant for"
    )


def layer_scale(scale: Scale) -> Decision[float]:
    """Return the initial LayerScale: at 1e-5 a network stays an identity for the first thousands of steps."""
    value = float(f"{between_powers(1.0, 1e-5, scale.progress):.1g}")
    return value, f"{scale.describe('1', '1e-5')}; in short runs 1e-5 learned nothing, the loss stayed at log K"


def plan_views(
    modality: str,
    channels: int,
    size: tuple[int, int],
    rung: Rung,
    scale: Scale,
    sided: Sequence[str],
    reasons: Reasons,
) -> Views:
    """Return the crops: sizes of the rung, never larger than the images, and how they are changed."""
    t = scale.progress
    patch = patch_size_for(size)
    globally = max(4 * patch, min(rung.global_px, min(size) // patch * patch))
    locally = max(2 * patch, round(globally * rung.local_px / rung.global_px / patch) * patch)
    because = f"views of {rung.global_px} and {rung.local_px} pixels go with {rung.name}, made smaller for small images"
    reasons.share(("views.global_size", "views.local_size"), f"{because}; the shorter side here has {min(size)}")
    reasons.share(("views.num_locals",), scale.describe(6, 8))
    because = "small views of a small part have the detail that finetuning and probes see in whole images"
    ranges = ("0.15 to 0.6", "0.32 to 1"), ("0.03 to 0.2", "0.05 to 0.32")
    reasons.share(("views.global_scale",), f"{scale.describe(*ranges[0])}; {because}")
    reasons.share(("views.local_scale",), f"{scale.describe(*ranges[1])}; {because}")
    because = "views that show something helped in trials, though not in this very number"
    reasons.share(("views.min_content",), f"{scale.describe(0.2, 0, tried=False)}; {because}")
    hue = "grey has no colour to change" if channels == 1 else "alike in all channels, so hue and saturation stay"
    because = f"as in UltraDINO: brightness and contrast by up to 0.4 in 8 of 10 views; {hue}"
    reasons.share(("views.jitter_probability", "views.brightness", "views.contrast"), because)
    because = (
        "as released with DINOv2's weights: never the first global view, nearly always the second, half of the locals"
    )
    reasons.share(("views.blur_probability", "views.blur_sigma_px"), because)
    reasons.share(("views.aspect", "views.solarize_probability"), "as in DINOv2 and UltraDINO")
    return Views(
        global_size=(globally, globally),
        local_size=(locally, locally),
        num_locals=round(6 + 2 * t),
        global_scale=(between(0.15, 0.32, t, 3), between(0.6, 1.0, t, 3)),
        local_scale=(between(0.03, 0.05, t, 3), between(0.2, 0.32, t, 3)),
        aspect=(0.75, 4 / 3),
        flip=reasons.keep("views.flip", flip_of_views(modality, sided)),
        jitter_probability=0.8,
        brightness=0.4,
        contrast=0.4,
        blur_probability=(0.0, 0.9, 0.5),
        blur_sigma_px=(0.1, 2.0),
        solarize_probability=0.2,
        min_content=between(0.2, 0.0, t, 3),
    )


def flip_of_views(modality: str, sided: Sequence[str]) -> Decision[Literal["none", "horizontal", "vertical"]]:
    """Return how views are flipped. sided: labels that speak of left or right."""
    if sided:
        return "none", why_unmirrored(sided)
    if modality == "ultrasound":
        return "horizontal", (
            "the probe can be held either way round, but shadows and attenuation run down the image, so depth is no "
            "symmetry; UltraDINO flipped vertically instead"
        )
    return "horizontal", "as in DINOv2"


def plan_batch(num_images: int, num_devices: int, scale: Scale, reasons: Reasons) -> int:
    """Return the images of one step over all devices: at most half of the set, at least two a device."""
    wanted = 2 ** (6 + 3 * scale.progress) / num_devices
    few = max(2.0, num_images / 2 / num_devices)
    per_device = max(2, 2 ** min(round(math.log2(wanted)), math.floor(math.log2(few))))
    because = (
        f"{scale.describe(64, 512)}; at most half of the {num_images:,} images, since equal images in one step "
        f"disturb KoLeo{_each(per_device, num_devices)}"
    )
    return reasons.keep("batch_size", (per_device * num_devices, because))


def _each(per_device: int, num_devices: int) -> str:
    return f"; {per_device} on each of {num_devices} devices" if num_devices > 1 else ""


def plan_length(reached: Climb, num_images: int, batch: int, iterations: int, reasons: Reasons) -> dict[str, Any]:
    """Return the iterations and what is counted in shares of them."""
    samples = batch * iterations
    limit = (
        "all that is of use" if reached.samples >= reached.useful_samples else f"within {duration(reached.budget_s)}"
    )
    because = f"{samples:,} samples ({samples / num_images:.1f} passes over {num_images:,} images), {limit}"
    reasons.share(("iterations",), because)
    reasons.share(("warmup_iterations",), "a tenth of the run, as 10 of DINOv2's 100 epochs")
    reasons.share(("temperature_warmup_iterations",), "30 % of the run, as 30 of DINOv2's 100 epochs")
    because = "1 % of the run, as 1 of DINOv2's 100 epochs: the prototypes wait until the features have settled"
    reasons.share(("freeze_last_layer_iterations",), because)
    return {
        "iterations": iterations,
        "warmup_iterations": max(1, round(0.1 * iterations)),
        "temperature_warmup_iterations": max(1, round(0.3 * iterations)),
        "freeze_last_layer_iterations": max(1, round(0.01 * iterations)),
    }


def plan_heads(scale: Scale, reasons: Reasons) -> dict[str, Any]:
    """Return prototypes, temperatures and the teacher's momentum."""
    t = scale.progress
    prototypes = 2 ** round(10 + 6 * t)
    because = "few prototypes are found sooner, and cost less"
    reasons.share(("num_prototypes",), f"{scale.describe(1024, 65536)}, in powers of 2; {because}")
    reasons.share(("teacher_temperature",), scale.describe("0.045 throughout", "0.04 rising to 0.07"))
    because = "a short run has few steps to forget its random start in"
    reasons.share(("teacher_momentum",), f"rises to 1; its start is {scale.describe(0.985, 0.992)}; {because}")
    return {
        "num_prototypes": prototypes,
        "teacher_temperature": (between(0.045, 0.04, t, 4), between(0.045, 0.07, t, 4)),
        "teacher_momentum": (between(0.985, 0.992, t, 4), 1.0),
    }


def plan_contrast(scale: Scale, reasons: Reasons) -> dict[str, Any]:
    """Return the weight of telling images apart, which a short run learns most from."""
    weight = between(1.0, 0.0, scale.progress, 3)
    because = (
        "a teacher that knows nothing yet gives nearly even answers, and short runs ended before that changed; which "
        "of the batch's images, or masked patches, a token is from can be asked from the first step on"
    )
    reasons.share(("contrast_weight", "patch_contrast_weight"), f"{scale.describe(1, 0)}; {because}")
    reasons.share(("contrast_temperature",), "that of MoCo v3")
    return {"contrast_weight": weight, "patch_contrast_weight": weight, "contrast_temperature": 0.2}


def plan_optimisation(scale: Scale, batch: int, reasons: Reasons) -> dict[str, Any]:
    """Return learning rate, weight decay and stochastic depth."""
    t = scale.progress
    because = (
        f"{LEARNING_RATE_1024} times the root of {batch}/1024, as in DINOv2; the trials' best, 1e-3 at 64, obeys it"
    )
    rate = reasons.keep("learning_rate", (round(LEARNING_RATE_1024 * math.sqrt(batch / 1024), 7), because))
    reasons.share(("weight_decay",), f"rises from 0.04; its end is {scale.describe(0.1, 0.4, tried=False)}")
    reasons.share(("drop_path",), scale.describe(0, 0.3, tried=False))
    because = "the first layers, too, have everything to learn in a short run"
    speeds = ("layer_decay", "patch_embed_factor")
    reasons.share(speeds, f"{scale.describe('1 and 1', '0.9 and 0.2')}; {because}")
    return {
        "layer_decay": between(1.0, 0.9, t, 3),
        "patch_embed_factor": float(f"{between_powers(1.0, 0.2, t):.2g}"),
        "learning_rate": rate,
        "weight_decay": (0.04, float(f"{between_powers(0.1, 0.4, t):.2g}")),
        "drop_path": between(0.0, 0.3, t, 2),
    }


def explain_constants(reasons: Reasons) -> dict[str, Any]:
    """Return what is DINOv2's at every scale."""
    heads = {"head_hidden": 2048, "head_bottleneck": 256, "shared_head": True, "trainable_gain": True}
    reasons.share(tuple(heads), "as in UltraDINO: one head of three layers for class tokens and masked patches")
    targets = {"centering": "softmax", "center_momentum": 0.9, "student_temperature": 0.1}
    reasons.share(tuple(targets), "as in UltraDINO: softmax centring, which also works on small batches")
    weights = {"dino_weight": 1.0, "ibot_weight": 1.0, "koleo_weight": 0.1}
    reasons.share(tuple(weights), "as in DINOv2: images and patches count alike, spreading a tenth")
    thinning = {"min_difference": MIN_DIFFERENCE}
    reasons.share(tuple(thinning), BECAUSE_DIFFERENT)
    pixels = {"pixel_weight": 0.0}
    reasons.share(tuple(pixels), "DINOv2 guesses no grey values; 1 adds such a loss, which is on trial")
    masks = {"mask_probability": 0.5, "mask_ratio": (0.1, 0.5)}
    reasons.share(tuple(masks), "as in DINOv2: half of the global views, 10 to 50 % of the patches")
    steps = {"min_learning_rate": 1e-6, "clip_norm": 3.0}
    reasons.share(tuple(steps), "as in DINOv2: cosine to 1e-6, gradients clipped")
    reasons.share(("seed",), "any number; the same one gives the same run")
    return heads | targets | weights | thinning | pixels | masks | steps
