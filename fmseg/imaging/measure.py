"""One case measured: size, intensities, classes, and everything that is wrong with its files.

Nothing is raised for a bad file: what is wrong becomes a finding, so that one pass names all of them.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from fmseg.errors import BadData, BadRecord
from fmseg.files import stream_lines
from fmseg.imaging.agreement import OFF_GRID, misplaced, mixed_up
from fmseg.imaging.case import Array, BadFile, Case, content_hash, is_grey
from fmseg.imaging.intensity import histogram, intensity_of, scale
from fmseg.imaging.looks import looks_of
from fmseg.imaging.marks import find_marks
from fmseg.imaging.readers import read_case, read_label, read_patient
from fmseg.imaging.sector import find_sector
from fmseg.records.dataset import CaseFiles
from fmseg.records.fingerprint import CaseFacts, Finding, Intensity, Severity
from fmseg.records.labels import LabelScheme

#: counted up when a case is measured in another way, so that old lines of cases.jsonl are not kept
VERSION = 6
MIN_SIDE_PX = 8
MAX_LISTED = 10
MAX_LINES = 20
UNREADABLE = "Nothing can be learned from a file that cannot be read."
CHANGED = "The network sees the image as it was read, not as it is in the file."


def measure_case(
    files: CaseFiles,
    labels: LabelScheme | None,
    patient: str,
    *,
    reader: str | None = None,
    salt: bytes = b"",
    is_ultrasound: bool = False,
) -> CaseFacts:
    """Read a case and its label map and return what was measured. ``labels`` is None where none are expected.

    salt: of the workspace; with it, the patient that a file's header names is noted as a salted hash. is_ultrasound:
    whether there are a scan sector and drawn marks to look for.
    """
    facts = _nothing(files, labels, patient)
    try:
        case = read_case(files, reader)
        header_patient = read_patient(files, salt, reader) if salt else ""
    except BadFile as error:
        return facts.model_copy(update={"findings": (_bad(error), *_without_label(files, labels))})
    counted = [histogram(channel) for channel in case.voxels]
    intensity = tuple(intensity_of(counts) for counts in counted if counts)
    findings = _image_findings(files, case, intensity)
    measured: dict[str, object] = {
        "header_patient": header_patient,
        "content_hash": content_hash(case.voxels),
        "shape": case.voxels.shape[1:],
        "spacing_mm": case.geometry.spacing_mm,
        "slices": case.geometry.slices if case.voxels.shape[1] > 1 else "",
        "channels": len(case.voxels),
        "is_grey": is_grey(case.voxels),
        "dtype": str(case.voxels.dtype),
        "intensity": intensity,
        "looks": looks_of(case.voxels),
        "scaled": tuple(counts.mean_and_std(scale(counts.values, counts.window())) for counts in counted if counts),
    }
    if is_ultrasound:
        measured |= _measure_scan(files, case, findings)
    if labels is not None:
        findings += _without_label(files, labels)
        if files.label is not None:
            measured |= _measure_label(files.label, labels, case, reader, findings)
    return facts.model_copy(update=measured | {"findings": tuple(findings)})


def facts_of_dead(files: CaseFiles, labels: LabelScheme | None, patient: str) -> CaseFacts:
    """Return the facts of a case whose reading killed the process."""
    problem = "the process that read it was killed twice"
    mend = "It may be damaged, or too large for the memory: export it again, or use fewer processes."
    dead = _finding("error", files.images[0], problem, mend, UNREADABLE)
    return _nothing(files, labels, patient).model_copy(update={"findings": (dead,)})


def refuse_errors(findings: Iterable[Finding]) -> None:
    """Raise one BadData that lists all findings that are errors, if there are any."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    lines = [f"  {each.where}: {each.problem}. {each.mend}" for each in errors[:MAX_LINES]]
    if len(errors) > MAX_LINES:
        lines.append(f"  ... and {len(errors) - MAX_LINES} more; all of them are in doctor.json")
    thing = "thing is" if len(errors) == 1 else "things are"
    raise BadData("\n".join([f"{len(errors)} {thing} wrong with the data:", *lines]))


def stamp_of(files: CaseFiles, labels: LabelScheme | None) -> str:
    """Return name, size and time of every file and a mark of the label scheme: what a line of facts rests on."""
    parts = [f"v{VERSION}", labels.digest()[:8] if labels else "-"]
    if files.spacing_mm is not None:
        parts.append("{}x{}mm".format(*files.spacing_mm))
    for path in (*files.images, files.label):
        if path is None:
            continue
        try:
            status = path.stat()
            parts.append(f"{path.name}:{status.st_size}:{status.st_mtime_ns}")
        except OSError:
            parts.append(f"{path.name}:missing")
    return " ".join(parts)


def read_facts(path: Path) -> Iterator[CaseFacts]:
    """Yield the lines of cases.jsonl one by one. Raises BadRecord naming a broken one."""
    for number, line in enumerate(stream_lines(path), start=1):
        try:
            yield CaseFacts.model_validate_json(line)
        except ValueError as error:
            raise BadRecord(f"{path}, line {number}: not a line of this fmseg. Measure again.") from error


def _nothing(files: CaseFiles, labels: LabelScheme | None, patient: str) -> CaseFacts:
    """Return the facts of a case that cannot be read."""
    return CaseFacts(
        case=files.name,
        stamp=stamp_of(files, labels),
        content_hash="",
        label_hash="",
        shape=(0, 0, 0),
        spacing_mm=None,
        channels=0,
        is_grey=False,
        dtype="",
        intensity=(),
        foreground_intensity=(),
        scaled=(),
        label_counts=(),
        class_counts=(),
        findings=(),
        patient=patient,
    )


def _image_findings(files: CaseFiles, case: Case, intensity: tuple[Intensity, ...]) -> list[Finding]:
    path, voxels = files.images[0], case.voxels
    findings = [_finding("note", path, note, "Nothing to do if that is right.", CHANGED) for note in case.notes]
    if min(voxels.shape[2:]) < MIN_SIDE_PX:
        size = f"the image has {voxels.shape[2]} x {voxels.shape[3]} pixels only"
        mend = "Export it in full size, or remove it."
        findings.append(_finding("error", path, size, mend, "There is nothing to see in it."))
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        share = float(1 - np.isfinite(voxels).mean())
        problem = f"{share:.2%} of the values are NaN or infinite"
        mend = "Replace them by the background value."
        findings.append(_finding("error", path, problem, mend, "One such value spoils all that is computed from it."))
    elif all(each.minimum == each.maximum for each in intensity):
        problem = f"all pixels have the value {voxels.flat[0]}"
        mend = "Check the export; remove the image if it is empty."
        findings.append(_finding("warning", path, problem, mend, "There is nothing to see in it."))
    return findings


def _measure_scan(files: CaseFiles, case: Case, findings: list[Finding]) -> dict[str, object]:
    """Return the fields of the scan sector and of marks; calipers are added to ``findings``."""
    sector = find_sector(case.voxels, case.geometry.scan_box)
    marks = find_marks(case.voxels, sector).kinds
    if "calipers inside" in marks:
        problem, why = "measuring marks (calipers) lie on the image", "They may tell a network what was measured."
        mend = "Export it without them, or plan with --set marks=remove."
        findings.append(_finding("warning", files.images[0], problem, mend, why))
    if sector is None:
        return {"marks": marks}
    area = np.broadcast_to(sector.mask(case.voxels.shape[2:]), case.voxels.shape[1:])
    inside = [histogram(channel, area) for channel in case.voxels]
    return {
        "sector": sector.outline,
        "sector_intensity": tuple(intensity_of(counted) for counted in inside if counted),
        "marks": marks,
    }


def _measure_label(
    path: Path, scheme: LabelScheme, case: Case, reader: str | None, findings: list[Finding]
) -> dict[str, object]:
    """Return the fields of the label map; what is wrong with it is added to ``findings``."""
    try:
        labels, geometry = read_label(path, reader)
    except BadFile as error:
        findings.append(_bad(error))
        return {}
    digest: dict[str, object] = {"label_hash": content_hash(labels)}
    if labels.shape != case.voxels.shape[1:]:
        sizes = f"the label map is {labels.shape}, its image is {case.voxels.shape[1:]} (z, y, x)"
        findings.append(_finding("error", path, sizes, "Export it on the image's grid.", OFF_GRID))
        return digest
    findings += misplaced(path, geometry, case.geometry)
    counts = _counts(labels)
    findings += mixed_up(path, labels, case.voxels, counts)
    undeclared = [value for value in counts if value not in scheme.declared]
    if undeclared:
        findings.append(_undeclared(path, undeclared, scheme))
        return digest
    foreground = [value for value in counts if value not in (0, scheme.ignore)]
    if not foreground:
        problem = "the label map is empty" if scheme.ignore not in counts else "all that is labelled is to be ignored"
        mend = "Nothing to do if there is nothing to see in this image."
        findings.append(_finding("warning", path, problem, mend, "It teaches that there is nothing here."))
    mask = (labels > 0) if scheme.ignore is None else (labels > 0) & (labels != scheme.ignore)
    inside = [histogram(channel, mask.astype(np.uint8)) for channel in case.voxels]
    components = {value: count_components(labels == value) for value in counts if value}
    return digest | {
        "foreground_intensity": tuple(intensity_of(counted) for counted in inside if counted),
        "label_counts": tuple((value, counts[value], components[value]) for value in components),
        "class_counts": tuple(_class_counts(labels, group, counts, components) for group in scheme.values),
    }


def count_components(mask: Array) -> int:
    """Return the number of connected components of (Z, Y, X) bool; corners connect."""
    if len(mask) == 1:
        flat = mask[0].astype(np.uint8)
        x, y, width, height = cv2.boundingRect(flat)
        if not width:
            return 0  # OpenCV 5.0 crashes on an empty array
        return int(cv2.connectedComponents(flat[y : y + height, x : x + width], connectivity=8)[0]) - 1
    from scipy import ndimage

    return int(ndimage.label(mask, structure=np.ones((3, 3, 3)))[1])


def _class_counts(
    labels: Array, group: tuple[int, ...], counts: dict[int, int], components: dict[int, int]
) -> tuple[int, int]:
    present = [value for value in group if value in counts]
    if len(present) < 2:
        return (counts[present[0]], components[present[0]]) if present else (0, 0)
    return sum(counts[value] for value in present), count_components(np.isin(labels, present))


def _counts(labels: Array) -> dict[int, int]:
    """Return value -> number of pixels, for the values that occur."""
    counted = histogram(labels)
    assert counted is not None  # a readable file has pixels
    return {int(value): int(count) for value, count in zip(counted.values, counted.counts, strict=True) if count}


def _undeclared(path: Path, values: list[int], scheme: LabelScheme) -> Finding:
    listed = ", ".join(str(value) for value in values[:MAX_LISTED]) + (" ..." if len(values) > MAX_LISTED else "")
    declared = ", ".join(str(value) for value in scheme.declared)
    hint = " If 255 is the foreground, write it as 1." if values == [255] else ""
    mend = f"Declare them under 'labels' in dataset.json, or correct the label map.{hint}"
    problem = f"the label map holds the values {listed}; declared are {declared}"
    return _finding("error", path, problem, mend, "Nobody knows what such pixels show.")


def _without_label(files: CaseFiles, labels: LabelScheme | None) -> list[Finding]:
    if labels is None or files.label is not None:
        return []
    mend = f"Add labelsTr/{files.name} with the ending of the images or another one, or remove the image."
    problem = "the label map of this image is missing"
    return [_finding("error", files.images[0], problem, mend, "Without it, the image cannot be trained on.")]


def _bad(error: BadFile) -> Finding:
    return _finding("error", error.path, error.problem, error.mend, UNREADABLE)


def _finding(severity: Severity, path: Path, problem: str, mend: str, why: str) -> Finding:
    return Finding(severity=severity, where=f"{path.parent.name}/{path.name}", problem=problem, mend=mend, why=why)
