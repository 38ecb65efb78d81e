"""Datasets that tests are made of: 48 px images with two discs, small enough to run everything on."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings

from fmseg.imaging.case import Geometry
from fmseg.imaging.readers import write_label
from fmseg.records.fingerprint import Fingerprint
from fmseg.records.plans import Plans
from fmseg.workspace import Workspace

SIZE = 48
LABELS = {"background": 0, "head": 1, "organ": 2}
#: files that take longest: started first, so that no test process is still busy with one when the others are done
FIRST = ("test_pipeline.py", "test_classification_pipeline.py", "test_pretrain.py", "test_distributed.py")
# how long an example takes is a matter of the disk and of what else runs
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first, all others in their order behind them."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


def draw_discs(rng: np.random.Generator, size: tuple[int, int] = (SIZE, SIZE)) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (Y, X) uint8 of a large disc with a bright small one in it, and its label map."""
    height, width = size
    label = np.zeros(size, np.uint8)
    centre = (int(width * rng.uniform(0.4, 0.6)), int(height * rng.uniform(0.4, 0.6)))
    cv2.circle(label, centre, int(min(size) * rng.uniform(0.25, 0.35)), 1, -1)
    cv2.circle(label, centre, int(min(size) * rng.uniform(0.08, 0.12)), 2, -1)
    brightness = np.array([30.0, 110.0, 200.0])[label]
    return np.clip(brightness + rng.normal(0, 12, size), 0, 255).astype(np.uint8), label


@pytest.fixture
def raw_dataset(tmp_path: Path) -> Callable[..., Workspace]:
    """Return a function that writes a raw dataset and returns its workspace (below ``tmp_path``).

    ending: ".png" or another 2D ending, or ".nii.gz", ".mha", ".nrrd" for volumes of three slices. colour: "none",
    "grey" (RGB with equal channels) or "rgb". task: "segmentation", "classification" or "unlabelled". Cases are
    called ``P00_0``: patient, image.
    """

    def make(
        name: str = "Dataset501_Discs",
        *,
        num_patients: int = 3,
        images_per_patient: int = 2,
        size: tuple[int, int] = (SIZE, SIZE),
        ending: str = ".png",
        colour: str = "none",
        task: str = "segmentation",
        seed: int = 0,
    ) -> Workspace:
        workspace = Workspace.find(tmp_path)
        folder = workspace.raw_dataset(name)
        (folder / "imagesTr").mkdir(parents=True)
        classes = []
        for patient in range(num_patients):
            for index in range(images_per_patient):
                rng = np.random.default_rng((seed, patient, index))
                case = f"P{patient:02d}_{index}"
                _write_case(folder, case, rng, size, ending, colour, with_label=task == "segmentation")
                classes.append(f"{case},{'odd' if patient % 2 else 'even'}")
        if task == "classification":
            (folder / "labelsTr.csv").write_text("\n".join(["case,label", *classes]) + "\n")
        channels = ("red", "green", "blue") if colour == "rgb" else ("B-mode",)
        declaration = {
            "channel_names": {str(number): channel for number, channel in enumerate(channels)},
            "labels": LABELS if task == "segmentation" else {},
            "numTraining": num_patients * images_per_patient,
            "file_ending": ending,
            "task": task,
            "group_regex": "^(P[0-9]+)_",
        }
        (folder / "dataset.json").write_text(json.dumps(declaration))
        return workspace

    return make


def _write_case(
    folder: Path,
    case: str,
    rng: np.random.Generator,
    size: tuple[int, int],
    ending: str,
    colour: str,
    *,
    with_label: bool,
) -> None:
    is_volume = ending in (".nii.gz", ".nii", ".mha", ".nrrd")
    slices = [draw_discs(rng, size) for _ in range(3 if is_volume else 1)]
    images, labels = (np.stack(parts) for parts in zip(*slices, strict=True))
    geometry = Geometry((2.0, 0.5, 0.25), origin=(1.0, 2.0, 3.0)) if is_volume else Geometry(None, is_2d=True)
    path = folder / "imagesTr" / f"{case}_0000{ending}"
    if is_volume:
        write_label(images, geometry, path)  # 8-bit images and label maps look the same on disk
    elif colour == "none":
        cv2.imwrite(str(path), images[0])
    else:
        shift = 0 if colour == "grey" else 5
        cv2.imwrite(str(path), np.stack([np.clip(images[0], 10, 240) + shift * c for c in range(3)], axis=-1))
    if with_label:
        write_label(labels, geometry, folder / "labelsTr" / f"{case}{ending}")


ARCHITECTURE = {
    "name": "test",
    "patch_size": 8,
    "width": 32,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "ffn": "mlp",
    "num_registers": 1,
    "layer_scale": None,
    "layer_norm_eps": 1e-6,
    "channels": 1,
    "image_size": [32, 32],
    "position_interpolation": "size",
    "position_antialias": False,
}
VIEWS = {
    "global_size": [32, 32],
    "local_size": [16, 16],
    "num_locals": 2,
    "global_scale": [0.4, 1.0],
    "local_scale": [0.1, 0.4],
    "aspect": [0.75, 1.33],
    "flip": "horizontal",
    "jitter_probability": 0.8,
    "brightness": 0.4,
    "contrast": 0.4,
    "blur_probability": [1.0, 0.1, 0.5],
    "blur_sigma_px": [0.1, 2.0],
    "solarize_probability": 0.2,
    "min_content": 0.0,
}
PRETRAINING = {
    "architecture": ARCHITECTURE,
    "views": VIEWS,
    "mean": [0.3],
    "std": [0.2],
    "num_prototypes": 64,
    "head_hidden": 32,
    "head_bottleneck": 16,
    "shared_head": True,
    "trainable_gain": False,
    "centering": "softmax",
    "center_momentum": 0.9,
    "student_temperature": 0.1,
    "teacher_temperature": [0.04, 0.07],
    "temperature_warmup_iterations": 2,
    "dino_weight": 1.0,
    "ibot_weight": 1.0,
    "koleo_weight": 0.1,
    "mask_probability": 0.5,
    "mask_ratio": [0.1, 0.5],
    "drop_path": 0.0,
    "batch_size": 4,
    "accumulation": 1,
    "iterations": 4,
    "warmup_iterations": 1,
    "freeze_last_layer_iterations": 1,
    "learning_rate": 1e-3,
    "min_learning_rate": 1e-6,
    "weight_decay": [0.04, 0.4],
    "layer_decay": 0.9,
    "patch_embed_factor": 0.2,
    "teacher_momentum": [0.992, 1.0],
    "clip_norm": 3.0,
    "precision": "float32",
    "seed": 0,
}


@pytest.fixture
def tiny_plans() -> Callable[..., Plans]:
    """Return a function that makes a plan for a fingerprint; keywords change its preprocessing."""

    def make(fingerprint: Fingerprint, **preprocessing: object) -> Plans:
        labels = None
        if fingerprint.task == "segmentation":
            names = [each.name for each in fingerprint.classes]
            numbers = list(range(1, len(names) + 1))
            values = [[number] for number in numbers]
            labels = {"names": names, "values": values, "painted": numbers, "has_regions": False, "ignore": None}
        prepared = {
            "size_mode": "fit",
            "image_size": [32, 32],
            "spacing_mm": None,
            "channels": fingerprint.channels,
            "intensity": "eight_bit",
            "window": [],
            "mean": [0.3] * fingerprint.channels,
            "std": [0.2] * fingerprint.channels,
            "store_dtype": "uint8",
        }
        hardware = {
            "device": "cpu",
            "num_devices": 1,
            "memory_gb": 8.0,
            "num_cores": 2,
            "has_bfloat16": False,
            "gflops": 50.0,
        }
        value = {
            "name": "fmsegPlans",
            "dataset": fingerprint.dataset,
            "task": fingerprint.task,
            "modality": fingerprint.modality,
            "content_hash": fingerprint.content_hash,
            "labels": labels,
            "hardware": hardware,
            "preprocessing": prepared | preprocessing,
            "pretraining": PRETRAINING,
            "finetuning": None,
            "recipes": [],
            "mirror_axes": ["horizontal"],
            "because": [],
        }
        return Plans.parse(value, "tiny plans")

    return make
