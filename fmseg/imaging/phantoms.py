"""Made ultrasound images of a fetus with their label maps, for the demo and for trials.

Nothing in them is anybody's. What a patient is made of stands in ``anatomy``, what beams meet there in ``echoes``,
and how a probe shows it in ``scanner``. Head and abdomen are not told by their grey values: both are
tissue among tissue, so a network must learn their borders and what lies in them.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fmseg.files import write_bytes, write_json
from fmseg.imaging.anatomy import PhantomPatient, sample_patient, turn
from fmseg.imaging.echoes import tissue
from fmseg.imaging.scanner import DEVICES, Floats, Settings, acquire, beam_points, in_sector, pixel_points

__all__ = ["LABELS", "Group", "PhantomPatient", "PhantomScan", "make_phantom", "render", "sample_patient"]
__all__ += ["sample_scan", "write_phantoms"]

LABELS = {"background": 0, "head": 1, "abdomen": 2}
LABELLED, UNLABELLED = "Dataset901_Phantoms", "Dataset902_PhantomsUnlabelled"
CHANNELS = {"0": "ultrasound"}

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PhantomScan:
    """One image of a patient: how the probe is held, and how the machine is set."""

    patient: PhantomPatient
    #: of the fetus, seen from the probe
    turn_deg: float
    #: where the fetus' neck lies: to the right, and down from the middle of the probe's surface
    shift_mm: tuple[float, float]
    settings: Settings


class Group(NamedTuple):
    """Patients whose cases are named alike: ``P007_2`` is the third image of patient 7."""

    prefix: str
    num_patients: int
    images_per_patient: int


def sample_scan(rng: np.random.Generator, patient: PhantomPatient) -> PhantomScan:
    """Draw how a patient is scanned: head, trunk or what is between them in the middle, either way round."""
    turn_deg = float(rng.choice((0.0, 180.0)) + rng.normal(0, 12))
    share = float(rng.beta(0.6, 0.6))  # 0: the head is in the middle, 1: the trunk
    head, trunk = patient.head, patient.trunk
    u, v = ((1 - share) * a + share * b for a, b in zip(head.centre_mm, trunk.centre_mm, strict=True))
    radius = (1 - share) * head.mean_mm + share * trunk.mean_mm
    cos, sin = (float(value) for value in turn(turn_deg))
    aim = float(rng.normal(0, 7)), patient.wall_mm + patient.fluid_mm + radius + float(rng.uniform(-1, 9))
    has_lost_contact = rng.random() < 0.3
    settings = Settings(
        depth_mm=round(patient.wall_mm + radius * float(rng.uniform(2.4, 3.3)), 1),
        gain_db=float(rng.normal(-9, 4)),
        slope_db_per_mm=float(rng.normal(0.03, 0.03)),
        lost_contact=float(rng.choice((-1, 1)) * rng.uniform(0.05, 0.3)) if has_lost_contact else 0.0,
        lost_db=float(rng.uniform(8, 25)),
        seed=int(rng.integers(2**31)),
    )
    return PhantomScan(patient, turn_deg, (aim[0] - cos * u + sin * v, aim[1] - sin * u - cos * v), settings)


def render(scan: PhantomScan) -> tuple[Bytes, Bytes]:
    """Return image and label map, (h, w) uint8 of the size of the patient's machine; 0 outside the sector."""
    patient, depth_mm = scan.patient, scan.settings.depth_mm
    x, y = beam_points(patient.device, depth_mm)
    image = acquire(patient.device, scan.settings, tissue(patient, x, y, *_in_fetus(scan, x, y)))
    u, v = _in_fetus(scan, *pixel_points(patient.device, depth_mm))
    label = np.zeros(image.shape, np.uint8)
    label[patient.trunk.outside_mm(u, v) <= 0] = LABELS["abdomen"]
    label[patient.head.outside_mm(u, v) <= 0] = LABELS["head"]  # the skull included
    label[~in_sector(patient.device, depth_mm)] = 0
    return image, label


def make_phantom(rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    """Return one image of a patient of its own, and its label map."""
    return render(sample_scan(rng, sample_patient(rng)))


def write_phantoms(
    raw: Path,
    *,
    training: Group = Group("P", 24, 2),
    test: Group = Group("T", 6, 2),
    corpus: Group = Group("U", 100, 4),
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write a labelled dataset with a test set, and an unlabelled one; return their folders.

    A dataset whose dataset.json is there is complete, and left as it is.
    """
    labelled, unlabelled = raw / LABELLED, raw / UNLABELLED
    if not (labelled / "dataset.json").exists():
        cases = _write_group(labelled, training, "Tr", seed)
        patients = cases | _write_group(labelled, test, "Ts", seed)
        rows = ["case,patient", *(f"{case},{patient}" for case, patient in patients.items())]
        write_bytes(labelled / "patients.csv", ("\n".join(rows) + "\n").encode())
        declaration = {"channel_names": CHANNELS, "labels": LABELS, "numTraining": len(cases), "file_ending": ".png"}
        write_json(labelled / "dataset.json", declaration)
    if not (unlabelled / "dataset.json").exists():
        _write_group(unlabelled, corpus, "Tr", seed, with_labels=False)
        regex = f"^({corpus.prefix}[0-9]+)_"
        write_json(unlabelled / "dataset.json", {"channel_names": CHANNELS, "task": "unlabelled", "group_regex": regex})
    return labelled, unlabelled


def _write_group(folder: Path, group: Group, part: str, seed: int, *, with_labels: bool = True) -> dict[str, str]:
    """Write all images of a group; return case -> patient."""
    patients = {}
    for number in range(group.num_patients):
        # of the group's name too, so that no patient is in two groups
        rng = np.random.default_rng((seed, *group.prefix.encode(), number))
        # each group has as much of each machine, so that scores do not hang on a rare one
        patient = replace(sample_patient(rng), device=DEVICES[number % len(DEVICES)])
        for index in range(group.images_per_patient):
            case = f"{group.prefix}{number:03d}_{index}"
            image, label = render(sample_scan(rng, patient))
            _write_png(folder / f"images{part}" / f"{case}_0000.png", image)
            if with_labels:
                _write_png(folder / f"labels{part}" / f"{case}.png", label)
            patients[case] = f"{group.prefix}{number:03d}"
    return patients


def _write_png(path: Path, pixels: Bytes) -> None:
    _, data = cv2.imencode(".png", pixels)
    write_bytes(path, data.tobytes())


def _in_fetus(scan: PhantomScan, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return points of the probe's frame in the fetus' frame."""
    cos, sin = turn(scan.turn_deg)
    right, down = x - np.float32(scan.shift_mm[0]), y - np.float32(scan.shift_mm[1])
    return cos * right + sin * down, cos * down - sin * right
