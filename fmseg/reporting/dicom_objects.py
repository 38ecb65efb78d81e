"""Label maps as DICOM: a segmentation that refers to its source, or, where the source allows none, pictures.

A segmentation needs one source image, or a frame of reference: an ordinary clip of ultrasound has neither, so each of
its frames becomes a secondary capture, a picture with the label map drawn on it. Either belongs to the source's patient
and study, so what is written here tells who the patient is, as the source does.
"""

import hashlib
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fmseg._version import __version__
from fmseg.errors import BadData, EnvironmentProblem
from fmseg.files import writing
from fmseg.records.labels import LabelScheme
from fmseg.reporting.label_formats import masks_of
from fmseg.reporting.overlays import overlay

MAKER = "fmseg"
#: asked for by highdicom; headers of the modules for patient and study may lack them
_EXPECTED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
#: own root of identifiers that are made of a hash (UUID-derived, as DICOM PS3.5 B.2 allows)
_UID_ROOT = "2.25."


def write_dicom(
    labels: np.ndarray, shown: np.ndarray, scheme: LabelScheme, source: Path, target: Path
) -> tuple[list[Path], str]:
    """Write what was drawn on a DICOM file; return the files, and why they are no segmentation ("" if they are one).

    labels: (Z, Y, X). shown: (Z, Y, X) or (Z, Y, X, 3) uint8, the source's pixels. target: without an ending. Raises
    BadData for a source that belongs to no study, EnvironmentProblem if highdicom is missing.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem("DICOM segmentations need highdicom: pip install 'fmseg[dicom]'") from error
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd headers are common
        header = pydicom.dcmread(source)
        if not header.get("StudyInstanceUID") or not header.get("SOPInstanceUID"):
            raise BadData(f"{source}: its header names no study. Write another format for it.")
        _mend(header)
        if labels.shape[1:] != (header.Rows, header.Columns):
            raise BadData(f"{source}: its label map has another size. Predict it again.")
        try:
            path = target.with_name(f"{target.name}.dcm")
            _save(_segmentation(labels, scheme, header), path)
            return [path], ""
        except (ValueError, AttributeError) as error:
            why = " ".join(str(error).split())
        paths = []
        for z, plane in enumerate(labels):
            name = f"{target.name}.dcm" if len(labels) == 1 else f"{target.name}_z{z:04d}.dcm"
            paths.append(target.with_name(name))
            _save(_capture(overlay(shown[z], plane), header, z + 1), paths[-1])
        return paths, why


def _segmentation(labels: np.ndarray, scheme: LabelScheme, header: Any) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        name=MAKER, version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.AnatomicalStructure,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(scheme.names, start=1)
    ]
    masks = np.stack([mask.astype(np.uint8) for mask in masks_of(labels, scheme).values()], axis=-1)  # (Z, Y, X, K)
    return hd.seg.Segmentation(
        [header],
        masks,
        hd.seg.SegmentationTypeValues.BINARY,
        segments,
        series_instance_uid=_uid("series", header.SOPInstanceUID),
        series_number=1,
        sop_instance_uid=_uid("segmentation", header.SOPInstanceUID, masks.tobytes()),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=__version__,
        device_serial_number="0",
        omit_empty_frames=False,
    )


def _capture(picture: np.ndarray, header: Any, number: int) -> Any:
    import highdicom as hd

    made = hd.sc.SCImage.from_ref_dataset(
        header,
        picture,
        hd.PhotometricInterpretationValues.RGB,
        8,
        hd.CoordinateSystemNames.PATIENT,
        series_instance_uid=_uid("series", header.SOPInstanceUID),
        series_number=1,
        sop_instance_uid=_uid("capture", header.SOPInstanceUID, number, picture.tobytes()),
        instance_number=number,
        manufacturer=MAKER,
        patient_orientation=("L", "P"),  # highdicom wants one; the source's, which may be none, replaces it
    )
    made.PatientOrientation = header.get("PatientOrientation")
    return made


def _mend(header: Any) -> None:
    """Fill what is missing and turn dates and times of old files into today's form."""
    for key in _EXPECTED:
        if header.get(key) is None:
            setattr(header, key, "")
    for key in ("StudyDate", "PatientBirthDate", "StudyTime"):
        text = re.sub(r"[.:](?=\d\d(\D|$))", "", str(header.get(key)))
        setattr(header, key, text)


def _uid(*parts: object) -> str:
    """Return an identifier that is the same for the same parts."""
    digest = hashlib.sha256(b"\0".join(part if isinstance(part, bytes) else str(part).encode() for part in parts))
    return f"{_UID_ROOT}{int.from_bytes(digest.digest()[:16], 'big')}"


def _save(made: Any, path: Path) -> None:
    with writing(path) as temporary:
        made.save_as(temporary)
