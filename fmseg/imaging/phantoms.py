"""Made ultrasound pictures of a fetus: known anatomy, so known labels; free to share.

A patient is anatomy and the machine of a clinic; a scan is a look at one part of it. Single grey values say little:
the stomach (a label) looks like the vein, the gallbladder, a cyst or the fluid around the fetus (no labels), and the
head's border fades in shadows, at the sector's edge and where the beams run along the skull.
"""

import csv
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fmseg.console import track
from fmseg.files import sync_folder, writable, write_json
from fmseg.imaging.anatomy import PhantomPatient, sample_patient, turn
from fmseg.imaging.echoes import tissue
from fmseg.imaging.scanner import Floats, Settings, acquire, beam_points, in_sector, pixel_points

#: label value of each structure that is to be found
LABELS = {"background": 0, "head": 1, "stomach": 2}
LABELLED, UNLABELLED = "Dataset901_Phantoms", "Dataset902_PhantomsUnlabelled"


@dataclass(frozen=True, slots=True)
class PhantomScan:
    """One look at a patient."""

    patient: PhantomPatient
    settings: Settings
    #: takes the fetus' frame to the probe's (x to the right, y down from its surface): turned, then shifted
    turn_deg: float
    shift_mm: tuple[float, float]


def sample_scan(rng: np.random.Generator, patient: PhantomPatient) -> PhantomScan:
    """Draw a look at a patient's head, trunk or both."""
    view = ("head", "trunk", "both")[rng.choice(3, p=(0.4, 0.4, 0.2))]
    focus = patient.head if view == "head" else patient.trunk
    u, v = (0.0, 0.0) if view == "both" else focus.centre_mm
    # the fetus lies head left or head right; the probe is tilted a little
    turn_deg = float(rng.normal(0, 14) + 180 * rng.integers(2))
    cos, sin = turn(turn_deg)
    depth_mm = patient.wall_mm + focus.mean_mm * rng.uniform(1.1, 1.45)
    shift_mm = float(rng.uniform(-14, 14) - (cos * u - sin * v)), float(depth_mm - (sin * u + cos * v))
    settings = Settings(
        depth_mm=float(np.clip(depth_mm + focus.mean_mm * rng.uniform(1.15, 1.9), 75, 170)),
        gain_db=rng.uniform(-13, 0),
        slope_db_per_mm=rng.uniform(-0.02, 0.12),
        lost_contact=float(rng.uniform(0.05, 0.35) * rng.choice((-1, 0, 1), p=(0.3, 0.4, 0.3))),
        lost_db=rng.uniform(10, 35),
        seed=int(rng.integers(2**31)),
    )
    return PhantomScan(patient, settings, turn_deg, shift_mm)


def render(scan: PhantomScan) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the picture and its label map, both (h, w); labels end where the sector does."""
    patient, depth_mm = scan.patient, scan.settings.depth_mm
    x, y = beam_points(patient.device, depth_mm)
    image = acquire(patient.device, scan.settings, tissue(patient, x, y, *_to_fetus(scan, x, y)))
    u, v = _to_fetus(scan, *pixel_points(patient.device, depth_mm))
    label = np.zeros(patient.device.size, np.uint8)
    label[patient.stomach.outside_mm(u, v) <= 0] = LABELS["stomach"]
    label[patient.head.outside_mm(u, v) <= 0] = LABELS["head"]
    label[~in_sector(patient.device, depth_mm)] = LABELS["background"]
    return image, label


def make_phantom(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return one picture of one new patient and its label map, both (h, w)."""
    return render(sample_scan(rng, sample_patient(rng)))


@dataclass(frozen=True, slots=True)
class Group:
    """Patients of one kind: training, test, unlabelled. Each kind draws other patients."""

    letter: str
    num_patients: int
    images_per_patient: int

    @property
    def num_images(self) -> int:
        """Number of pictures."""
        return self.num_patients * self.images_per_patient

    def scans(self, seed: int) -> Iterator[tuple[str, str, PhantomScan]]:
        """Yield case name, patient and scan; a function of the seed alone."""
        for number in range(self.num_patients):
            rng = np.random.default_rng((seed, ord(self.letter), number))
            patient, name = sample_patient(rng), f"{self.letter}{number:03d}"
            for index in range(self.images_per_patient):
                yield f"{name}_{index}", name, sample_scan(rng, patient)


TRAINING, TEST, CORPUS = Group("P", 16, 3), Group("T", 6, 2), Group("U", 100, 4)


def write_phantoms(
    raw: Path, *, training: Group = TRAINING, test: Group = TEST, corpus: Group = CORPUS, seed: int = 0
) -> tuple[Path, Path]:
    """Write a labelled and an unlabelled raw dataset below ``raw``, and return their folders.

    A dataset that is there already is left as it is; one appears whole or not at all.
    """
    labelled, unlabelled = raw / LABELLED, raw / UNLABELLED
    with writable(raw):
        if not labelled.exists():
            folder = _empty(labelled)
            patients = _write_scans(folder, training, seed, "imagesTr", "labelsTr")
            patients |= _write_scans(folder, test, seed, "imagesTs", "labelsTs")
            with open(folder / "patients.csv", "w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([("case", "patient"), *patients.items()])
            _publish(folder, labelled, {"labels": LABELS, "numTraining": training.num_images, "file_ending": ".png"})
        if not unlabelled.exists():
            folder = _empty(unlabelled)
            _write_scans(folder, corpus, seed, "imagesTr", None)
            _publish(folder, unlabelled, {"task": "unlabelled", "group_regex": f"^({corpus.letter}[0-9]+)_"})
    return labelled, unlabelled


def _write_scans(folder: Path, group: Group, seed: int, images: str, labels: str | None) -> dict[str, str]:
    """Write all pictures of a group, and label maps unless ``labels`` is None; return case -> patient."""
    patients = {}
    for place in (images, labels):
        if place is not None:
            (folder / place).mkdir()
    for case, patient, scan in track(group.scans(seed), f"drawing {images} of {folder.name}", group.num_images):
        patients[case] = patient
        image, label = render(scan)
        _write_png(folder / images / f"{case}_0000.png", image)
        if labels is not None:
            _write_png(folder / labels / f"{case}.png", label)
    return patients


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _empty(folder: Path) -> Path:
    """Return a new folder under a name that is no dataset's; what a killed run left there goes."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    return temporary


def _publish(folder: Path, dataset: Path, declaration: dict[str, object]) -> None:
    write_json(folder / "dataset.json", {"channel_names": {"0": "ultrasound"}, **declaration})
    os.rename(folder, dataset)
    sync_folder(dataset.parent)


def _to_fetus(scan: PhantomScan, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    cos, sin = turn(scan.turn_deg)
    dx, dy = x - np.float32(scan.shift_mm[0]), y - np.float32(scan.shift_mm[1])
    return cos * dx + sin * dy, cos * dy - sin * dx
