"""Endings of files that are images."""

from collections.abc import Sequence

# fmt: off
_image_endings = [
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff",
    ".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".dcm", ".dicom", ".npy", ".mp4", ".avi",
]
# fmt: on


def image_endings() -> tuple[str, ...]:
    """Return the endings of files that are images, with their dot, in lower case."""
    return tuple(_image_endings)


def add_image_endings(endings: Sequence[str]) -> None:
    """Let files of these endings be images, too; whoever adds a reader does so."""
    _image_endings.extend(ending for ending in endings if ending not in _image_endings)


def strip_ending(name: str) -> str:
    """Return a file name without its image ending."""
    lower = name.lower()
    for ending in image_endings():
        if lower.endswith(ending):
            return name[: -len(ending)]
    return name
