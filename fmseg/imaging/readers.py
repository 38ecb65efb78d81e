"""Files into voxels and label maps, and label maps back into files.

A reader knows some file endings. It is chosen by the ending, or by name (``overwrite_image_reader_writer`` in
dataset.json, where nnU-Net's names are understood). More readers are added to the registry ``readers``:
see docs/how-to/add-a-reader.md.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from fmseg.errors import EnvironmentProblem, FmsegError, UsageError
from fmseg.imaging.case import Array, BadFile, Case, Geometry, Spacing, is_grey
from fmseg.imaging.readers_2d import ImageReader
from fmseg.imaging.readers_dicom import DicomReader
from fmseg.imaging.readers_npy import ArrayReader
from fmseg.imaging.readers_video import VideoReader
from fmseg.imaging.readers_volume import VolumeReader
from fmseg.records.cases import is_bare_dicom
from fmseg.records.dataset import CaseFiles
from fmseg.records.endings import add_image_endings
from fmseg.registry import Registry

T = TypeVar("T")

__all__ = ["Reader", "is_grey", "read_case", "read_label", "read_reference", "readers", "write_label"]

NNUNET_NAMES = {"NaturalImage2DIO": "image", "SimpleITKIO": "volume", "NibabelIO": "volume"}


class Reader(Protocol):
    """One family of file formats."""

    #: with the dot, in lower case
    endings: tuple[str, ...]

    def read(self, path: Path) -> tuple[Array, Geometry, tuple[str, ...]]:
        """Return voxels (C, Z, Y, X), their geometry, and notes on what was changed. Raises BadFile."""

    def read_label(self, path: Path) -> tuple[Array, Geometry]:
        """Return the values (Z, Y, X) as they are in the file. Raises BadFile."""

    def write_label(self, labels: Array, geometry: Geometry, path: Path) -> None:
        """Write (Z, Y, X) integers, atomically. Raises BadFile if the format cannot hold them."""


class Readers(Registry[Reader]):
    """Readers by name. Files of their endings are images from then on."""

    def add(self, name: str, item: Reader) -> Reader:
        """Enter a reader, an instance. Raises UsageError if the name, or one of its endings, is taken."""
        for other in self:
            for ending in set(item.endings) & set(self[other].endings):
                raise UsageError(f"The reader '{other}' reads {ending} already. Leave that out of '{name}'.")
        add_image_endings(item.endings)
        return super().add(name, item)


readers = Readers("reader")
readers.add("image", ImageReader())
readers.add("volume", VolumeReader())
readers.add("dicom", DicomReader())
readers.add("npy", ArrayReader())
readers.add("video", VideoReader())


def read_case(files: CaseFiles, reader: str | None = None) -> Case:
    """Read all channels of a case: one file each, or all of them in one file.

    Raises BadFile naming the file and the mend.
    """
    parts = [_decoded(path, _reader_for(path, reader).read) for path in files.images]
    voxels, geometry, notes = parts[0]
    for path, (other, _, more) in zip(files.images[1:], parts[1:], strict=True):
        if other.shape[1:] != voxels.shape[1:]:
            problem = f"this channel is {_size(other[0])}, the first one is {_size(voxels[0])} (z, y, x)"
            raise BadFile(path, problem, "Export all channels of a case on one grid.")
        notes += more
    if len(parts) > 1:
        voxels = np.concatenate([part[0] for part in parts])
    geometry = replace(geometry, spacing_mm=_declared_spacing(files, geometry))
    return Case(files.name, voxels, geometry, notes)


def read_label(path: Path, reader: str | None = None) -> tuple[Array, Geometry]:
    """Return a label map (Z, Y, X) of integers and its geometry. Whole numbers saved as floats are cast.

    Raises BadFile for fractions, NaN and colour images.
    """
    labels, geometry = _decoded(path, _reader_for(path, reader).read_label)
    if labels.dtype.kind == "b":
        return labels.astype(np.uint8), geometry
    if labels.dtype.kind in "iu":
        return labels, geometry
    whole = np.rint(labels)
    is_wrong = (whole != labels) | ~np.isfinite(labels)
    if is_wrong.any():
        wrong = labels[is_wrong].flat[0]
        mend = "Label maps hold whole numbers. Export it again without interpolation."
        raise BadFile(path, f"the label map holds the value {wrong:g}", mend)
    return whole.astype(np.int32), geometry


def read_reference(files: CaseFiles, reader: str | None = None) -> tuple[Array, Spacing]:
    """Return a case's label map (Z, Y, X) and its pixel size: that of spacings.csv, its own, or its image's.

    The image is opened only where the label map knows no size and the image, of another format, may.
    """
    assert files.label is not None
    labels, geometry = read_label(files.label, reader)
    spacing = _declared_spacing(files, geometry)
    if spacing is None and _reader_for(files.images[0], reader) is not _reader_for(files.label, reader):
        spacing = read_case(files, reader).geometry.spacing_mm
    return labels, spacing


def _declared_spacing(files: CaseFiles, geometry: Geometry) -> Spacing:
    """Return the pixel size of spacings.csv; without one, that of the file."""
    if files.spacing_mm is None:
        return geometry.spacing_mm
    return (geometry.spacing_mm[0] if geometry.spacing_mm else 1.0, *files.spacing_mm)


def read_patient(files: CaseFiles, salt: bytes, reader: str | None = None) -> str:
    """Return the salted hash of the patient that a case's DICOM header names; empty where no header does.

    Raises BadFile if the file cannot be read.
    """
    known = _reader_for(files.images[0], reader)
    if not isinstance(known, DicomReader):
        return ""
    return _decoded(files.images[0], lambda path: known.read_patient(path, salt))


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM by its ending, or by its mark where it has none."""
    return path.name.lower().endswith(DicomReader.endings) or is_bare_dicom(path)


def write_label(labels: Array, geometry: Geometry, path: Path, reader: str | None = None) -> None:
    """Write a label map (Z, Y, X) in the format of the path's ending, on the given geometry, atomically."""
    _reader_for(path, reader).write_label(labels, geometry, path)


def _reader_for(path: Path, name: str | None) -> Reader:
    if name is not None:
        return readers[NNUNET_NAMES.get(name, name)]
    lower = path.name.lower()
    for known in readers:
        if lower.endswith(readers[known].endings):
            return readers[known]
    if is_bare_dicom(path):
        return readers["dicom"]
    endings = ", ".join(ending for known in readers for ending in readers[known].endings)
    raise BadFile(path, "no reader knows this file ending", f"Convert it to one of: {endings}.")


def _decoded(path: Path, decode: Callable[[Path], T]) -> T:
    """Return ``decode(path)``; whatever a decoder raises on a damaged file becomes BadFile."""
    try:
        if path.stat().st_size == 0:
            raise BadFile(path, "the file is empty (0 bytes)", "Copy or export it again.")
        return decode(path)
    except FmsegError:
        raise
    except FileNotFoundError as error:
        raise BadFile(path, "there is no such file", "Put it there, or remove its case.") from error
    except MemoryError as error:
        raise EnvironmentProblem(f"{path}: not enough memory to read it. Use fewer processes.") from error
    except Exception as error:  # decoders raise anything on damaged files: struct.error, IndexError, SyntaxError ...
        reason = " ".join(str(error).rpartition("ERROR:")[2].split())[:200] or type(error).__name__
        raise BadFile(path, f"it cannot be read ({reason})", "Copy or export it again.") from error


def _size(voxels: Array) -> str:
    return "x".join(str(length) for length in voxels.shape)
