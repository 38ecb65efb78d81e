"""Plan how images are prepared: to which size, which intensities, and how they are stored.

Images without a spacing are scaled into one size, since else the number of patches would follow the file's size;
images with one are resampled to a common spacing, as in nnU-Net. Neither is ever enlarged beyond the median image.
"""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from fmseg.errors import UsageError
from fmseg.planning.pretraining_rules import MIN_STD, patch_size_for
from fmseg.planning.reasons import Decision, Reasons
from fmseg.records.fingerprint import Fingerprint, Intensity
from fmseg.records.plans import Hardware, Preprocessing, Reason
from fmseg.records.record import Part

Scheme = Literal["eight_bit", "image_percentiles", "fixed_window"]

#: side of a square of as many pixels as a prepared image has
CPU_SIDE_PX, GPU_SIDE_PX, LARGE_GPU_SIDE_PX = 224, 336, 448
LARGE_GPU_GB = 30
#: a corpus of millions is stored smaller, and never below what global views of 224 pixels need
MAX_STORE_BYTES = 60e9
#: what blosc2 leaves of 8-bit ultrasound
COMPRESSION = 0.42
#: beyond this ratio of the sides, an image is cut into windows or padded rather than given a grid of its own
MAX_ASPECT = 3.0


class Options(Part):
    """What a user may ask of the preparation: ``fmseg plan --set neighbours=1``. By default none of it."""

    #: slices or frames on each side, as further channels
    neighbours: int = Field(default=0, ge=0, le=8)
    #: of ultrasound, beside the scan sector: keep, black, or crop (for classification and pretraining)
    outside: Literal["keep", "black", "crop"] = "keep"
    #: calipers, text and rulers on the scan: keep, or remove
    marks: Literal["keep", "remove"] = "keep"


def plan_preprocessing(
    fingerprint: Fingerprint, hardware: Hardware, channel_names: Sequence[str], options: Options | None = None
) -> tuple[Preprocessing, tuple[Reason, ...]]:
    """Return how the images of a dataset are prepared, with the reasons.

    Raises UsageError for options that these images cannot have.
    """
    options = options or Options()
    reasons = Reasons("preprocessing")
    intensity = reasons.keep("intensity", intensity_scheme(fingerprint, channel_names))
    window, because = window_of(fingerprint, intensity)
    reasons.share(("window",), because)
    outside = reasons.keep("outside", outside_of(fingerprint, options))
    marks = reasons.keep("marks", marks_of(fingerprint, options))
    mean, std, because = moments_of(fingerprint, intensity, window, is_cropped=outside == "crop")
    reasons.share(("mean", "std"), because)
    dtype = store_dtype(intensity)
    size_mode = reasons.keep("size_mode", size_mode_of(fingerprint))
    side, because = side_of(fingerprint, hardware, 1 if dtype[0] == "uint8" else 2)
    patch = patch_size_for(fingerprint.median_size)
    spacing = None
    if size_mode == "spacing":
        spacing, image_size, because = resampled(fingerprint, side, patch, because)
    else:
        image_size, because = fitted(fingerprint.median_size, side, patch, because)
    reasons.share(("image_size", "spacing_mm"), because)
    neighbours = reasons.keep("neighbours", neighbours_of(fingerprint, options))
    shown = 2 * neighbours + 1
    preprocessing = Preprocessing(
        size_mode=size_mode,
        image_size=image_size,
        spacing_mm=spacing,
        channels=shown * reasons.keep("channels", channels_of(fingerprint)),
        intensity=intensity,
        window=window,
        mean=shown * mean,
        std=shown * std,
        store_dtype=reasons.keep("store_dtype", dtype),
        neighbours=neighbours,
        outside=outside,
        marks=marks,
    )
    return preprocessing, reasons.all()


def intensity_scheme(fingerprint: Fingerprint, channel_names: Sequence[str]) -> Decision[Scheme]:
    """Return how intensities become [0, 1]."""
    if any(name.lower() == "ct" for name in channel_names) or fingerprint.modality == "ct":
        return "fixed_window", "CT: Hounsfield units mean the same in every image"
    if fingerprint.dtype == "uint8":
        return "eight_bit", "8-bit images fill a known range, 0 to 255"
    return (
        "image_percentiles",
        f"{fingerprint.dtype} values have no common unit: each image's own 0.5 to 99.5 percentiles",
    )


def window_of(fingerprint: Fingerprint, scheme: Scheme) -> Decision[tuple[tuple[float, float], ...]]:
    """Return the fixed window per channel, empty for the other schemes."""
    if scheme != "fixed_window":
        return (), "only images with a common unit have a common window"
    where = "labelled foreground" if fingerprint.foreground_intensity else "whole set"
    facts = _window_facts(fingerprint)
    window = tuple((each.percentile_00_5, max(each.percentile_99_5, each.percentile_00_5 + 1)) for each in facts)
    return window, f"0.5 to 99.5 percentiles of the {where}, as in nnU-Net"


def moments_of(
    fingerprint: Fingerprint, scheme: Scheme, window: tuple[tuple[float, float], ...], *, is_cropped: bool = False
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Return mean and standard deviation per channel of the images in [0, 1], and where they are from."""
    if scheme == "image_percentiles":
        mean, std = fingerprint.scaled_mean, fingerprint.scaled_std
        because = "of the whole set, each image between its own percentiles"
    elif scheme == "eight_bit":
        figures = (fingerprint.sector_intensity if is_cropped else ()) or fingerprint.intensity
        mean = tuple(each.mean / 255 for each in figures)
        std = tuple(each.std / 255 for each in figures)
        where = "in the scan sectors" if figures is fingerprint.sector_intensity else "of the set"
        because = f"of all pixels {where}, divided by 255"
    else:
        pairs = list(zip(_window_facts(fingerprint), window, strict=True))
        mean = tuple(min(1.0, max(0.0, (each.mean - low) / (high - low))) for each, (low, high) in pairs)
        std = tuple(min(1.0, each.std / (high - low)) for each, (low, high) in pairs)
        because = "of the pixels that the window is taken from, within the window"
    return tuple(round(v, 4) for v in mean), tuple(round(max(MIN_STD, v), 4) for v in std), because


def _window_facts(fingerprint: Fingerprint) -> tuple[Intensity, ...]:
    return fingerprint.foreground_intensity or fingerprint.intensity


def store_dtype(scheme: Scheme) -> Decision[Literal["uint8", "float16"]]:
    """Return the number format in the store."""
    if scheme == "eight_bit":
        return "uint8", "8-bit images lose nothing in 8 bits"
    return "float16", "more than 256 levels are kept"


def size_mode_of(fingerprint: Fingerprint) -> Decision[Literal["fit", "spacing"]]:
    """Return whether images are scaled into one size or to one spacing."""
    spacing = fingerprint.median_spacing_mm
    if fingerprint.task == "classification":
        return "fit", "a class is said of the whole image, so each image is scaled to be seen at once"
    if spacing is None:
        return "fit", "the files have no pixel spacing, so sizes in mm are unknown: each image is scaled into one size"
    if not fingerprint.is_3d and spacing[1:] == (1.0, 1.0):
        return "fit", "a spacing of exactly 1 x 1 mm in 2D images is a default that nobody measured"
    return "spacing", f"the files have a pixel spacing (median {spacing[1]:.3g} x {spacing[2]:.3g} mm), so mm are kept"


def side_of(fingerprint: Fingerprint, hardware: Hardware, bytes_per_value: int) -> Decision[float]:
    """Return the side of a square with as many pixels as a prepared image may have."""
    return side_for(fingerprint.num_images, fingerprint.channels * bytes_per_value * COMPRESSION, hardware)


def side_for(num_images: int, bytes_per_pixel: float, hardware: Hardware) -> Decision[float]:
    """Return that side for so many images, of so many bytes a pixel once they are compressed."""
    if hardware.device != "cuda":
        side, machine = CPU_SIDE_PX, "without a GPU"
    else:
        side = LARGE_GPU_SIDE_PX if hardware.memory_gb >= LARGE_GPU_GB else GPU_SIDE_PX
        machine = f"on a GPU with {hardware.memory_gb:.0f} GB"
    most = max(float(CPU_SIDE_PX), math.sqrt(MAX_STORE_BYTES / (num_images * bytes_per_pixel)))
    if most < side:
        return (
            most,
            f"{num_images:,} images fill about {MAX_STORE_BYTES / 1e9:.0f} GB at {most:.0f}^2 pixels",
        )
    return float(side), f"about {side}^2 pixels {machine}"


def fitted(size: tuple[int, int], side: float, patch: int, because: str) -> Decision[tuple[int, int]]:
    """Return the size into which images are scaled: the median image's aspect, whole patches, never enlarged."""
    aspect = min(MAX_ASPECT, max(1 / MAX_ASPECT, size[0] / size[1]))
    shrink = min(1.0, side / math.sqrt(size[0] * size[1]))
    side = shrink * math.sqrt(size[0] * size[1])
    wanted = (side * math.sqrt(aspect), side / math.sqrt(aspect))
    height, width = (
        max(2, min(round(length / patch), native // patch)) for length, native in zip(wanted, size, strict=True)
    )
    return (height * patch, width * patch), (
        f"{because}, the aspect of the median image ({size[0]}x{size[1]}), multiples of the patch ({patch})"
        + ("; not enlarged" if shrink == 1.0 else "")
    )


def resampled(
    fingerprint: Fingerprint, side: float, patch: int, because: str
) -> tuple[tuple[float, float], tuple[int, int], str]:
    """Return the common (y, x) spacing, and the median image's size at it in whole patches."""
    assert fingerprint.median_spacing_mm is not None
    size, spacing = fingerprint.median_size, fingerprint.median_spacing_mm[1:]
    coarser = max(1.0, math.sqrt(size[0] * size[1]) / side)
    target = (round(spacing[0] * coarser, 5), round(spacing[1] * coarser, 5))
    height, width = (max(2, math.ceil(n / coarser / patch - 1e-6)) * patch for n in size)
    how = f"made {coarser:.2f} times coarser for {because}" if coarser > 1 else "as fine as it is"
    return target, (height, width), f"the median spacing, {how}; the size is the median image's, in whole patches"


def outside_of(fingerprint: Fingerprint, options: Options) -> Decision[Literal["keep", "black", "crop"]]:
    """Return what becomes of text, rulers and bars beside the scan."""
    if options.outside == "keep":
        return "keep", "images are learned from as they are; --set outside=black leaves the scan alone"
    _need_ultrasound(fingerprint, f"outside={options.outside}")
    if options.outside == "crop" and fingerprint.task == "segmentation":
        raise UsageError("--set outside=crop: label maps are not cut along. Type --set outside=black.")
    return options.outside, "asked for with --set: only the scan sector is learned from"


def marks_of(fingerprint: Fingerprint, options: Options) -> Decision[Literal["keep", "remove"]]:
    """Return what becomes of what was drawn on the scan."""
    if options.marks == "keep":
        return "keep", "images are learned from as they are; --set marks=remove paints calipers and text over"
    _need_ultrasound(fingerprint, "marks=remove")
    if fingerprint.dtype != "uint8":
        raise UsageError(f"--set marks=remove: marks are found on 8-bit images, these are {fingerprint.dtype}.")
    return "remove", "asked for with --set: calipers and text may tell what was measured"


def _need_ultrasound(fingerprint: Fingerprint, setting: str) -> None:
    if fingerprint.modality != "ultrasound":
        what = f"this is for ultrasound, and {fingerprint.dataset} is {fingerprint.modality}"
        raise UsageError(f"--set {setting}: {what}. Leave it out.")


def neighbours_of(fingerprint: Fingerprint, options: Options) -> Decision[int]:
    """Return how many slices or frames on each side are further channels."""
    if not options.neighbours:
        return 0, "each slice or frame alone: images stay interchangeable with those of other sets"
    if not fingerprint.is_3d:
        raise UsageError(
            f"--set neighbours={options.neighbours}: {fingerprint.dataset} has neither volumes nor clips, so no image "
            "has neighbours. Leave it out."
        )
    return options.neighbours, "asked for with --set: what moves or continues is seen, at a multiple of the disk space"


def channels_of(fingerprint: Fingerprint) -> Decision[int]:
    """Return the channels that the network sees."""
    if fingerprint.channels < fingerprint.file_channels:
        return (
            fingerprint.channels,
            f"the {fingerprint.file_channels} channels of the files are equal: grey saved as RGB",
        )
    return fingerprint.channels, "as in the files"
