"""Say of a new image if it is plainly unlike those that its models were trained on.

A few facts of the file are compared with their ranges over the labelled cases, which travel in run.json. A range leaves
out the most extreme patient on each side, so that no slip in the data widens it, and none is told by it. Around it is a
margin: a part of the range, larger where few patients were there to find it, and never less than what images of one
source may differ by. No refusal comes of it; and what is like the others may still show something else.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, log, sqrt
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from fmseg.imaging.case import Array, Case, Spacing, is_grey
from fmseg.imaging.intensity import histogram, intensity_of
from fmseg.records.fingerprint import CaseFacts, Intensity
from fmseg.records.plans import Preprocessing
from fmseg.records.ranges import Colour, Plane, Ranges, Size, Tone
from fmseg.records.run import RunConfig

#: begins the note in the table of cases
UNLIKE = "unlike the training images: "
#: share of the patients that a range leaves out on each side, but one patient at most
DROPPED = 0.05
# margins on each side, found by trial: LOG.md, 2026-11-23
#: as share of the range: of many patients; more where there are few, by this over their number; at most
MARGIN, MARGIN_OF_FEW, MAX_MARGIN = 0.25, 15.0, 2.0
#: at least: a factor
LEAST_FACTOR: Mapping[Size, float] = {
    "pixel size": 2.0,
    "pixel height by width": 1.5,
    "slice distance": 2.0,
    "slices": 4.0,
    "mean side": 2.0,
    "height by width": 1.3,
}
#: at least: a difference
LEAST_DIFFERENCE: Mapping[Tone, float] = {
    "brightness": 0.15,
    "contrast": 0.1,
    "darkest parts": 0.1,
    "brightest parts": 0.2,
}
UNITS: Mapping[Size, str] = {"pixel size": " mm", "slice distance": " mm", "mean side": " px"}
#: of a channel so many values say what its intensities are
MAX_VALUES = 1 << 20

K = TypeVar("K", Size, Tone)
V = TypeVar("V", Plane, Colour)


class Look(NamedTuple):
    """What is compared of one image."""

    sizes: dict[Size, float]
    tones: dict[Tone, float]
    #: of a volume; empty if it is oblique, or nobody knows how it lies
    plane: Literal[Plane, ""]
    #: empty where channels are no colours
    colour: Literal[Colour, ""]


def unlike(case: Case, configs: Sequence[RunConfig]) -> str:
    """Return in words how a case is unlike those that runs were trained on; empty if it is not, or nobody knows.

    configs: of networks that predict together; those trained before there were ranges say nothing.
    """
    config = next((each for each in configs if each.ranges is not None), None)
    if config is None or config.ranges is None:
        return ""
    return ", ".join(differences(look_of(case, config.plans.preprocessing), config.ranges))


def look_of(case: Case, preprocessing: Preprocessing) -> Look:
    """Return what is compared of a case in memory; of large ones a grid of voxels tells the intensities."""
    voxels, geometry = case.voxels, case.geometry
    grey = is_grey(voxels)
    counted = [histogram(_thinned(channel)) for channel in (voxels[:1] if grey else voxels)]
    tones = _tones([intensity_of(counts) for counts in counted if counts], preprocessing)
    colour = _colour(len(voxels), grey=grey)
    return _look(voxels.shape[1:], geometry.spacing_mm, geometry.slices, tones, colour)


def look_of_facts(facts: CaseFacts, preprocessing: Preprocessing) -> Look:
    """Return what is compared of a case that was measured."""
    tones, colour = _tones(facts.intensity, preprocessing), _colour(facts.channels, grey=facts.is_grey)
    return _look(facts.shape, facts.spacing_mm, facts.slices, tones, colour)


def ranges_of(looks: Iterable[tuple[str, Look]]) -> Ranges | None:
    """Return the ranges of images, each with its patient; None if there are none."""
    found = list(looks)
    if not found:
        return None
    return Ranges(
        num_patients=len({patient for patient, _ in found}),
        sizes=_ranges([(patient, look.sizes) for patient, look in found]),
        tones=_ranges([(patient, look.tones) for patient, look in found]),
        planes=_usual([(patient, look.plane) for patient, look in found if look.plane]),
        colours=_usual([(patient, look.colour) for patient, look in found if look.colour]),
    )


def differences(look: Look, ranges: Ranges) -> list[str]:
    """Return in words in what an image lies outside of the ranges and their margins."""
    share = min(MARGIN + MARGIN_OF_FEW / ranges.num_patients, MAX_MARGIN)
    told = []
    for size, extent in look.sizes.items():
        if size in ranges.sizes:
            low, high = ranges.sizes[size]
            margin = max(log(LEAST_FACTOR[size]), share * log(high / low))
            if not log(low) - margin <= log(extent) <= log(high) + margin:
                told.append(f"{size} {extent:.3g}{UNITS.get(size, '')} ({_trained_on(low, high)})")
    for tone, value in look.tones.items():
        if tone in ranges.tones:
            low, high = ranges.tones[tone]
            margin = max(LEAST_DIFFERENCE[tone], share * (high - low))
            if not low - margin <= value <= high + margin:
                told.append(f"{tone} {100 * value:.3g} % ({_trained_on(100 * low, 100 * high)})")
    if look.plane and ranges.planes and look.plane not in ranges.planes:
        told.append(f"{look.plane} slices (trained on {' and '.join(ranges.planes)})")
    if look.colour and ranges.colours and look.colour not in ranges.colours:
        told.append(f"{look.colour} (trained on {' and '.join(ranges.colours)})")
    return told


def _look(
    shape: tuple[int, ...],
    spacing_mm: Spacing,
    plane: Literal[Plane, ""],
    tones: dict[Tone, float],
    colour: Literal[Colour, ""],
) -> Look:
    depth, height, width = shape
    sizes: dict[Size, float] = {"mean side": sqrt(height * width), "height by width": height / width}
    if depth > 1:  # a clip to networks of single images is nothing new, nor the other way round
        sizes["slices"] = depth
    # a file that knows no sizes does not know either how it lies
    if spacing_mm is None or min(spacing_mm) <= 0:
        return Look(sizes, tones, "", colour)
    sizes |= {
        "pixel size": sqrt(spacing_mm[1] * spacing_mm[2]),
        "pixel height by width": spacing_mm[1] / spacing_mm[2],
    }
    if depth > 1:
        sizes["slice distance"] = spacing_mm[0]
    return Look(sizes, tones, plane if depth > 1 else "", colour)


def _tones(channels: Sequence[Intensity], preprocessing: Preprocessing) -> dict[Tone, float]:
    """Return the figures of intensities, averaged over channels, where 0 and 1 are what the networks see as such."""
    if not channels:
        return {}
    rows = []
    for index, each in enumerate(channels):
        low, high = _window(index, each, preprocessing)
        width = high - low if high > low else 1.0
        points = (each.mean, each.percentile_00_5, each.percentile_99_5)
        mean, darkest, brightest = ((value - low) / width for value in points)
        rows.append((mean, each.std / width, darkest, brightest))
    brightness, contrast, darkest, brightest = np.mean(rows, axis=0).tolist()
    return {
        "brightness": brightness,
        "contrast": contrast,
        "darkest parts": darkest,
        "brightest parts": brightest,
    }


def _window(index: int, channel: Intensity, preprocessing: Preprocessing) -> tuple[float, float]:
    if preprocessing.intensity == "eight_bit":
        return 0.0, 255.0
    if preprocessing.intensity == "fixed_window":
        return preprocessing.window[index % len(preprocessing.window)]
    return channel.percentile_00_5, channel.percentile_99_5


def _thinned(channel: Array) -> Array:
    """Return at most some ``MAX_VALUES`` of the voxels (Z, Y, X), on a grid."""
    axes = 3 if len(channel) > 1 else 2
    step = ceil((channel.size / MAX_VALUES) ** (1 / axes))
    return channel[:: step if axes == 3 else 1, ::step, ::step]


def _colour(channels: int, *, grey: bool) -> Literal[Colour, ""]:
    if channels == 3:
        return "grey" if grey else "coloured"
    return "grey" if channels == 1 else ""


def _ranges(figures: Sequence[tuple[str, Mapping[K, float]]]) -> dict[K, tuple[float, float]]:
    by_patient: dict[K, dict[str, list[float]]] = {}
    for patient, found in figures:
        for name, value in found.items():
            by_patient.setdefault(name, {}).setdefault(patient, []).append(value)
    return {name: _range(list(patients.values())) for name, patients in by_patient.items()}


def _range(patients: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the range of the values of some patients, three digits of it, without the outermost patients."""
    steps = len(patients) - 1
    share = min(1.0, DROPPED * steps) / max(steps, 1)
    low = np.quantile([min(values) for values in patients], share)
    high = np.quantile([max(values) for values in patients], 1 - share)
    return float(f"{low:.3g}"), float(f"{high:.3g}")


def _usual(kinds: Iterable[tuple[str, V]]) -> tuple[V, ...]:
    """Return the kinds that more than one patient shows, where there is more than one; sorted."""
    patients: dict[V, set[str]] = {}
    for patient, kind in kinds:
        patients.setdefault(kind, set()).add(patient)
    least = min(2, len(set().union(*patients.values())))
    return tuple(sorted(kind for kind, found in patients.items() if len(found) >= least))


def _trained_on(low: float, high: float) -> str:
    return f"trained on {low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"trained on {low:.3g} to {high:.3g}"
