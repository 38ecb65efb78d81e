"""DICOM: single images and cine clips, of any transfer syntax that a decoder here knows.

Only pixels, geometry and a salted hash of the patient's number leave this file: no name, number or date of a patient
does. The pixel size of ultrasound
stands in its regions [1], in cm; that of other modalities in the pixel spacing.

[1] DICOM PS3.3, C.8.5.5 US Region Calibration Module.
    https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.8.5.5.html
"""

import hashlib
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmseg.imaging.case import Array, BadFile, Geometry
from fmseg.imaging.wholeness import cut_off

if TYPE_CHECKING:
    from pydicom import Dataset

#: of all frames and channels; larger ones are refused from the header, before memory is asked for
MAX_VALUES = 2**31
CENTIMETRES = 3
TISSUE = 1
SPATIAL_2D = 1
#: tissue, and the flow that is drawn on it
SHOWN = (TISSUE, 2)
#: what anonymisers and forms write where no patient is named
NOBODY = frozenset(
    ("", "0", "anon", "anonymized", "anonymised", "anonymous", "na", "n/a", "none", "unknown", "removed")
)
EXPORT = "Export it again, uncompressed, or convert it to PNG."
DEFLATED = "1.2.840.10008.1.2.1.99"
#: of an element that ends with a delimiter
UNDEFINED_LENGTH, DELIMITER_BYTES = 0xFFFFFFFF, 8


class DicomReader:
    """Reader of DICOM files that hold pixels."""

    endings: tuple[str, ...] = (".dcm", ".dicom")

    def read(self, path: Path) -> tuple[Array, Geometry, tuple[str, ...]]:
        """Return voxels (C, Z, Y, X) with C = 1 or 3; the frames of a clip lie along Z."""
        import pydicom

        notes: list[str] = []
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")  # odd headers are common, and what matters is checked here
            header = pydicom.dcmread(path)
            _check_end(path, header, [str(warning.message) for warning in said], notes)
            shape = _shape(path, header)
            frames = _decode(path, header, notes).reshape(shape)  # (Z, Y, X, C)
        native = frames.dtype.newbyteorder("=")
        voxels = np.ascontiguousarray(np.moveaxis(frames, 3, 0), dtype=native)
        if header.get("PhotometricInterpretation") == "MONOCHROME1":
            voxels = _inverted(voxels, header)
            notes.append("its grey values were inverted: white means none in this file")
        spacing = _spacing(header, notes)
        geometry = Geometry(spacing, is_2d=shape[0] == 1, scan_box=_scan_box(header, shape[1:3]))
        return voxels, geometry, tuple(notes)

    def read_patient(self, path: Path, salt: bytes) -> str:
        """Return 16 hexadecimal digits that are equal for images of one patient; empty if the header names none.

        Who has the salt can tell whether a number is among them, so it stays in the workspace.
        """
        import pydicom

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags = ["PatientID", "IssuerOfPatientID"]
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        number, issuer = (str(header.get(tag) or "").strip() for tag in tags)
        if number.lower() in NOBODY:
            return ""
        return hashlib.blake2b(f"{issuer}\0{number}".encode(), key=salt, digest_size=8).hexdigest()

    def read_label(self, path: Path) -> tuple[Array, Geometry]:
        """Refuse: a label map in DICOM is a segmentation object, which is not read yet."""
        raise BadFile(path, "label maps are not read from DICOM", "Save them as PNG or .nii.gz.")

    def write_label(self, labels: Array, geometry: Geometry, path: Path) -> None:
        """Refuse, likewise."""
        raise BadFile(path, "label maps are not written as DICOM", "Write them as .nii.gz.")


def _check_end(path: Path, header: "Dataset", said: list[str], notes: list[str]) -> None:
    """Refuse a file whose last element is not there to its end. said: what pydicom warned of."""
    from pydicom.dataelem import RawDataElement

    if any(message.startswith("End of file reached") for message in said):
        raise cut_off(path, "the end of its pixels")
    last: object = header.get_item(max(header.keys())) if len(header) else None
    # unpacked, places are not those of the file; and what is read already has none
    if not isinstance(last, RawDataElement) or header.file_meta.get("TransferSyntaxUID") == DEFLATED:
        return
    has_delimiter = last.length == UNDEFINED_LENGTH
    end = last.value_tell + (len(last.value or b"") + DELIMITER_BYTES if has_delimiter else last.length)
    length = path.stat().st_size
    if end > length:
        raise cut_off(path, "the end of its last element")
    if end < length:
        notes.append(f"{length - end} bytes behind its last element are none: it may be cut off")


def _shape(path: Path, header: "Dataset") -> tuple[int, int, int, int]:
    """Return (frames, rows, columns, channels). Raises BadFile where there are no pixels, or too many."""
    if "PixelData" not in header:
        what = header.get("Modality", "unknown modality")
        raise BadFile(path, f"this DICOM file holds no pixels ({what})", "Remove it; reports and such are no images.")
    shape = (
        int(header.get("NumberOfFrames") or 1),
        int(header.Rows),
        int(header.Columns),
        int(header.get("SamplesPerPixel", 1)),
    )
    if header.get("PhotometricInterpretation") == "PALETTE COLOR":
        shape = (*shape[:3], 3)
    if min(shape) < 1 or math.prod(shape) > MAX_VALUES:
        size = " x ".join(str(length) for length in shape)
        raise BadFile(path, f"its header claims {size} values", "Cut it into shorter clips.")
    return shape


def _decode(path: Path, header: "Dataset", notes: list[str]) -> Array:
    """Return all frames, colours as RGB, in stored order."""
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    try:
        pixels = pixel_array(header)  # YBR becomes RGB
    except (RuntimeError, NotImplementedError, ValueError, AttributeError) as error:
        # pydicom's plugins lack lossless and 12-bit JPEG, which GDCM, within ITK, reads
        return _decode_with_itk(path, header, error)
    if header.get("PhotometricInterpretation") == "PALETTE COLOR":
        return _eight_bit(apply_color_lut(pixels, header), notes)
    if "RescaleSlope" in header or "ModalityLUTSequence" in header:
        scaled = np.asarray(apply_modality_lut(pixels, header))
        whole = np.array_equal(np.rint(scaled), scaled) and np.abs(scaled).max(initial=0) < 2**15
        return scaled.astype(np.int16 if whole else np.float32)
    return np.asarray(pixels)


def _eight_bit(colours: Array, notes: list[str]) -> Array:
    """Return the colours of a palette as 8 bits; tables of 16 bits hold 8 in their upper half, nearly always."""
    if colours.dtype != np.uint16:
        return colours
    notes.append("its palette of 16-bit colours was read as 8-bit")
    return (colours >> 8).astype(np.uint8)


def _decode_with_itk(path: Path, header: "Dataset", reason: Exception) -> Array:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
    except RuntimeError as error:
        syntax = header.file_meta.TransferSyntaxUID.name if "TransferSyntaxUID" in header.file_meta else "none named"
        raise BadFile(path, f"its pixels cannot be decoded (transfer syntax {syntax})", EXPORT) from (error or reason)


def _inverted(voxels: Array, header: "Dataset") -> Array:
    """Return grey values with black as the lowest."""
    if voxels.dtype.kind == "u":
        return (2 ** int(header.BitsStored) - 1 - voxels).astype(voxels.dtype)
    return voxels.max() - voxels + voxels.min()


def _spacing(header: "Dataset", notes: list[str]) -> tuple[float, float, float] | None:
    """Return (z, y, x) in mm; z of a clip is a frame, and 1. None where the file does not say."""
    found = _region_spacing(header, notes) or _pixel_spacing(header)
    return None if found is None else (1.0, *found)


def _region_spacing(header: "Dataset", notes: list[str]) -> tuple[float, float] | None:
    """Return (y, x) of the B-mode regions of an ultrasound image."""
    sizes = {
        (10 * abs(float(region.PhysicalDeltaY)), 10 * abs(float(region.PhysicalDeltaX)))
        for region in header.get("SequenceOfUltrasoundRegions") or ()
        if _is_tissue(region)
    }
    if len(sizes) > 1:
        notes.append("its ultrasound regions have different pixel sizes, so none was taken")
        return None
    size = next(iter(sizes), None)
    return size if size and min(size) > 0 else None


def _scan_box(header: "Dataset", size_yx: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return (top, left, bottom, right) of all regions that show tissue or flow; None where the file names none."""
    names = ("RegionLocationMinY0", "RegionLocationMinX0", "RegionLocationMaxY1", "RegionLocationMaxX1")
    boxes = [
        [int(region[name].value) for name in names]
        for region in header.get("SequenceOfUltrasoundRegions") or ()
        if region.get("RegionSpatialFormat") == SPATIAL_2D
        and region.get("RegionDataType") in SHOWN
        and all(name in region for name in names)
    ]
    if not boxes:
        return None
    top, left = (max(0, min(box[axis] for box in boxes)) for axis in (0, 1))
    bottom, right = (min(size_yx[axis], 1 + max(box[axis + 2] for box in boxes)) for axis in (0, 1))
    return (top, left, bottom, right) if top < bottom and left < right else None


def _is_tissue(region: Any) -> bool:
    units = region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")
    is_image = region.get("RegionSpatialFormat") == SPATIAL_2D and region.get("RegionDataType") == TISSUE
    return (
        is_image and units == (CENTIMETRES, CENTIMETRES) and "PhysicalDeltaX" in region and "PhysicalDeltaY" in region
    )


def _pixel_spacing(header: "Dataset") -> tuple[float, float] | None:
    for name in ("PixelSpacing", "NominalScannedPixelSpacing", "ImagerPixelSpacing"):
        values = header.get(name)
        if values is not None and len(values) == 2 and all(float(value) > 0 for value in values):
            return float(values[0]), float(values[1])
    return None
