"""Made anatomy: what a phantom's patient is made of, as simple shapes.

The frame is the fetus' own, in mm; its origin is the neck, the head lies to the left, the trunk to the right.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from fmseg.imaging.scanner import DEVICES, Device, Floats

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Shape:
    """An ellipse with a wavy border."""

    centre_mm: Point
    #: half axes
    semi_mm: Point
    angle_deg: float
    #: amplitude (in half axes) and phase of the border's waves of 2, 3, 4 and 5 periods
    waves: tuple[Point, ...]

    @property
    def mean_mm(self) -> float:
        """Mean half axis."""
        return sum(self.semi_mm) / 2

    def local(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        """Return points along the shape's axes, in half axes: but for the waves, the border is at distance 1."""
        cos, sin = turn(self.angle_deg)
        du, dv = u - np.float32(self.centre_mm[0]), v - np.float32(self.centre_mm[1])
        along, across = np.float32(1 / self.semi_mm[0]), np.float32(1 / self.semi_mm[1])
        return (cos * du + sin * dv) * along, (cos * dv - sin * du) * across

    def outside_mm(self, u: Floats, v: Floats) -> Floats:
        """Return about how far points lie outside the border, below 0 inside."""
        radius, angle = cv2.cartToPolar(*self.local(u, v))
        # few nodes are enough for waves this long, and looking them up is cheaper than cosines
        nodes = np.linspace(0, 2 * np.pi, 128, dtype=np.float32)
        border = np.ones_like(nodes)
        for periods, (amplitude, phase) in enumerate(self.waves, start=2):
            border += np.float32(amplitude) * np.cos(periods * nodes + np.float32(phase))
        index = (angle * np.float32(127 / (2 * np.pi))).astype(np.intp)
        return (radius - border[np.minimum(index, 127)]) * np.float32(self.mean_mm)

    def place(self, along: float, across: float) -> Point:
        """Return the point at so many half axes from the middle."""
        cos, sin = turn(self.angle_deg)
        du, dv = along * self.semi_mm[0], across * self.semi_mm[1]
        return float(self.centre_mm[0] + cos * du - sin * dv), float(self.centre_mm[1] + sin * du + cos * dv)


@dataclass(frozen=True, slots=True)
class PhantomPatient:
    """What all scans of a patient share: the anatomy, and the machine of the clinic."""

    device: Device
    head: Shape
    trunk: Shape
    stomach: Shape
    #: vein and gallbladder: as dark as the stomach, and in the trunk too
    vessels: tuple[Shape, ...]
    #: the bright plexus of either half of the brain
    plexus: tuple[Shape, ...]
    spine_mm: Point
    #: beside the fetus: cysts are dark, limbs have bone
    cysts: tuple[Shape, ...]
    limbs: tuple[Shape, ...]
    #: the mother's skin, fat and muscle
    wall_mm: float
    #: mean width of the fluid around the fetus
    fluid_mm: float
    skull_mm: float
    brain_db: float
    trunk_db: float
    #: of all textures
    seed: int


def turn(angle_deg: float) -> tuple[np.float32, np.float32]:
    """Return cosine and sine of an angle."""
    angle = np.radians(angle_deg)
    return np.float32(np.cos(angle)), np.float32(np.sin(angle))


def sample_patient(rng: np.random.Generator) -> PhantomPatient:
    """Draw a patient."""
    scale = rng.uniform(0.62, 1.0)  # of the fetus, by its age
    head = _shape(rng, (rng.uniform(44, 51) * scale, rng.uniform(34, 40) * scale), rng.uniform(-25, 25), 0.018)
    head = replace(head, centre_mm=(-0.98 * head.semi_mm[0], float(rng.uniform(-8, 8))))
    trunk = _shape(rng, (rng.uniform(42, 50) * scale, rng.uniform(37, 44) * scale), rng.uniform(-40, 40), 0.03)
    trunk = replace(trunk, centre_mm=(0.98 * trunk.semi_mm[0], float(rng.uniform(-8, 8))))
    front = rng.uniform(0, 2 * np.pi)  # which way the belly points
    # the stomach lies left of the spine; nothing but its place tells it from the other dark things
    stomach = _organ(rng, trunk, front + rng.uniform(1.7, 2.2), rng.uniform(0.4, 0.55), (12 * scale, 8 * scale), 0.10)
    vein = _organ(rng, trunk, front, rng.uniform(0.25, 0.4), (15 * scale, 3.2 * scale), 0.06)
    gallbladder = _organ(rng, trunk, front - rng.uniform(0.7, 1.0), 0.5, (9 * scale, 4 * scale), 0.08)
    plexus = tuple(
        _shape(rng, (0.24 * head.semi_mm[0], 0.13 * head.semi_mm[1]), head.angle_deg + rng.normal(0, 12), 0.14)
        for _ in range(2)
    )
    places = [head.place(rng.uniform(-0.45, -0.15), side * rng.uniform(0.3, 0.45)) for side in (-1, 1)]
    return PhantomPatient(
        device=DEVICES[rng.integers(len(DEVICES))],
        head=head,
        trunk=trunk,
        stomach=stomach,
        vessels=(vein, gallbladder),
        plexus=tuple(replace(each, centre_mm=place) for each, place in zip(plexus, places, strict=True)),
        spine_mm=trunk.place(-0.74 * np.cos(front), -0.74 * np.sin(front)),
        cysts=tuple(_beside(rng, head, trunk, (4, 13)) for _ in range(rng.integers(4))),
        limbs=tuple(_beside(rng, head, trunk, (6, 14)) for _ in range(rng.integers(4))),
        wall_mm=rng.uniform(10, 26),
        fluid_mm=rng.uniform(1, 11),
        skull_mm=scale * rng.uniform(1.6, 3.0),
        brain_db=rng.uniform(-33, -22),
        trunk_db=rng.uniform(-20, -12),
        seed=int(rng.integers(2**31)),
    )


def _shape(rng: np.random.Generator, semi_mm: Point, angle_deg: float, waves: float) -> Shape:
    drawn = tuple((float(rng.normal(0, waves) / k), float(rng.uniform(0, 2 * np.pi))) for k in (1, 1.3, 2, 3))
    return Shape((0.0, 0.0), (float(semi_mm[0]), float(semi_mm[1])), float(angle_deg), drawn)


def _organ(rng: np.random.Generator, host: Shape, angle: float, distance: float, semi_mm: Point, waves: float) -> Shape:
    """Draw an organ at an angle and distance (in half axes) from the middle of its host."""
    semi = semi_mm[0] * rng.uniform(0.75, 1.2), semi_mm[1] * rng.uniform(0.75, 1.2)
    organ = _shape(rng, semi, host.angle_deg + float(np.degrees(angle)) + rng.uniform(-35, 35), waves)
    return replace(organ, centre_mm=host.place(distance * np.cos(angle), distance * np.sin(angle)))


def _beside(rng: np.random.Generator, head: Shape, trunk: Shape, range_mm: Point) -> Shape:
    """Draw something just outside the head or the trunk."""
    host = head if rng.random() < 0.5 else trunk
    semi = rng.uniform(*range_mm), rng.uniform(range_mm[0], 0.7 * range_mm[1])
    angle, gap = rng.uniform(0, 2 * np.pi), 1 + (max(semi) + rng.uniform(1, 15)) / host.mean_mm
    shape = _shape(rng, semi, rng.uniform(0, 180), 0.08)
    return replace(shape, centre_mm=host.place(gap * np.cos(angle), gap * np.sin(angle)))
