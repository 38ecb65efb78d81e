"""What is looked at: a dataset with its out-of-fold predictions, or a folder of images with a folder of predictions.

A source lists its cases once, in one line each, and reads a case's files only when it is shown.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from fmseg.files import natural_key, read_json
from fmseg.imaging.readers import read_case, read_label
from fmseg.inference.inputs import find_inputs, output_name
from fmseg.inference.outcome import Outcome
from fmseg.records.dataset import CaseFiles, Dataset
from fmseg.records.fingerprint import Finding
from fmseg.records.labels import LabelScheme
from fmseg.records.scores import CaseScore, ClassificationScores, Scores
from fmseg.records.tables import read_rows
from fmseg.reporting.overlays import colour_of
from fmseg.workspace import Workspace

Layer = Literal["label", "prediction", "doubt"]
MARKS = "marks.csv"
#: columns of a table of predictions that are shown beside a case
SHOWN_COLUMNS = ("confidence", "disagreement", "seen", "note")


class Volume(NamedTuple):
    """What there is to show of one case, slice by slice."""

    #: (C, Z, Y, X)
    voxels: np.ndarray
    #: name -> (Z, Y, X): label values of "label" and "prediction", 0 to 255 of "doubt"
    layers: Mapping[Layer, np.ndarray]


class Source(ABC):
    """Cases that can be listed and shown."""

    title: str
    #: where marks are kept
    marks: Path

    @property
    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a case: ``case``, and what is known of it."""

    @abstractmethod
    def volume(self, case: str) -> Volume:
        """Read one case. Raises BadFile naming what cannot be read."""

    @property
    def classes(self) -> list[dict[str, str]]:
        """Names and colours of what is drawn."""
        return []

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Case -> its row."""
        return {row["case"]: number for number, row in enumerate(self.rows)}


class DatasetSource(Source):
    """A dataset: its images and labels, and what the chosen models said of each case out of fold."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.title = name
        self.marks = workspace.results_of(name) / MARKS
        self._dataset = Dataset.load(workspace.raw_dataset(name))
        self._cases = {case.name: case for case in self._dataset.training_cases()}
        self._outcome = Outcome.load(workspace.results_of(name))
        self._doctor = workspace.prepared(name) / "doctor.json"

    @property
    def classes(self) -> list[dict[str, str]]:
        """Names and colours of the labels, or the classes of whole cases."""
        if self._dataset.task == "segmentation":
            return _legend(self._dataset.labels)
        return []

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a case: fold, score, classes, what the doctor found."""
        found: dict[str, dict[str, Any]] = {name: {"case": name} for name in self._cases}
        for case, fold in self._outcome.fold_of.items():
            found.get(case, {})["fold"] = fold
        if self._dataset.task == "classification":
            for case, label in self._dataset.classes_of_cases().items():
                found.get(case, {})["label"] = label
        for case, values in _scored(self._outcome).items():
            found.get(case, {}).update(values)
        for case, problems in _problems(self._doctor, self._cases).items():
            found[case]["finding"] = "; ".join(problems)
        return list(found.values())

    def volume(self, case: str) -> Volume:
        """Read image and label, and decode the out-of-fold prediction where there is one."""
        files = self._cases[case]
        voxels = read_case(files, self._dataset.declaration.overwrite_image_reader_writer).voxels
        layers: dict[Layer, np.ndarray] = {}
        if self._dataset.task != "segmentation":
            return Volume(voxels, layers)
        if files.label is not None and files.label.exists():
            layers["label"] = read_label(files.label)[0]
        if case in self._outcome.fold_of:
            probabilities = self._outcome.probabilities(case)
            depth, height, width = voxels.shape[1:]
            layers["prediction"] = self._outcome.label_map(probabilities, (depth, height, width))
            layers["doubt"] = _doubt(probabilities, self._outcome.scheme)
        return Volume(voxels, _fitting(layers, voxels.shape[1:]))


class FolderSource(Source):
    """A folder of images, and what ``predict`` wrote for them."""

    def __init__(self, images: Path, predictions: Path | None) -> None:
        self.title = images.name if predictions is None else f"{images.name} with {predictions.name}"
        self.marks = (predictions or images) / MARKS
        self._predictions = predictions
        self._cases = {case.name: case for case in find_inputs(images, output_name).cases}

    @property
    def classes(self) -> list[dict[str, str]]:
        """Names and colours of what report.csv has shares of."""
        table = self._predictions / "report.csv" if self._predictions else None
        if table is None or not table.exists():
            return []
        columns = next((tuple(row) for _, row in read_rows(table, ("case",))), ())
        names = [name.removeprefix("share_") for name in columns if name.startswith("share_")]
        return [{"name": name, "colour": _css(value)} for value, name in enumerate(names, start=1)]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a case: what the table of predictions says of it."""
        found: dict[str, dict[str, Any]] = {name: {"case": name} for name in self._cases}
        for table in ("report.csv", "predictions.csv"):
            path = self._predictions / table if self._predictions else None
            if path is None or not path.exists():
                continue
            for _, line in read_rows(path, ("case",)):
                found.get(line["case"], {}).update(_cells(line))
        return [found[name] for name in sorted(found, key=natural_key)]

    def volume(self, case: str) -> Volume:
        """Read image and predicted label map."""
        files = self._cases[case]
        voxels = read_case(files).voxels
        layers: dict[Layer, np.ndarray] = {}
        path = self._predictions / output_name(files) if self._predictions else None
        if path is not None and path.exists():
            layers["prediction"] = read_label(path)[0]
        return Volume(voxels, _fitting(layers, voxels.shape[1:]))


def dataset_source(workspace: Workspace, name: str) -> Source:
    """Return a dataset to look at."""
    return DatasetSource(workspace, name)


def folder_source(images: Path, predictions: Path | None) -> Source:
    """Return a folder of images to look at."""
    return FolderSource(images, predictions)


def _scored(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Return case -> score, or what it was taken for."""
    if isinstance(outcome.pooled, Scores):
        return {case.case: {"score": case.mean_dice, "shows": _shown(case)} for case in outcome.pooled.cases}
    tables = [outcome.pooled] if outcome.pooled is not None else [fold.scores for fold in outcome.chosen]
    return {
        case.case: {
            "predicted": case.predicted,
            "confidence": case.confidence,
            "score": float(case.label == case.predicted),
        }
        for scores in tables
        if isinstance(scores, ClassificationScores)
        for case in scores.cases
    }


def _shown(case: CaseScore) -> list[str]:
    """Return the classes of a case's label, and those that were predicted."""
    return [name for name, score in case.classes.items() if score.tp + score.fn + score.fp]


def _problems(path: Path, cases: Mapping[str, CaseFiles]) -> dict[str, list[str]]:
    """Return case -> what the doctor found of it, by the case or the file that a finding names."""
    if not path.exists():
        return {}
    names = {file.name: name for name, case in cases.items() for file in (*case.images, *_present(case.label))}
    found: dict[str, list[str]] = {}
    for value in read_json(path):
        finding = Finding.parse(value, str(path))
        place = finding.where if finding.where in cases else names.get(Path(finding.where).name)
        for case in dict.fromkeys((*finding.cases, place)):
            if case is not None and case in cases:
                found.setdefault(case, []).append(f"{finding.severity}: {finding.problem}")
    return found


def _present(path: Path | None) -> tuple[Path, ...]:
    return () if path is None else (path,)


def _cells(line: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {key: line[key] for key in (*SHOWN_COLUMNS, "predicted") if line.get(key)}
    for key in ("confidence", "disagreement"):
        if key in found:
            found[key] = float(found[key])
    shares = {key.removeprefix("share_"): value for key, value in line.items() if key.startswith("share_")}
    if shares:
        found["shows"] = [name for name, share in shares.items() if share and float(share) > 0]
    return found


def _doubt(probabilities: np.ndarray, scheme: LabelScheme) -> np.ndarray:
    """Return how unsure the models are, (Z, h, w) uint8: 0 sure, 255 as far between two answers as can be."""
    if scheme.has_regions:
        unsure = 1 - np.abs(2 * probabilities - 1).min(axis=0)
    else:
        ordered = np.sort(probabilities, axis=0)
        unsure = 1 - (ordered[-1] - ordered[-2])
    return np.rint(255 * np.clip(unsure, 0, 1)).astype(np.uint8)


def _fitting(layers: dict[Layer, np.ndarray], shape: Sequence[int]) -> dict[Layer, np.ndarray]:
    """Return the layers that belong to these slices; the browser stretches what is coarser than the image."""
    return {name: values for name, values in layers.items() if len(values) == shape[0]}


def _legend(scheme: LabelScheme) -> list[dict[str, str]]:
    return [{"name": name, "colour": _css(value)} for name, value in zip(scheme.names, scheme.painted, strict=True)]


def _css(value: int) -> str:
    return "rgb({}, {}, {})".format(*colour_of(value))
