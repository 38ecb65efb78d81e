"""What was measured: one line per case in ``cases.jsonl``, the whole set in ``dataset_fingerprint.json``."""

from typing import ClassVar, Literal

from pydantic import Field

from fmseg.records.record import Part, Record

Severity = Literal["error", "warning", "note"]
Remedy = Literal["", "leave_out", "keep_first", "remove"]


class Finding(Part):
    """One thing that the doctor found: what, where, why it matters, and how to mend it."""

    severity: Severity
    #: the file or case it is about, relative to the raw dataset where possible
    where: str
    problem: str
    mend: str
    #: what would come of it
    why: str = ""
    #: the cases that it is about; those of single files are filled in by the doctor
    cases: tuple[str, ...] = ()
    #: what a mended copy does about it: without its cases, without all but the first, without the file at ``where``
    remedy: Remedy = ""


class Intensity(Part):
    """Intensities of one channel, in the file's own units."""

    mean: float
    std: float
    minimum: float
    maximum: float
    percentile_00_5: float
    median: float
    percentile_99_5: float


class CaseFacts(Part):
    """What was measured on one case; one line of ``cases.jsonl``."""

    case: str
    #: file name, size in bytes and modification time of every file read, to notice changes without reading
    stamp: str
    #: of the decoded pixels of all channels; equal hashes are equal images
    content_hash: str
    #: of the label map; empty without one
    label_hash: str
    #: (Z, Y, X); Z is 1 for a 2D image, and 0 if the image cannot be read
    shape: tuple[int, int, int]
    #: (z, y, x) in mm, or None where the file has none
    spacing_mm: tuple[float, float, float] | None
    #: of a volume: what its slices are by its matrix; empty for oblique ones, and where it was not measured
    slices: Literal["", "sagittal", "coronal", "axial"] = ""
    channels: int
    #: RGB whose three channels are equal
    is_grey: bool
    dtype: str
    intensity: tuple[Intensity, ...]
    #: over the labelled foreground; empty without labels
    foreground_intensity: tuple[Intensity, ...]
    #: mean and standard deviation per channel once the image is mapped to [0, 1] between its 0.5 and 99.5 percentiles
    scaled: tuple[tuple[float, float], ...]
    #: (label value, pixels, connected components)
    label_counts: tuple[tuple[int, int, int], ...]
    #: (pixels, connected components) of each class or region, in the order of the label scheme
    class_counts: tuple[tuple[int, int], ...]
    findings: tuple[Finding, ...]
    patient: str
    #: 16 hexadecimal digits per 2D image: alike where images look alike; empty if it was not measured
    looks: str = ""
    #: a salted hash of the patient that the file's header names (DICOM); empty where none is named
    header_patient: str = ""
    #: of ultrasound: corners (y, x) of the scan sector's outline; empty if none was found or looked for
    sector: tuple[tuple[int, int], ...] = ()
    #: like ``intensity``, inside the sector
    sector_intensity: tuple[Intensity, ...] = ()
    #: of ultrasound: what is drawn on the image and beside it, as "text outside", "calipers inside"
    marks: tuple[str, ...] = ()


class ClassFacts(Part):
    """How often and how large one class or region is."""

    name: str
    #: share of the cases that show it
    case_share: float
    #: share of all pixels
    pixel_share: float
    #: median number of connected components where it is present
    median_components: float
    #: median area where it is present, as share of the image
    median_area_share: float


class Fingerprint(Record):
    """The measured dataset: all that the planner looks at."""

    VERSION: ClassVar[int] = 1

    dataset: str
    task: Literal["segmentation", "classification", "unlabelled"]
    modality: str
    num_cases: int
    #: 2D images: slices and frames count one by one
    num_images: int
    num_patients: int
    #: where the patient groups come from, in words
    patient_source: str
    #: True if patients were declared (patients.csv or group_regex), False if guessed or missing
    patients_declared: bool
    #: what is taken for a patient where it is none, such as a video
    patient_unit: str = Field(default="patient", exclude_if=lambda value: value == "patient")
    is_3d: bool
    #: (Y, X) of the images
    median_size: tuple[int, int]
    min_size: tuple[int, int]
    max_size: tuple[int, int]
    #: (z, y, x), None if any image has none
    median_spacing_mm: tuple[float, float, float] | None
    #: channels of the files, and of the network's input once grey RGB is reduced
    file_channels: int
    channels: int
    dtype: str
    #: whole set, pooled, in the file's own units; one per input channel
    intensity: tuple[Intensity, ...]
    foreground_intensity: tuple[Intensity, ...]
    #: inside the scan sectors of ultrasound; empty for others
    sector_intensity: tuple[Intensity, ...] = ()
    #: mean and standard deviation per input channel once each image is mapped to [0, 1] between its own
    #: 0.5 and 99.5 percentiles
    scaled_mean: tuple[float, ...]
    scaled_std: tuple[float, ...]
    classes: tuple[ClassFacts, ...]
    #: of the sorted content hashes of all cases and labels
    content_hash: str
