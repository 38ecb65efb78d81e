"""Made ultrasound pictures of a fetus: known anatomy, so known labels; free to share.

A patient is anatomy (a head, a trunk with stomach, vein, gallbladder and spine, the wall and placenta in front, some
cysts and limbs) and the machine that the clinic has; a scan is a look at one part of it. Single grey values say
little: the stomach (a label) looks like the vein, the gallbladder, a cyst or the amniotic fluid (no labels), and the
head's border fades in shadows, at the sector's edge and where the beams run along the skull.

x runs to the right and y down, in mm; a scan looks from y = 0 into the body.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fmseg.imaging.scanner import (
    Device,
    Floats,
    Settings,
    Tissue,
    acquire,
    beam_points,
    in_sector,
    pixel_points,
)

#: label value of each structure that is to be found
LABELS = {"background": 0, "head": 1, "stomach": 2}
DEVICES = (
    Device((288, 384), 35, 42, 0.45, 1.1, 62, 1.0, 0.3),
    Device((320, 320), 31, 58, 0.65, 1.5, 56, 1.15, 0.0),
    Device((256, 352), 42, 36, 0.55, 1.0, 68, 0.95, 0.6),
    Device((360, 440), 28, 50, 0.38, 1.3, 60, 1.05, 0.15),
)
FLUID_DB, BONE_DB = -70.0, 17.0
#: fluid takes nothing, but the machine compensates as if it were tissue
FLUID_LOSS = -0.16
TEXTURE_SIZE, TEXTURE_MM = 256, 1.0


@dataclass(frozen=True, slots=True)
class Shape:
    """An ellipse with a wavy border."""

    centre_mm: tuple[float, float]
    #: half axes
    semi_mm: tuple[float, float]
    angle_deg: float
    #: amplitude of the border's waves of 2, 3, 4 and 5 periods, and their phases
    waves: tuple[tuple[float, float], ...]

    @property
    def mean_mm(self) -> float:
        """Mean half axis."""
        return sum(self.semi_mm) / 2

    def local(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return points along the shape's axes, in half axes: the border is at distance 1, but for the waves."""
        angle = np.radians(self.angle_deg)
        dx, dy = x - np.float32(self.centre_mm[0]), y - np.float32(self.centre_mm[1])
        along = (np.cos(angle) * dx + np.sin(angle) * dy) / self.semi_mm[0]
        return along.astype(np.float32), ((np.cos(angle) * dy - np.sin(angle) * dx) / self.semi_mm[1]).astype(np.float32)

    def outside_mm(self, x: Floats, y: Floats) -> Floats:
        """Return about how far points lie outside the border, below 0 inside."""
        radius, angle = cv2.cartToPolar(*self.local(x, y))
        border = np.ones_like(radius)
        for periods, (amplitude, phase) in enumerate(self.waves, start=2):
            border += np.float32(amplitude) * np.cos(periods * angle + np.float32(phase))
        return (radius - border) * np.float32(self.mean_mm)


@dataclass(frozen=True, slots=True)
class PhantomPatient:
    """Anatomy that all scans of a patient share, in the fetus' own frame; its middle is the neck."""

    device: Device
    head: Shape
    trunk: Shape
    stomach: Shape
    #: vein, gallbladder: as dark as the stomach, in the trunk too
    vessels: tuple[Shape, ...]
    spine_mm: tuple[float, float]
    #: outside the fetus: cysts are dark, limbs have bone
    cysts: tuple[Shape, ...]
    limbs: tuple[Shape, ...]
    #: the mother's skin, fat and muscle
    wall_mm: float
    #: mean width of the fluid around the fetus
    fluid_mm: float
    brain_db: float
    trunk_db: float
    seed: int


@dataclass(frozen=True, slots=True)
class PhantomScan:
    """One picture of a patient."""

    patient: PhantomPatient
    settings: Settings
    #: the fetus' frame in the probe's: turned first, then shifted
    turn_deg: float
    shift_mm: tuple[float, float]


def sample_patient(rng: np.random.Generator) -> PhantomPatient:
    """Draw a patient."""
    scale = rng.uniform(0.62, 1.0)  # of the fetus, by its age
    head = _shape(rng, (0, 0), (rng.uniform(44, 50) * scale, rng.uniform(35, 40) * scale), rng.uniform(-25, 25), 0.012)
    head = _moved(head, (-0.98 * head.semi_mm[0], rng.uniform(-8, 8)))
    trunk = _shape(rng, (0, 0), (rng.uniform(42, 50) * scale, rng.uniform(38, 44) * scale), rng.uniform(-30, 30), 0.03)
    trunk = _moved(trunk, (0.98 * trunk.semi_mm[0], rng.uniform(-8, 8)))
    around = rng.uniform(0, 2 * np.pi)  # of the trunk's organs about its middle
    back = around + np.pi

    def organ(angle: float, distance: float, semi_mm: tuple[float, float], waves: float) -> Shape:
        middle = (
            trunk.centre_mm[0] + distance * trunk.semi_mm[0] * np.cos(angle),
            trunk.centre_mm[1] + distance * trunk.semi_mm[1] * np.sin(angle),
        )
        semi = (semi_mm[0] * scale, semi_mm[1] * scale)
        return _shape(rng, middle, semi, float(np.degrees(angle)) + rng.uniform(-30, 30), waves)

    stomach = organ(back + rng.uniform(0.9, 1.3), rng.uniform(0.4, 0.52), (rng.uniform(8, 14), rng.uniform(6, 9)), 0.10)
    vein = organ(around, rng.uniform(0.25, 0.4), (rng.uniform(11, 16), rng.uniform(2.5, 3.6)), 0.06)
    gallbladder = organ(around - rng.uniform(0.7, 1.0), rng.uniform(0.4, 0.6), (rng.uniform(6, 9), 3.2), 0.08)
    spine = organ(back, 0.72, (1, 1), 0).centre_mm
    return PhantomPatient(
        device=DEVICES[rng.integers(len(DEVICES))],
        head=head,
        trunk=trunk,
        stomach=stomach,
        vessels=(vein, gallbladder),
        spine_mm=spine,
        cysts=tuple(_beside(rng, trunk, head, (rng.uniform(4, 12), rng.uniform(4, 9))) for _ in range(rng.integers(4))),
        limbs=tuple(_beside(rng, trunk, head, (rng.uniform(9, 16), rng.uniform(5, 8))) for _ in range(rng.integers(4))),
        wall_mm=rng.uniform(12, 26),
        fluid_mm=rng.uniform(1, 12),
        brain_db=rng.uniform(-33, -24),
        trunk_db=rng.uniform(-21, -13),
        seed=int(rng.integers(2**31)),
    )


def sample_scan(rng: np.random.Generator, patient: PhantomPatient) -> PhantomScan:
    """Draw a look at a patient's head, trunk or both."""
    view: Literal["head", "trunk", "both"] = ("head", "trunk", "both")[rng.choice(3, p=(0.4, 0.4, 0.2))]
    focus = {"head": patient.head, "trunk": patient.trunk, "both": patient.trunk}[view]
    x, y = focus.centre_mm if view != "both" else (0.0, 0.0)
    turn = rng.uniform(-25, 25) + (180 if rng.random() < 0.3 else 0)
    angle = np.radians(turn)
    turned = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    depth = patient.wall_mm + focus.mean_mm * rng.uniform(1.15, 1.45)
    shift = rng.uniform(-14, 14) - turned[0], depth - turned[1]
    settings = Settings(
        depth_mm=float(np.clip(depth + focus.mean_mm * rng.uniform(1.2, 2.0), 75, 170)),
        gain_db=rng.uniform(-9, 3),
        slope_db_per_mm=rng.uniform(-0.05, 0.10),
        lost_contact=rng.uniform(0.05, 0.35) * rng.choice((-1, 1)) if rng.random() < 0.6 else 0.001,
        lost_db=rng.uniform(12, 30),
        seed=int(rng.integers(2**31)),
    )
    return PhantomScan(patient, settings, turn, shift)


def render(scan: PhantomScan) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the picture and its label map, both (h, w); labels end where the sector does."""
    patient, depth_mm = scan.patient, scan.settings.depth_mm
    x, y = beam_points(patient.device, depth_mm)
    image = acquire(patient.device, scan.settings, _tissue(scan, x, y))
    u, v = _to_fetus(scan, *pixel_points(patient.device, depth_mm))
    label = np.zeros(patient.device.size, np.uint8)
    is_head = patient.head.outside_mm(u, v) <= 0
    label[patient.stomach.outside_mm(u, v) <= 0] = LABELS["stomach"]
    label[is_head] = LABELS["head"]
    label[~in_sector(patient.device, depth_mm)] = 0
    return image, label


def make_phantom(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return one picture of one new patient, and its label map, both (h, w)."""
    return render(sample_scan(rng, sample_patient(rng)))


def _tissue(scan: PhantomScan, x: Floats, y: Floats) -> Tissue:
    """Return what the beams meet at their samples (R, A); later tissues cover earlier ones."""
    patient = scan.patient
    u, v = _to_fetus(scan, x, y)
    coarse, fine = _texture(patient.seed, u, v, 9.0), _texture(patient.seed + 1, u, v, 2.2)
    echo = -13 + 5 * coarse + 3 * fine  # uterus and placenta
    loss = np.zeros_like(echo)
    head, trunk = patient.head.outside_mm(u, v), patient.trunk.outside_mm(u, v)
    near = np.minimum(head, trunk)
    is_fluid = near < patient.fluid_mm * (1 + 1.6 * coarse)
    for cyst in patient.cysts:
        is_fluid |= cyst.outside_mm(u, v) <= 0
    _put(echo, loss, is_fluid, FLUID_DB, FLUID_LOSS)
    for limb in patient.limbs:
        _put_limb(echo, loss, limb, u, v)
    _put_trunk(echo, loss, patient, trunk, u, v, coarse, fine)
    _put_head(echo, loss, patient, head, u, v, coarse, fine)
    _put_wall(echo, loss, patient, x, y, fine)
    return Tissue(echo, loss)


def _put(echo: Floats, loss: Floats, where: NDArray[np.bool_], echo_db: Floats | float, loss_db: float) -> None:
    np.copyto(echo, np.asarray(echo_db, np.float32), where=where)
    np.copyto(loss, np.float32(loss_db), where=where)


def _put_trunk(
    echo: Floats, loss: Floats, patient: PhantomPatient, outside: Floats, u: Floats, v: Floats, coarse: Floats, fine: Floats
) -> None:
    inside = outside <= 0
    _put(echo, loss, inside, patient.trunk_db + 4 * coarse + 3 * fine, 0.03)
    skin = inside & (outside > -2.0)
    np.copyto(echo, -24 + 26 * _facing(outside), where=skin)
    for vessel in (patient.stomach, *patient.vessels):
        distance = vessel.outside_mm(u, v)
        np.copyto(echo, patient.trunk_db + 9 * _facing(distance), where=inside & (np.abs(distance - 0.6) < 0.6))
        _put(echo, loss, inside & (distance <= 0), FLUID_DB, FLUID_LOSS)
    for dx, dy in ((-3.5, 0.0), (3.5, 0.0), (0.0, 4.5)):  # the three centres of a vertebra
        distance = np.hypot(u - np.float32(patient.spine_mm[0] + dx), v - np.float32(patient.spine_mm[1] + dy))
        _put(echo, loss, inside & (distance < 1.7), BONE_DB - 5, 5.0)


def _put_head(
    echo: Floats, loss: Floats, patient: PhantomPatient, outside: Floats, u: Floats, v: Floats, coarse: Floats, fine: Floats
) -> None:
    inside = outside <= 0
    _put(echo, loss, inside, patient.brain_db + 4 * coarse + 4 * fine, 0.0)
    along, across = patient.head.local(u, v)
    midline = inside & (np.abs(across + 0.03 * coarse) < 0.022) & (np.abs(along) < 0.8) & (np.abs(along - 0.35) > 0.12)
    np.copyto(echo, -16 + 18 * _facing(across * np.float32(patient.head.semi_mm[1])), where=midline)
    for side in (-1, 1):
        plexus = np.hypot((along + 0.3) / 0.3, (across - side * 0.42) / 0.15)
        np.copyto(echo, FLUID_DB / 1.6, where=inside & (plexus < 1.5))  # the ventricle around it
        np.copyto(echo, patient.brain_db + 13 + 3 * fine, where=inside & (plexus < 1))
    # thin where the beams run along it: there the skull gives no echo, and its shadow is longest
    skull = inside & (outside > -0.065 * np.float32(patient.head.mean_mm))
    _put(echo, loss, skull, BONE_DB - 33 + 33 * _facing(outside) ** 0.7, 1.1)


def _put_limb(echo: Floats, loss: Floats, limb: Shape, u: Floats, v: Floats) -> None:
    outside = limb.outside_mm(u, v)
    _put(echo, loss, outside <= 0, -17.0, 0.02)
    along, across = limb.local(u, v)
    _put(echo, loss, (np.abs(across) < 0.18) & (np.abs(along) < 0.85), BONE_DB - 4, 4.0)


def _put_wall(echo: Floats, loss: Floats, patient: PhantomPatient, x: Floats, y: Floats, fine: Floats) -> None:
    """Layers that follow the probe's surface, and the reverberation in front of them."""
    radius = np.float32(patient.device.probe_radius_mm)
    depth = np.hypot(x, y + radius) - radius
    rng = np.random.default_rng((patient.seed, 3))
    profile = cv2.GaussianBlur(rng.standard_normal((1, 256), dtype=np.float32), (0, 0), 2.5)[0] * 3
    bent = depth + 1.5 * fine + 0.04 * x * np.float32(rng.uniform(-1, 1))
    layers = -14 + 9 * profile[np.clip(bent * 4, 0, 255).astype(np.intp)]
    end = patient.wall_mm + np.float32(rng.uniform(0.02, 0.1)) * x
    _put(echo, loss, bent < end, layers, 0.03)
    np.copyto(echo, np.maximum(echo, -6 - 10 * depth), where=depth < 4)


def _facing(outside_mm: Floats) -> Floats:
    """Return how squarely the beams (down the first axis) meet a border: 1 at a right angle, 0 along it."""
    down, sideways = np.gradient(outside_mm, axis=0), np.gradient(outside_mm, axis=1)
    # samples lie much closer along a beam than beams do; about, and good enough for brightness
    return (np.abs(down) / (np.abs(down) + 0.45 * np.abs(sideways) + 1e-3)).astype(np.float32)


def _to_fetus(scan: PhantomScan, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    angle = np.radians(scan.turn_deg)
    dx, dy = x - np.float32(scan.shift_mm[0]), y - np.float32(scan.shift_mm[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * dx + sin * dy, cos * dy - sin * dx


def _texture(seed: int, u: Floats, v: Floats, grain_mm: float) -> Floats:
    """Return smooth noise of standard deviation 1 that is fixed in the body; it repeats every 256 mm."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((TEXTURE_SIZE, TEXTURE_SIZE), dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), grain_mm / TEXTURE_MM, borderType=cv2.BORDER_REFLECT)
    noise /= noise.std()
    return cv2.remap(noise, u / TEXTURE_MM + 128, v / TEXTURE_MM + 128, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _shape(
    rng: np.random.Generator, centre: tuple[float, float], semi: tuple[float, float], angle_deg: float, waves: float
) -> Shape:
    drawn = tuple((rng.normal(0, waves) / k, rng.uniform(0, 2 * np.pi)) for k in (1, 1.3, 2, 3))
    return Shape((float(centre[0]), float(centre[1])), (float(semi[0]), float(semi[1])), angle_deg, drawn)


def _moved(shape: Shape, centre: tuple[float, float]) -> Shape:
    return Shape(centre, shape.semi_mm, shape.angle_deg, shape.waves)


def _beside(rng: np.random.Generator, trunk: Shape, head: Shape, semi: tuple[float, float]) -> Shape:
    """Draw a shape just outside the head or the trunk."""
    host = head if rng.random() < 0.5 else trunk
    angle, gap = rng.uniform(0, 2 * np.pi), host.mean_mm + max(semi) + rng.uniform(1, 15)
    centre = host.centre_mm[0] + gap * np.cos(angle), host.centre_mm[1] + gap * np.sin(angle)
    return _shape(rng, centre, semi, rng.uniform(0, 180), 0.08)
