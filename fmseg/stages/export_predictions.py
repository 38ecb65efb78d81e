"""Turn predicted label maps into what other programs open."""

import csv
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fmseg.console import track
from fmseg.errors import EnvironmentProblem, FmsegError, NotReady, UnknownName, UsageError
from fmseg.files import read_json, write_json
from fmseg.imaging.case import Geometry
from fmseg.imaging.readers import read_case, read_label
from fmseg.inference.inputs import find_inputs
from fmseg.inference.prediction_table import CARD
from fmseg.records.dataset import CaseFiles
from fmseg.records.labels import LabelScheme
from fmseg.registry import unknown
from fmseg.reporting.dicom_objects import write_dicom
from fmseg.reporting.label_formats import coco_annotations, coco_file, write_geojson, write_palette, write_slicer

logger = logging.getLogger(__name__)

TABLE, COCO = "report.csv", "coco.json"


@dataclass(slots=True)
class Written:
    """What was written."""

    num_files: int = 0
    #: (case, why it is no segmentation, or why nothing was written)
    notes: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """5 if a case could not be written, else 0."""
        return 5 if self.failed else 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"exit_code": self.exit_code}


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    #: (Z, Y, X)
    labels: np.ndarray
    geometry: Geometry
    scheme: LabelScheme
    #: in the folder that is written to, without an ending
    target: Path
    #: None without a folder of images
    image: CaseFiles | None


def export_predictions(
    predictions: Path, form: str, output: Path, *, images: Path | None = None, overwrite: bool = False
) -> Written:
    """Write every label map of a folder that ``predict`` has made in another format.

    form: dicom, nrrd, png, geojson or coco. images: the folder that was predicted; dicom needs it. Raises UnknownName
    for a form, NotReady for a folder without predict.json, UsageError if there are files already.
    """
    if form not in (*WRITERS, "coco"):
        raise UnknownName(unknown("format of predictions", form, [*WRITERS, "coco"]))
    if form == "dicom" and images is None:
        raise UsageError("A DICOM segmentation refers to its source. Type the folder of the images: --images in")
    if output.exists() and any(output.iterdir()) and not overwrite:
        raise UsageError(f"{output} is not empty. Type another folder after -o, or --overwrite.")
    if output.resolve() in (predictions.resolve(), images.resolve() if images else None):
        raise UsageError(f"{output}: type another folder after -o than that of the predictions or images.")
    scheme = _scheme(predictions)
    files = _files(predictions)
    sources = {case.name: case for case in find_inputs(images).cases} if images else {}
    written = Written()
    coco: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for name, file in track(files.items(), "export", len(files)):
        try:
            labels, geometry = read_label(predictions / file)
            case = _Case(name, labels, geometry, scheme, output / name, sources.get(name))
            if form == "coco":
                _add_to_coco(case, *coco)
                continue
            paths, note = WRITERS[form](case)
        except EnvironmentProblem:
            raise
        except FmsegError as error:
            written.failed.append((name, str(error)))
            continue
        written.num_files += len(paths)
        if note:
            written.notes.append((name, note))
    if form == "coco":
        write_json(output / COCO, coco_file(*coco, scheme))
        written.num_files += 1
    return written


def _scheme(predictions: Path) -> LabelScheme:
    path = predictions / CARD
    if not path.exists():
        raise NotReady(f"{predictions} holds no {CARD}, so fmseg has not predicted it. Make it with: fmseg predict")
    value = read_json(path)
    if "labels" not in value:
        raise NotReady(f"{path} was written by an older fmseg. Type the same fmseg predict again: all is kept.")
    if "painted" not in value["labels"]:
        raise UsageError(f"{predictions} holds classes of whole images, of which there is nothing to draw.")
    return LabelScheme.parse(value["labels"], str(path))


def _files(predictions: Path) -> dict[str, str]:
    """Return case -> file of the label maps that are there."""
    with open(predictions / TABLE, newline="", encoding="utf-8") as table:
        return {row["case"]: row["file"] for row in csv.DictReader(table) if row["file"]}


def _slices(case: _Case) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the label map (Y, X) of each slice; a 2D image keeps its name."""
    for z, plane in enumerate(case.labels):
        yield case.name if len(case.labels) == 1 else f"{case.name}_z{z:04d}", plane


def _dicom(case: _Case) -> tuple[list[Path], str]:
    if case.image is None or not case.image.images[0].name.lower().endswith((".dcm", ".dicom")):
        raise UsageError(f"{case.name}: there is no DICOM image of this name. Write another format for it.")
    voxels = read_case(case.image, "dicom").voxels  # (C, Z, Y, X)
    low, high = float(voxels.min()), float(voxels.max())
    if voxels.dtype != np.uint8:
        voxels = ((voxels - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    shown = np.moveaxis(voxels, 0, -1) if len(voxels) == 3 else voxels[0]
    return write_dicom(case.labels, shown, case.scheme, case.image.images[0], case.target)


def _nrrd(case: _Case) -> tuple[list[Path], str]:
    path = case.target.with_name(f"{case.name}.seg.nrrd")
    write_slicer(case.labels, case.geometry, case.scheme, path)
    return [path], ""


def _png(case: _Case) -> tuple[list[Path], str]:
    paths = []
    for name, plane in _slices(case):
        paths.append(case.target.with_name(f"{name}.png"))
        write_palette(plane, paths[-1])
    return paths, ""


def _geojson(case: _Case) -> tuple[list[Path], str]:
    path = case.target.with_name(f"{case.name}.geojson")
    write_geojson(case.labels, case.scheme, path)
    return [path], ""


def _add_to_coco(case: _Case, images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> None:
    for name, plane in _slices(case):
        height, width = plane.shape
        file = case.image.images[0].name if case.image and len(case.labels) == 1 else f"{name}.png"
        number = len(images) + 1
        images.append({"id": number, "file_name": file, "height": height, "width": width})
        annotations += [{"image_id": number, **each} for each in coco_annotations(plane, case.scheme)]


WRITERS: dict[str, Callable[[_Case], tuple[list[Path], str]]] = {
    "dicom": _dicom,
    "geojson": _geojson,
    "nrrd": _nrrd,
    "png": _png,
}
