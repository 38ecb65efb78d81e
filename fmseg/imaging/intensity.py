"""Figures of intensities, drawn from one count of all values.

Integers are counted into a histogram, floats are sorted once; so mean, deviation and percentiles are exact and
cheap: a third of a millisecond for an 8-bit image of 600 x 800.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from fmseg.imaging.case import Array
from fmseg.records.fingerprint import Intensity

#: integers that span more than this are treated like floats
MAX_BINS = 2**20
LOW, HIGH = 0.005, 0.995


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often each value occurs. Both (N,); values float64, rising; counts int64, some may be 0."""

    values: Array
    counts: Array

    def mean_and_std(self, values: Array | None = None) -> tuple[float, float]:
        """Return both; ``values`` may hold other values for the same counts, such as scaled ones."""
        values = self.values if values is None else values
        total = self.counts.sum()
        mean = float(values @ self.counts / total)
        return mean, float(np.sqrt(((values - mean) ** 2) @ self.counts / total))

    def quantiles(self, *shares: float) -> list[float]:
        """Return quantiles, interpolated as NumPy does by default."""
        cumulated = np.cumsum(self.counts)
        position = np.array(shares) * (cumulated[-1] - 1)
        below = self.values[np.searchsorted(cumulated, np.floor(position), side="right")]
        above = self.values[np.searchsorted(cumulated, np.ceil(position), side="right")]
        return list((below + (above - below) * (position % 1)).tolist())

    def window(self) -> tuple[float, float]:
        """Return the 0.5 and 99.5 percentiles, or the extremes where these are equal (nearly empty images)."""
        low, high = self.quantiles(LOW, HIGH)
        if low == high:
            low, high = self.quantiles(0.0, 1.0)
        return low, high


def histogram(voxels: Array, mask: Array | None = None) -> Histogram | None:
    """Count the finite values of (Z, Y, X), or of those where ``mask`` (Z, Y, X) uint8 is not 0.

    Returns None if there are none.
    """
    if voxels.dtype == np.uint8 and voxels[0].size < 2**24:  # OpenCV counts in float32
        slices = zip(voxels, voxels if mask is None else mask, strict=True)
        counts = sum(
            cv2.calcHist([plane], [0], None if mask is None else part, [256], [0, 256]).astype(np.int64)
            for plane, part in slices
        )
        return _some(np.arange(256.0), np.ravel(counts))
    values = voxels.ravel() if mask is None else voxels[mask > 0]
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not values.size:
        return None
    if values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        if high - low < MAX_BINS:
            counts = np.bincount(values.astype(np.int64) - low)
            return _some(np.arange(low, high + 1, dtype=float), counts)
    different, counts = np.unique(values, return_counts=True)
    return _some(different.astype(float), counts)


def values_of(labels: Array) -> list[int]:
    """Return the different values of an array of integers, rising; faster than ``np.unique`` for uint8."""
    counted = histogram(labels.reshape(1, -1, labels.shape[-1]))
    return [] if counted is None else [int(value) for value in counted.values[counted.counts > 0]]


def scale(values: Array, window: tuple[float, float]) -> Array:
    """Map values to [0, 1] between two limits, float32 for arrays of images; all zero if the limits are equal."""
    low, high = window
    values = values.astype(np.float64 if values.dtype == np.float64 else np.float32)
    if high <= low:
        return np.zeros_like(values)
    values -= low
    values *= 1 / (high - low)
    return np.clip(values, 0, 1, out=values)


def intensity_of(counted: Histogram) -> Intensity:
    """Return the figures of one channel."""
    mean, std = counted.mean_and_std()
    minimum, low, median, high, maximum = counted.quantiles(0.0, LOW, 0.5, HIGH, 1.0)
    return Intensity(
        mean=mean,
        std=std,
        minimum=minimum,
        maximum=maximum,
        percentile_00_5=low,
        median=median,
        percentile_99_5=high,
    )


def _some(values: Array, counts: Array) -> Histogram | None:
    return Histogram(values, counts) if counts.any() else None
