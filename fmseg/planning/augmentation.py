"""Plan the random changes of training images, and which mirrorings a prediction may be averaged over."""

from fmseg.planning.reasons import Decision, Reasons
from fmseg.planning.sides import sided_names, why_unmirrored
from fmseg.records.labels import OutputScheme
from fmseg.records.plans import Reason
from fmseg.records.recipe import SHADOW_DARKNESS, SHADOW_WIDTH, Augmentation

#: bodies have an upper and a lower end, seen from any direction
UPRIGHT = {"ultrasound", "ct", "mri", "xray", "oct", "mammography"}
#: low: a check on HC18 found neither gain nor harm (docs/explanation/planning.md)
SHADOW_PROBABILITY = 0.15
BECAUSE_SHADOWS = (
    "bone and gas take the sound from what lies behind them: a darker sector in few images, {:g} to {:g} of the width, "
    "with {:g} to {:g} of the intensity lost".format(*SHADOW_WIDTH, *SHADOW_DARKNESS)
)


def sided_labels(labels: OutputScheme | None) -> tuple[str, ...]:
    """Return the labels that speak of left or right."""
    return sided_names(labels.names) if labels is not None else ()


def mirror_axes_of(modality: str, labels: OutputScheme | None) -> Decision[tuple[str, ...]]:
    """Return the axes along which an image may be mirrored without becoming another one."""
    sided = sided_labels(labels)
    if sided:
        return (), why_unmirrored(sided)
    if modality == "ultrasound":
        return ("horizontal",), "the probe can be held either way round; depth, with its shadows, runs one way only"
    if modality in UPRIGHT:
        return ("horizontal",), f"{modality}: a body has two alike sides, but an upper and a lower end"
    return ("horizontal", "vertical"), f"{modality}: nothing is known that would tell up from down"


def plan_augmentation(modality: str, labels: OutputScheme | None) -> tuple[Augmentation, tuple[Reason, ...]]:
    """Return the strengths for a modality; flips are those that mirroring allows."""
    reasons = Reasons("finetuning.augmentation")
    axes, because = mirror_axes_of(modality, labels)
    reasons.share(("flip_horizontal", "flip_vertical"), because)
    is_ultrasound = modality == "ultrasound"
    because = "as in the paper's finetuning: half of the images, scaled by up to a fifth"
    reasons.share(("warp_probability", "scale", "shift"), because)
    rotation = (20.0, "a sector hangs from its probe: some tilt") if is_ultrasound else (30.0, "as in nnU-Net")
    if len(axes) == 2:
        rotation = (180.0, "nothing is known that would tell up from down")
    because = "as in the paper's finetuning: gain and dynamic range, as the machine's knobs change them"
    names = ("intensity_probability", "brightness", "contrast", "gamma")
    reasons.share(names, because)
    because = "a few grey levels of noise, a little less sharpness, as from another machine"
    reasons.share(("noise_std", "blur_sigma_px"), because)
    speckle = (
        (0.1, "multiplied speckle, ultrasound's own noise") if is_ultrasound else (0.0, "only ultrasound has speckle")
    )
    because = BECAUSE_SHADOWS if is_ultrasound else "only ultrasound has acoustic shadows"
    reasons.share(("shadow_probability", "shadow_darkness", "shadow_width"), because)
    augmentation = Augmentation(
        warp_probability=0.5,
        rotation_deg=reasons.keep("rotation_deg", rotation),
        scale=(0.8, 1.25),
        shift=0.1,
        flip_horizontal="horizontal" in axes,
        flip_vertical="vertical" in axes,
        intensity_probability=0.3,
        brightness=0.3,
        contrast=0.3,
        gamma=(0.7, 1.4),
        noise_std=0.03,
        speckle_std=reasons.keep("speckle_std", speckle),
        blur_sigma_px=1.0,
        shadow_probability=SHADOW_PROBABILITY if is_ultrasound else 0.0,
    )
    return augmentation, reasons.all()
