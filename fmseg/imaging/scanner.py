"""A made ultrasound scanner: from what tissues are to what a curved probe shows of them.

Everything happens along the beams, as in the machine: scatterers times tissue strength, blurred by the pulse,
give fully developed speckle (a Rayleigh-distributed envelope); what lies above takes its share of the energy, so
that shadows fall below bone and fluid brightens what is behind it; log compression and scan conversion come last.

Beam arrays are (R, A): R samples in depth, A beams from left to right. Pictures are (h, w).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

NUM_BEAMS = 192
SAMPLE_MM = 0.4
FLOOR_DB = -120.0


@dataclass(frozen=True, slots=True)
class Device:
    """What differs between machines: the probe's shape, the pulse and the picture."""

    #: (height, width) of the picture in pixels
    size: tuple[int, int]
    #: half of the sector's opening, and the radius of the probe's surface
    half_angle_deg: float
    probe_radius_mm: float
    #: standard deviations of the pulse, along the beam and in beams across it
    pulse_mm: float
    pulse_beams: float
    dynamic_range_db: float
    #: exponent of the grey curve; above 1 darkens the middle
    gamma: float
    #: strength of the machine's edge sharpening
    sharpening: float


#: machines of four clinics
DEVICES = (
    Device((288, 384), 35, 42, 0.42, 1.1, 60, 1.10, 0.25),
    Device((320, 320), 31, 58, 0.60, 1.4, 56, 1.20, 0.0),
    Device((256, 352), 42, 36, 0.50, 1.0, 66, 1.05, 0.5),
    Device((360, 440), 28, 50, 0.36, 1.2, 58, 1.15, 0.1),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What differs between two scans with one machine."""

    depth_mm: float
    gain_db: float
    #: error of the depth compensation
    slope_db_per_mm: float
    #: share of the sector without contact, on the left side (below 0) or the right, and how much is lost there
    lost_contact: float
    lost_db: float
    seed: int


@dataclass(frozen=True, slots=True)
class Tissue:
    """What the beams meet."""

    #: (R, A), strength of the echoes in dB; 0 is bright tissue
    echo_db: Floats
    #: (R, A), energy lost or (below 0, relative to the machine's compensation) won per mm
    loss_db_per_mm: Floats


def beam_points(device: Device, depth_mm: float) -> tuple[Floats, Floats]:
    """Return x (to the right) and y (down, from the middle of the probe's surface) of all samples in mm."""
    angle = np.radians(np.linspace(-device.half_angle_deg, device.half_angle_deg, NUM_BEAMS, dtype=np.float32))
    depth = np.arange(0, depth_mm, SAMPLE_MM, dtype=np.float32)[:, None]
    radius = device.probe_radius_mm + depth  # (R, 1)
    return radius * np.sin(angle), radius * np.cos(angle) - np.float32(device.probe_radius_mm)


def pixel_points(device: Device, depth_mm: float) -> tuple[Floats, Floats]:
    """Return x and y in mm of all pixels; the sector fills the picture but for a narrow margin."""
    height, width = device.size
    half = np.radians(device.half_angle_deg)
    sagitta = device.probe_radius_mm * (1 - np.cos(half))  # the probe's surface curves up by this much
    tall = depth_mm + sagitta
    wide = 2 * (device.probe_radius_mm + depth_mm) * np.sin(half)
    # a sector that is wider than the picture is cut at its sides, as on the machines
    pixel_mm = max(tall / (0.96 * height), 0.9 * wide / width)
    top = -sagitta - 0.5 * (height * pixel_mm - tall)
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2) * pixel_mm
    y = np.arange(height, dtype=np.float32)[:, None] * pixel_mm + top
    return np.broadcast_to(x.astype(np.float32), device.size), np.broadcast_to(y.astype(np.float32), device.size)


def acquire(device: Device, settings: Settings, tissue: Tissue) -> NDArray[np.uint8]:
    """Return the picture (h, w) of what the beams meet; black outside the sector."""
    received_db = tissue.echo_db - _losses(settings, tissue)
    amplitude = _speckle(device, settings, np.maximum(received_db, FLOOR_DB))
    grey = 1 + (20 * np.log10(amplitude + 1e-6) + settings.gain_db) / device.dynamic_range_db
    grey = np.clip(grey, 0, 1).astype(np.float32) ** np.float32(device.gamma)
    if device.sharpening > 0:
        grey = grey + device.sharpening * (grey - cv2.GaussianBlur(grey, (0, 0), 2.0))
    column, row = _beam_coordinates(device, settings.depth_mm)
    picture = cv2.remap(np.clip(255 * grey, 0, 255), column, row, cv2.INTER_LINEAR)
    picture[~_is_reached(column, row, len(grey))] = 0
    return picture.round().astype(np.uint8)


def in_sector(device: Device, depth_mm: float) -> NDArray[np.bool_]:
    """Return which pixels (h, w) a beam reaches."""
    column, row = _beam_coordinates(device, depth_mm)
    return _is_reached(column, row, len(np.arange(0, depth_mm, SAMPLE_MM)))


def _is_reached(column: Floats, row: Floats, num_samples: int) -> NDArray[np.bool_]:
    return (column >= 0) & (column <= NUM_BEAMS - 1) & (row >= 0) & (row <= num_samples - 1)


def _beam_coordinates(device: Device, depth_mm: float) -> tuple[Floats, Floats]:
    x, y = pixel_points(device, depth_mm)
    radius, angle = cv2.cartToPolar(y + np.float32(device.probe_radius_mm), np.ascontiguousarray(x))
    angle = np.where(angle > np.pi, angle - 2 * np.pi, angle)  # to the left of the middle below 0
    half = np.radians(device.half_angle_deg)
    column = (angle + half) / (2 * half) * (NUM_BEAMS - 1)
    return column.astype(np.float32), (radius - np.float32(device.probe_radius_mm)) / np.float32(SAMPLE_MM)


def _losses(settings: Settings, tissue: Tissue) -> Floats:
    """Return what is lost on the way to each sample and by bad contact, in dB (R, A)."""
    num_samples, num_beams = tissue.echo_db.shape
    lost = np.cumsum(tissue.loss_db_per_mm * np.float32(SAMPLE_MM), axis=0, dtype=np.float32)
    depth_mm = np.arange(num_samples, dtype=np.float32)[:, None] * np.float32(SAMPLE_MM)
    across = np.linspace(0, 1, num_beams, dtype=np.float32)
    side = across if settings.lost_contact < 0 else 1 - across
    without_contact = 1 / (1 + np.exp((side - abs(settings.lost_contact)) / 0.03)) * (settings.lost_contact != 0)
    rng = np.random.default_rng((settings.seed, 1))
    uneven = cv2.GaussianBlur(rng.standard_normal((1, num_beams), dtype=np.float32), (0, 0), 5.0) * 6
    return lost + settings.slope_db_per_mm * depth_mm + settings.lost_db * without_contact + uneven


def _speckle(device: Device, settings: Settings, strength_db: Floats) -> Floats:
    """Return the envelope of the echoes (R, A): Rayleigh-distributed where the strength is constant."""
    rng = np.random.default_rng((settings.seed, 2))
    scatterers = rng.standard_normal((*strength_db.shape, 2), dtype=np.float32)  # real and imaginary part
    along, across = device.pulse_mm / SAMPLE_MM, device.pulse_beams
    echoes = scatterers * (10 ** (strength_db / 20))[..., None]
    field = cv2.GaussianBlur(echoes, (0, 0), sigmaX=across, sigmaY=along)
    # of the power, the blur leaves 1 / (2 pi along across); undone, so that 0 dB stays a mean power of 1
    field *= np.float32(np.sqrt(2 * np.pi * along * across))
    noise = 10 ** ((-device.dynamic_range_db - settings.gain_db + 4) / 20)
    return np.hypot(field[..., 0], field[..., 1]) + np.float32(noise) * np.abs(scatterers[..., 0])
