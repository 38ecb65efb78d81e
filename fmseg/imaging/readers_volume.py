"""NIfTI through nibabel; MHA, MHD and NRRD through SimpleITK.

Neither library is trusted with a damaged file: SimpleITK fills up half a NIfTI with zeros and follows a header
to data files anywhere on the disk. So lengths and the place of data files are checked here, first.
"""

import gzip
import io
import math
import os
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fmseg.files import write_bytes, writing
from fmseg.imaging.case import Array, BadFile, Geometry
from fmseg.imaging.wholeness import EXPORT, check_packed, check_raw, cut_off

#: larger volumes are refused from the header, before memory is asked for
MAX_VOXELS = 2**30
NIFTI = (".nii", ".nii.gz")
#: NIfTI points to the right and to the front, ITK to the left and to the back
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0])
#: a MetaImage or NRRD header must end within so many bytes
HEADER_BYTES = 2**16
#: where the pixels of a NIfTI begin, at most: behind its extensions
MAX_OFFSET = 2**26
#: sizes of a voxel, as the two places of a NIfTI header give them, that count as one may differ so much
MAX_SIZE_ERROR = 1e-2
#: of a NIfTI header's code -> name and mm; others, and none, are taken for mm
MM_OF_UNIT = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
#: zeros behind the pixels of a NIfTI
MAX_PADDING = 2**20


class VolumeReader:
    """Reader of volumes with a geometry, and of 2D images in these formats."""

    endings: tuple[str, ...] = (*NIFTI, ".mha", ".mhd", ".nrrd")

    def read(self, path: Path) -> tuple[Array, Geometry, tuple[str, ...]]:
        """Return voxels (C, Z, Y, X); a fourth axis, or RGB, becomes channels."""
        notes: list[str] = []
        voxels, geometry = _read_nifti(path, notes) if path.name.lower().endswith(NIFTI) else _read_itk(path)
        if voxels.dtype.kind not in "biuf":
            raise BadFile(path, f"its values are {voxels.dtype}", "Save real numbers, such as the magnitude.")
        return voxels, geometry, tuple(notes)

    def read_label(self, path: Path) -> tuple[Array, Geometry]:
        """Return (Z, Y, X) in the file's type."""
        voxels, geometry, _ = self.read(path)
        if len(voxels) != 1:
            raise BadFile(path, f"the label map has {len(voxels)} channels", "Save one number per voxel.")
        return voxels[0], geometry

    def write_label(self, labels: Array, geometry: Geometry, path: Path) -> None:
        """Write (Z, Y, X) on the grid of ``geometry``, compressed."""
        labels = np.ascontiguousarray(labels, dtype=np.uint16 if labels.max(initial=0) > 255 else np.uint8)
        if geometry.is_2d:
            labels = labels[0]
        if path.name.lower().endswith(NIFTI):
            _write_nifti(labels, geometry, path)
        else:
            _write_itk(labels, geometry, path)


def _read_nifti(path: Path, notes: list[str]) -> tuple[Array, Geometry]:
    import nibabel

    with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
        start = _exactly(path, file, 348)
        is_second = 540 in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big"))
        kind = nibabel.Nifti2Image if is_second else nibabel.Nifti1Image
        start += _exactly(path, file, 192) if is_second else b""
        header = kind.header_class(start, check=False)
        shape = tuple(int(length) for length in header.get_data_shape())
        _check_size(path, shape)
        num_bytes = int(np.prod(shape)) * header.get_data_dtype().itemsize
        offset = float(header["vox_offset"])
        if not 0 <= offset <= MAX_OFFSET:
            raise BadFile(path, f"its header says that its pixels begin at byte {offset:g}", EXPORT)
        end = max(int(offset), len(start) + 4) + num_bytes
        content = start + _exactly(path, file, end - len(start))
        # read to the end, where gzip keeps its checksum; some programs pad with a few zeros
        rest = file.read(MAX_PADDING)
        if len(rest) == MAX_PADDING or rest.strip(b"\0"):
            raise BadFile(path, "it is longer than its header says", EXPORT)
    image = kind.from_stream(io.BytesIO(content))
    unit, factor = MM_OF_UNIT.get(int(header["xyzt_units"]) % 8, ("mm", 1.0))
    matrix = np.diag([factor] * 3 + [1.0]) @ image.affine
    spacing = [factor * float(size) for size in header["pixdim"][1:4]][: len(shape)]
    geometry = _geometry(path, spacing, _ras_to_lps(matrix), is_2d=len(shape) == 2)
    if factor != 1:
        in_mm = " x ".join(f"{size:.4g}" for size in spacing)
        notes.append(f"its header gives sizes in {unit}, so its voxels are {in_mm} mm (x, y, z)")
    oriented = np.linalg.norm(matrix[:3, : len(spacing)], axis=0)
    if not np.allclose(oriented, spacing, rtol=MAX_SIZE_ERROR):
        sizes = " x ".join(f"{size:.4g}" for size in spacing), " x ".join(f"{size:.4g}" for size in oriented)
        notes.append(
            f"its voxels are {sizes[0]} mm (x, y, z) by 'pixdim', which is taken, and {sizes[1]} by its matrix"
        )
    return _channels_first(path, np.asanyarray(image.dataobj).T), geometry


def _write_nifti(labels: Array, geometry: Geometry, path: Path) -> None:
    import nibabel

    matrix = np.eye(4)
    matrix[:3, :3] = LPS_FROM_RAS @ np.reshape(geometry.direction, (3, 3)) * _spacing_xyz(geometry)
    matrix[:3, 3] = LPS_FROM_RAS @ geometry.origin
    image = nibabel.Nifti1Image(labels.T, matrix)
    image.set_sform(matrix, code=1)
    image.set_qform(matrix, code=1)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    write_bytes(path, gzip.compress(content, 6, mtime=0) if path.name.lower().endswith(".gz") else content)


def _read_itk(path: Path) -> tuple[Array, Geometry]:
    import SimpleITK as sitk

    head = _check_data_file(path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    _check_size(path, reader.GetSize())
    dimensions, components = reader.GetDimension(), reader.GetNumberOfComponents()
    value_bytes = sitk.Image([1] * dimensions, reader.GetPixelID(), components).GetSizeOfPixelComponent()
    _check_length(path, head, (*reader.GetSize(), components), value_bytes)
    image = reader.Execute()
    matrix = np.eye(4)
    matrix[:3, :3] = _embedded(np.reshape(image.GetDirection(), (dimensions, dimensions)))
    matrix[: min(3, dimensions), 3] = image.GetOrigin()[:3]
    geometry = _geometry(path, list(image.GetSpacing()[:3]), matrix, is_2d=dimensions == 2)
    voxels = sitk.GetArrayFromImage(image)  # (Z, Y, X), (T, Z, Y, X) or (Z, Y, X, C)
    if image.GetNumberOfComponentsPerPixel() > 1:
        voxels = np.moveaxis(voxels, -1, 0)
        voxels = voxels[:, None] if dimensions == 2 else voxels
        return np.ascontiguousarray(_plain(voxels)), geometry
    return _channels_first(path, voxels), geometry


def _write_itk(labels: Array, geometry: Geometry, path: Path) -> None:
    import SimpleITK as sitk

    dimensions = labels.ndim
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing([float(size) for size in _spacing_xyz(geometry)[:dimensions]])
    image.SetOrigin(geometry.origin[:dimensions])
    image.SetDirection(np.reshape(geometry.direction, (3, 3))[:dimensions, :dimensions].ravel().tolist())
    with writing(path) as temporary:
        # SimpleITK goes by the ending; an .mhd with its pixels inside is an .mha
        ending = ".nrrd" if path.name.lower().endswith(".nrrd") else ".mha"
        part = temporary.with_name(temporary.name + ending)
        try:
            sitk.WriteImage(image, str(part), True)
            os.replace(part, temporary)
        finally:
            part.unlink(missing_ok=True)


def _exactly(path: Path, file: BinaryIO | gzip.GzipFile, num_bytes: int) -> bytes:
    data = file.read(num_bytes)
    if len(data) < num_bytes:
        raise cut_off(path, "part of the file")
    return data


def _check_size(path: Path, shape: tuple[int, ...]) -> None:
    voxels = math.prod(shape) if shape else 0
    if not 1 <= voxels <= MAX_VOXELS or min(shape) < 1:
        claim = " x ".join(str(length) for length in shape)
        raise BadFile(path, f"its header claims a size of {claim or 'nothing'}", "Cut the volume, or export it again.")


def _check_data_file(path: Path) -> str:
    """Refuse headers that fetch their pixels from another folder, or from several files; return the file's head."""
    with open(path, "rb") as file:
        head = file.read(HEADER_BYTES).decode("latin-1")
    if path.name.lower().endswith(".nrrd"):
        end = re.search(r"\r?\n\r?\n", head)
        names = re.findall(r"(?im)^data ?file:(.*)$", head[: end.start()] if end else head)
        is_complete = end is not None or bool(names)
    else:
        # the first one counts; written in another way, it might be overlooked here or there
        found = re.search(r"(?im)^\s*ElementDataFile\s*=(.*)$", head)
        names = [found[1]] if found and found[1].strip() != "LOCAL" else []
        is_complete = found is not None and "ElementDataFile" in found[0]
    if not is_complete:
        raise BadFile(path, "its header has no end", EXPORT)
    for name in (name.strip() for name in names):
        if name != os.path.basename(name) or name.upper().startswith("LIST") or "%" in name or name in ("", ".."):
            mend = "Keep the data file beside its header, or save it as one .mha or .nrrd file."
            raise BadFile(path, f"its pixels are said to lie in '{name}'", mend)
        if not (path.parent / name).is_file():
            raise BadFile(path, f"its data file '{name}' is not beside it", "Copy both files.")
    return head


def _check_length(path: Path, head: str, shape: tuple[int, ...], value_bytes: int) -> None:
    """Compare the bytes of the pixels with those that the header speaks of, where they are not packed."""
    if path.name.lower().endswith(".nrrd"):
        end = re.search(r"\r?\n\r?\n", head)
        start, text = (end.end(), head[: end.start()]) if end else (0, head)
        coding = re.search(r"(?im)^encoding:\s*(\S+)", text)
        is_raw = coding is not None and coding[1].lower() == "raw"
        is_zipped = coding is not None and coding[1].lower() in ("gz", "gzip")
        name = re.search(r"(?im)^data ?file:(.*)$", text)
        has_more = re.search(r"(?im)^(?:line|byte) ?skip:", text)
    else:
        name = re.search(r"(?im)^\s*ElementDataFile\s*=(.*)(?:\n|$)", head)
        start, text = (name.end(), head[: name.end()]) if name else (0, head)
        name = None if name and name[1].strip() == "LOCAL" else name
        is_zipped = re.search(r"(?im)^\s*CompressedData\s*=\s*True", text) is not None
        is_raw = not re.search(r"(?im)^\s*(?:CompressedData\s*=\s*True|BinaryData\s*=\s*False)", text)
        has_more = re.search(r"(?im)^\s*HeaderSize\s*=", text)
    if has_more:
        return
    data = path.parent / name[1].strip() if name else path
    start = 0 if name else start
    if is_raw:
        check_raw(path, data.stat().st_size - start, shape, value_bytes)
    elif is_zipped:
        check_packed(path, data, start, math.prod(shape) * value_bytes)


def _geometry(path: Path, spacing_xyz: list[float], lps: Array, *, is_2d: bool) -> Geometry:
    """lps: (4, 4), directions (of any length) and origin. Raises BadFile for sizes that are no sizes."""
    spacing_xyz = spacing_xyz + [1.0] * (3 - len(spacing_xyz))
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    if not all(np.isfinite(size) and size > 0 for size in spacing_xyz):
        mend = "Export it with its voxel size in mm."
        raise BadFile(path, f"its voxel size is {tuple(spacing_xyz)} mm (x, y, z)", mend)
    if not np.isfinite(lps).all() or lengths.min() == 0:
        raise BadFile(path, "its orientation matrix is broken", "Export it with its orientation.")
    x, y, z = spacing_xyz
    origin = (float(lps[0, 3]), float(lps[1, 3]), float(lps[2, 3]))
    direction = tuple(float(value) for value in (lps[:3, :3] / lengths).ravel())
    return Geometry((z, y, x), origin, direction, is_2d)


def _ras_to_lps(affine: Array) -> Array:
    lps = np.array(affine, dtype=float)
    lps[:3] = LPS_FROM_RAS @ lps[:3]
    return lps


def _spacing_xyz(geometry: Geometry) -> Array:
    return np.array(geometry.spacing_mm or (1.0, 1.0, 1.0))[::-1]


def _embedded(direction: Array) -> Array:
    """Return the 3 x 3 matrix of a direction matrix of 2 to 4 dimensions."""
    matrix = np.eye(3)
    size = min(3, len(direction))
    matrix[:size, :size] = direction[:size, :size]
    return matrix


def _plain(voxels: Array) -> Array:
    """Return native byte order; half and double floats become single ones."""
    if voxels.dtype.kind == "f" and voxels.dtype != np.float32:
        return voxels.astype(np.float32)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


def _channels_first(path: Path, voxels: Array) -> Array:
    """Turn (Y, X), (Z, Y, X) or (T, Z, Y, X) into (C, Z, Y, X)."""
    if voxels.dtype.names:  # RGB as NIfTI keeps it: one structure per voxel
        return np.concatenate([_channels_first(path, voxels[name]) for name in voxels.dtype.names[:3]])
    if voxels.ndim not in (2, 3, 4):
        raise BadFile(path, f"it has {voxels.ndim} axes", "Save two or three axes, and channels as files of their own.")
    voxels = voxels[None, None] if voxels.ndim == 2 else voxels[None] if voxels.ndim == 3 else voxels
    return np.ascontiguousarray(_plain(voxels))
