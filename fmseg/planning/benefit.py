"""What a pretraining can be expected to bring, as far as it was measured.

Two gains, both with few labels: the Dice of a network finetuned on 20 labelled images over one trained from scratch,
and the macro F1 of a linear probe of whole images over one of random weights. Short runs were measured on two cores
with some 1,000 fetal images (docs/explanation/pretraining-regimes.md); the long one is the paper's [1], ViT-S/16 on
FASS with 20 images and on Fetal Planes. Between the two nobody has measured, and the gain is taken to follow the
logarithm of the samples.
[1] Ambsdorf et al., General Methods Make Great Domain-specific Foundation Models, 2025.
    https://arxiv.org/abs/2506.19552
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from fmseg.console import duration

#: samples seen, gain in Dice with 20 labelled images; below the first point nothing was gained
DICE_GAINS = ((44_544, 0.0), (99_968, 0.015), (80_000_000, 0.1075))
#: samples seen, gain in macro F1 of a linear probe
PROBE_GAINS = ((5_000, 0.0), (14_976, 0.10), (99_968, 0.21), (80_000_000, 0.37))
#: the longest run that was measured here; from the last point on it is the paper's
MEASURED_SAMPLES = 99_968
#: a gain in Dice that stands out of the standard error of three seeds
WORTHWHILE_DICE = 0.01


@dataclass(frozen=True, slots=True)
class Benefit:
    """What pretraining on so many samples is expected to bring."""

    samples: int
    dice_gain: float
    probe_gain: float

    @property
    def pays(self) -> bool:
        """Whether finetuning for segmentation is expected to profit."""
        return self.dice_gain >= WORTHWHILE_DICE

    def describe(self, images_per_s: float) -> str:
        """Return a sentence; where it does not pay, with the time that would, at this speed."""
        text = (
            f"with {self.samples:,} samples seen, {self.dice_gain:+.2f} Dice with 20 labelled images over scratch and "
            f"{self.probe_gain:+.2f} macro F1 of a linear probe over random weights are to be expected"
        )
        if self.pays:
            is_known = self.samples <= MEASURED_SAMPLES or self.samples >= DICE_GAINS[-1][0]
            return text if is_known else f"{text}; interpolated, not measured"
        needed = worthwhile_samples()
        return (
            f"{text}: segmentation has nothing to gain from that. From about {needed:,} samples on it may, "
            f"which takes {duration(needed / images_per_s)} here. "
            "Other people's weights may at once (fmseg list sources)"
        )


def expected_benefit(samples: int) -> Benefit:
    """Return what to expect of ``samples`` samples."""
    return Benefit(samples, _gain(samples, DICE_GAINS), _gain(samples, PROBE_GAINS))


def worthwhile_samples() -> int:
    """Return from how many samples on pretraining is expected to pay in segmentation, two digits."""
    for (low, start), (high, end) in pairwise(DICE_GAINS):
        if end >= WORTHWHILE_DICE:
            share = (WORTHWHILE_DICE - start) / (end - start)
            return int(float(f"{low * (high / low) ** share:.2g}"))
    raise AssertionError("no length was worth its while")


def _gain(samples: int, points: tuple[tuple[int, float], ...]) -> float:
    """Interpolate along the logarithm of the samples; constant beyond both ends."""
    if samples <= points[0][0]:
        return points[0][1]
    for (low, start), (high, end) in pairwise(points):
        if samples <= high:
            return start + (end - start) * math.log(samples / low) / math.log(high / low)
    return points[-1][1]
