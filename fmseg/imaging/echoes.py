"""What a scanner's beams meet in a made patient: how strongly each tissue answers, and what it takes away.

Structures are put one over the other. A border answers most where a beam meets it squarely, so that a skull fades
at its sides; bone takes the energy of what lies behind it.

Arrays are (R, A): R samples in depth, A beams.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fmseg.imaging.anatomy import PhantomPatient, Shape
from fmseg.imaging.scanner import Floats, Tissue

#: strengths in dB; 0 is white at a gain of 0
PLACENTA_DB, FLUID_DB, SKULL_DB, BONE_DB = -17.0, -75.0, 9.0, 4.0
#: loss in dB per mm: fluid takes nothing, but the machine compensates as if it were tissue
FLUID_LOSS, SOFT_LOSS, SKULL_LOSS, BONE_LOSS = -0.14, 0.03, 1.3, 5.0
TEXTURE_SIZE, TEXTURE_MM = 128, 2.0


@dataclass(frozen=True, slots=True)
class _Scene:
    """Tissue in the making, and where its samples lie in the fetus' frame."""

    echo: Floats
    loss: Floats
    u: Floats
    v: Floats
    #: noise of standard deviation 1, fixed in the body
    coarse: Floats
    fine: Floats

    def put(self, where: NDArray[np.bool_], echo_db: Floats | float, loss_db: float | None = None) -> None:
        """Cover some samples; without a loss, they keep theirs."""
        np.copyto(self.echo, np.asarray(echo_db, np.float32), where=where)
        if loss_db is not None:
            np.copyto(self.loss, np.float32(loss_db), where=where)


def tissue(patient: PhantomPatient, x: Floats, y: Floats, u: Floats, v: Floats) -> Tissue:
    """Return the tissue at all samples of the beams.

    x, y: in the probe's frame, which the mother's wall follows; u, v: the same samples in the fetus' frame; mm.
    """
    coarse, fine = (_texture(patient.seed + k, u, v, grain) for k, grain in enumerate((9.0, 2.4)))
    scene = _Scene(PLACENTA_DB + 5 * coarse + 3 * fine, np.full_like(u, SOFT_LOSS), u, v, coarse, fine)
    head, trunk = patient.head.outside_mm(u, v), patient.trunk.outside_mm(u, v)
    is_fluid = np.minimum(head, trunk) < patient.fluid_mm * (1 + 1.6 * coarse)
    for cyst in patient.cysts:
        is_fluid |= cyst.outside_mm(u, v) <= 0
    scene.put(is_fluid, FLUID_DB, FLUID_LOSS)
    for limb in patient.limbs:
        _put_limb(scene, limb)
    _put_trunk(scene, patient, trunk)
    _put_head(scene, patient, head)
    _put_wall(scene, patient, x, y)
    return Tissue(scene.echo, scene.loss)


def _put_limb(scene: _Scene, limb: Shape) -> None:
    along, across = limb.local(scene.u, scene.v)
    scene.put(limb.outside_mm(scene.u, scene.v) <= 0, PLACENTA_DB - 3 + 3 * scene.fine, SOFT_LOSS)
    bent = across + 0.12 * along**2 + 0.05 * scene.fine
    scene.put((np.abs(bent) < 0.16) & (np.abs(along) < 0.8), BONE_DB - 8 * along * along, BONE_LOSS)


def _put_trunk(scene: _Scene, patient: PhantomPatient, outside: Floats) -> None:
    inside = outside <= 0
    scene.put(inside, patient.trunk_db + 3.5 * scene.coarse + 3 * scene.fine, SOFT_LOSS)
    scene.put(inside & (outside > -1.6 - 0.5 * scene.fine), -26 + 20 * _facing(outside))  # the skin
    for vessel in (patient.stomach, *patient.vessels):
        distance = vessel.outside_mm(scene.u, scene.v)
        scene.put(inside & (np.abs(distance - 0.5) < 0.5), patient.trunk_db - 3 + 8 * _facing(distance))
        scene.put(inside & (distance <= 0), FLUID_DB, FLUID_LOSS)
    for du, dv in ((-3.5, 0.0), (3.5, 0.0), (0.0, 4.5)):  # the three centres of a vertebra
        distance = np.hypot(
            scene.u - np.float32(patient.spine_mm[0] + du), scene.v - np.float32(patient.spine_mm[1] + dv)
        )
        scene.put(inside & (distance + 0.5 * scene.fine < 1.7), BONE_DB - 4, BONE_LOSS)


def _put_head(scene: _Scene, patient: PhantomPatient, outside: Floats) -> None:
    inside = outside <= 0
    scene.put(inside, patient.brain_db + 4 * scene.coarse + 4 * scene.fine, SOFT_LOSS)
    for plexus in patient.plexus:
        distance = plexus.outside_mm(scene.u, scene.v)
        scene.put(
            inside & (distance < 1.4 + scene.coarse + scene.fine), patient.brain_db - 9
        )  # the ventricle around it
        scene.put(inside & (distance + scene.fine < 0), patient.brain_db + 8 + 4 * scene.fine)
    along, across = patient.head.local(scene.u, scene.v)
    bent = across + 0.035 * scene.coarse + 0.012 * scene.fine
    # broken where the septum's cavity lies, and here and there
    midline = inside & (np.abs(bent) < 0.02) & (np.abs(along) < 0.8) & (np.abs(along - 0.35) > 0.1)
    scene.put(midline & (scene.fine > -0.7), -28 + 20 * _facing(across * np.float32(patient.head.semi_mm[1])))
    skull = inside & (outside > -np.float32(patient.skull_mm) * (1 + 0.2 * scene.coarse))
    scene.put(skull, SKULL_DB - 36 + 36 * _facing(outside) ** 0.8 + 2 * scene.fine, SKULL_LOSS)


def _put_wall(scene: _Scene, patient: PhantomPatient, x: Floats, y: Floats) -> None:
    """Put the mother's wall: layers that follow the probe, below the echoes of the probe's own surface."""
    radius = np.float32(patient.device.probe_radius_mm)
    depth = np.hypot(x, y + radius) - radius
    rng = np.random.default_rng((patient.seed, 3))
    noise = rng.standard_normal((1, 256), dtype=np.float32)
    broad, narrow = (_standardised(cv2.GaussianBlur(noise, (0, 0), width))[0] for width in (9, 2))
    slope, tilt = rng.uniform(-0.12, 0.12), rng.uniform(-0.08, 0.08)
    bent = depth + 0.7 * scene.coarse + 0.5 * scene.fine + np.float32(tilt) * x
    layer = np.clip(bent * 5, 0, 255).astype(np.intp)
    level = -20 + 4 * broad[layer] + 5 * narrow[layer] + 2 * scene.fine
    scene.put(depth < patient.wall_mm + np.float32(slope) * x + scene.coarse, level, SOFT_LOSS)
    scene.put(depth < 5, np.maximum(scene.echo, -9 - 6 * depth))


def _facing(outside_mm: Floats) -> Floats:
    """Return how squarely beams (down the first axis) meet a border: 1 at a right angle, 0 along it."""
    down, sideways = np.empty_like(outside_mm), np.empty_like(outside_mm)
    down[1:], sideways[:, 1:] = np.diff(outside_mm, axis=0), np.diff(outside_mm, axis=1)
    down[0], sideways[:, 0] = down[1], sideways[:, 1]
    # beams lie about 1.5 times as far apart as samples; their fanning out is too little to see in the brightness
    return np.abs(down) / np.hypot(down, sideways / np.float32(1.5) + np.float32(1e-6))


def _texture(seed: int, u: Floats, v: Floats, grain_mm: float) -> Floats:
    """Return smooth noise of standard deviation 1, fixed in the body; it repeats every 256 mm."""
    noise = np.random.default_rng(seed).standard_normal((TEXTURE_SIZE, TEXTURE_SIZE), dtype=np.float32)
    noise = _standardised(cv2.GaussianBlur(noise, (0, 0), grain_mm / TEXTURE_MM))
    middle = TEXTURE_SIZE / 2
    column, row = u / np.float32(TEXTURE_MM) + middle, v / np.float32(TEXTURE_MM) + middle
    return cv2.remap(noise, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _standardised(noise: Floats) -> Floats:
    return (noise - noise.mean()) / noise.std()
