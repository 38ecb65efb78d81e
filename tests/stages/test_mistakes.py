"""What users do wrong with their data, and what they are told: the file, the problem, and the mend."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fmseg.errors import FmsegError
from fmseg.stages.doctor import check, doctor
from fmseg.stages.fingerprint import fingerprint

NAME = "Dataset501_Discs"


def declare(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def image(folder: Path) -> Path:
    return folder / "imagesTr" / "P00_0_0000.png"


def label(folder: Path) -> Path:
    return folder / "labelsTr" / "P00_0.png"


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


def masks_of_255(folder: Path) -> None:
    for path in (folder / "labelsTr").iterdir():
        save(path, (cv2.imread(str(path), 0) > 0).astype(np.uint8) * 255)


#: what is done to the dataset, what the message names, and what it advises
MISTAKES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no declaration": (lambda f: (f / "dataset.json").unlink(), "dataset.json", "channels, labels and file ending"),
    "no images": (lambda f: (f / "imagesTr").rename(f / "images"), "imagesTr", "Put the training images there"),
    "other ending": (lambda f: declare(f, file_ending=".nii.gz"), "dataset.json", "6 in imagesTr end in .png"),
    "empty image": (lambda f: image(f).write_bytes(b""), "P00_0_0000.png", "Copy or export it again"),
    "half an image": (lambda f: cut(image(f)), "P00_0_0000.png", "Copy or export it again"),
    "half a label map": (lambda f: cut(label(f)), "labelsTr/P00_0.png", "Copy or export it again"),
    "a web page": (lambda f: image(f).write_text("<html>404</html>"), "P00_0_0000.png", "no PNG, JPEG, BMP or TIFF"),
    "no label map": (lambda f: label(f).unlink(), "P00_0_0000.png", "Add labelsTr/P00_0"),
    "no image": (lambda f: image(f).unlink(), "labelsTr/P00_0.png", "Add its image"),
    "masks of 255": (masks_of_255, "labelsTr/P00_0.png", "write it as 1"),
    "a coloured mask": (
        lambda f: save(label(f), np.random.default_rng(0).integers(0, 255, (48, 48, 3)).astype(np.uint8)),
        "labelsTr/P00_0.png",
        "Save one number per pixel",
    ),
    "another size": (
        lambda f: save(label(f), np.ones((48, 47), np.uint8)),
        "labelsTr/P00_0.png",
        "on the image's grid",
    ),
    "a thumbnail": (
        lambda f: [save(p, np.ones((2, 2), np.uint8)) for p in (image(f), label(f))],
        "P00_0_0000.png",
        "full size",
    ),
    "a value too many": (
        lambda f: save(label(f), np.full((48, 48), 3, np.uint8)),
        "values 3; declared are 0, 1, 2",
        "Declare",
    ),
    "a reader of another name": (
        lambda f: declare(f, overwrite_image_reader_writer="Tiff3DIO"),
        "Tiff3DIO",
        "There are:",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_message_names_the_place_and_the_mend(raw_dataset, mistake):
    spoil, place, mend = MISTAKES[mistake]
    workspace = raw_dataset()
    spoil(workspace.raw_dataset(NAME))
    with pytest.raises(FmsegError) as caught:
        fingerprint(workspace, NAME, num_processes=0)
        check(doctor(workspace, NAME))
    message = str(caught.value)
    assert place in message and mend in message
    assert caught.value.exit_code in (2, 3)


def test_junk_of_the_operating_system_is_no_mistake(raw_dataset):
    workspace = raw_dataset()
    folder = workspace.raw_dataset(NAME)
    for name in (".DS_Store", "._P00_0_0000.png", "Thumbs.db"):
        (folder / "imagesTr" / name).write_bytes(b"junk")
        (folder / "labelsTr" / name).write_bytes(b"junk")
    assert fingerprint(workspace, NAME, num_processes=0).num_cases == 6
    assert doctor(workspace, NAME) == ()
