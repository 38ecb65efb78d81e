"""Sound datasets that bad ones are made of, and the little that spoils files: read, write, cut, declare.

Images have 48 x 40 pixels, so that a turned one is noticed; cases are called ``P00_0``: patient, image.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

NAME = "Dataset501_Discs"
SIZE = (48, 40)
FIRST = "P00_0"
LABELS = {"background": 0, "head": 1, "organ": 2}


@dataclass(frozen=True, slots=True)
class Bad:
    """A dataset with something wrong, and what must be said about it."""

    name: str
    #: changes the folder of a sound raw dataset
    spoil: Callable[[Path], object]
    #: what the finding or message must hold: where, and which problem
    words: tuple[str, ...]
    #: 3: refused; 0: done, with a warning or a note
    code: int = 3
    #: of BASES
    base: str = "png"


def collected(found: list[Bad]) -> Callable[..., Callable[[Callable[[Path], object]], Callable[[Path], object]]]:
    """Return a decorator that adds a function to the datasets; its name is the dataset's."""

    def bad(*words: str, code: int = 3, base: str = "png") -> Callable[[Callable[[Path], object]], Callable]:
        def add(spoil: Callable[[Path], object]) -> Callable[[Path], object]:
            found.append(Bad(spoil.__name__.replace("_", " ").strip(), spoil, words, code, base))
            return spoil

        return add

    return bad


def discs(seed: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (Y, X) uint8 of a disc with a bright one in it, and its label map."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    place = rng.uniform(0.35, 0.65, 2) * size
    far = np.hypot(y - place[0], x - place[1]) / min(size)
    label = np.digitize(-far, (-0.33, -0.12)).astype(np.uint8)
    texture = 25 * np.sin(x * rng.uniform(0.1, 0.9) + rng.uniform(0, 6)) * np.cos(y * rng.uniform(0.1, 0.9))
    image = np.array([40.0, 110.0, 190.0])[label] + texture + rng.normal(0, 6, size)
    return np.clip(image, 1, 254).astype(np.uint8), label


def cases() -> Iterator[tuple[int, str]]:
    """Yield number and name of the six cases of three patients."""
    for number in range(6):
        yield number, f"P{number // 2:02d}_{number % 2}"


def write_png(folder: Path, colour: bool = False) -> None:
    """Write a segmentation set of PNGs."""
    for number, case in cases():
        image, label = discs(number)
        save(
            folder / "imagesTr" / f"{case}_0000.png", np.stack([image, image // 2, image // 3], -1) if colour else image
        )
        save(folder / "labelsTr" / f"{case}.png", label)
    channels = {"0": "red", "1": "green", "2": "blue"} if colour else {"0": "B-mode"}
    write_declaration(folder, channel_names=channels, labels=LABELS, file_ending=".png")


def write_volumes(folder: Path) -> None:
    """Write a segmentation set of NIfTI volumes with three slices."""
    for number, case in cases():
        slices = [discs(10 * number + z, (24, 20)) for z in range(3)]
        images, labels = (np.stack(each) for each in zip(*slices, strict=True))
        save_volume(folder / "imagesTr" / f"{case}_0000.nii.gz", images)
        save_volume(folder / "labelsTr" / f"{case}.nii.gz", labels)
    write_declaration(folder, channel_names={"0": "B-mode"}, labels=LABELS, file_ending=".nii.gz")


def write_classes(folder: Path) -> None:
    """Write a classification set."""
    lines = ["case,label"]
    for number, case in cases():
        save(folder / "imagesTr" / f"{case}_0000.png", discs(number)[0])
        lines.append(f"{case},{'even' if number % 2 else 'odd'}")
    (folder / "labelsTr.csv").write_text("\n".join(lines) + "\n")
    write_declaration(folder, channel_names={"0": "B-mode"}, file_ending=".png", task="classification")


def write_unlabelled(folder: Path) -> None:
    """Write a set without labels."""
    for number, case in cases():
        save(folder / "imagesTr" / f"{case}.png", discs(number)[0])
    write_declaration(folder, channel_names={"0": "B-mode"}, task="unlabelled", numTraining=None, group_regex=None)


def write_declaration(folder: Path, **values: object) -> None:
    """Write dataset.json."""
    values = {"numTraining": 6, "group_regex": "^(P[0-9]+)_"} | values
    kept = {key: value for key, value in values.items() if value is not None}
    (folder / "dataset.json").write_text(json.dumps(kept, indent=1))


BASES: dict[str, Callable[[Path], None]] = {
    "png": write_png,
    "rgb": lambda folder: write_png(folder, colour=True),
    "nii": write_volumes,
    "classes": write_classes,
    "unlabelled": write_unlabelled,
}


def declare(folder: Path, **changes: object) -> None:
    """Change keys of dataset.json; None takes one away."""
    path = folder / "dataset.json"
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: each for key, each in value.items() if each is not None}))


def image(folder: Path, case: str = FIRST) -> Path:
    """Return the image of a case."""
    return next((folder / "imagesTr").glob(f"{case}*"))


def label(folder: Path, case: str = FIRST) -> Path:
    """Return the label map of a case."""
    return next((folder / "labelsTr").glob(f"{case}.*"))


def pixels(path: Path) -> np.ndarray:
    """Return what is in an image file."""
    return np.asarray(Image.open(path))


def save(path: Path, values: np.ndarray, **how: object) -> None:
    """Write an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **how)


def edit(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the pixels of an image file."""
    save(path, np.ascontiguousarray(change(pixels(path))))


def save_volume(path: Path, values: np.ndarray, *, spacing: float = 0.5, origin: float = 0.0, **header: object) -> None:
    """Write (Z, Y, X) as NIfTI; keywords are written into its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([spacing, spacing, 2.0, 1.0])
    affine[:3, 3] = origin
    volume = nibabel.Nifti1Image(values.T, affine)
    for key, value in header.items():
        volume.header[key] = value
    nibabel.save(volume, path)


def volume(path: Path) -> np.ndarray:
    """Return (Z, Y, X) of a NIfTI file."""
    return np.asarray(nibabel.load(path).dataobj).T


def cut(path: Path, share: float = 0.5) -> None:
    """Keep the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def flip_bit(path: Path, share: float = 0.6) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 1
    path.write_bytes(content)


def link(path: Path, target: Path | str) -> None:
    """Put a link in the place of a file."""
    path.unlink(missing_ok=True)
    os.symlink(target, path)
