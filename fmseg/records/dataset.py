"""A raw dataset as its owner declares it: nnU-Net v2's dataset.json, plus a few optional keys of ours.

Keys of nnU-Net: channel_names, labels (values, regions as lists, ``ignore``), numTraining, file_ending,
regions_class_order, overwrite_image_reader_writer, dataset. Ours: task, modality, group_regex, images. Other
keys (name, licence, description ...) are left alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fmseg.errors import BadData
from fmseg.files import natural_key
from fmseg.records.cases import (
    CaseFiles,
    group_channels,
    is_junk,
    visible_files,
    walk_images,
)
from fmseg.records.declaration import Declaration, Task, label_scheme, load_declaration
from fmseg.records.endings import image_endings, strip_ending
from fmseg.records.labels import ClassScheme, LabelScheme
from fmseg.records.sources import list_cases, listed_patients, modality_name
from fmseg.records.tables import read_classes, read_spacings, read_table, scheme_of_classes

__all__ = [
    "CaseFiles",
    "Dataset",
    "group_channels",
    "is_junk",
    "visible_files",
    "walk_images",
]

#: case -> pixel size, for files that have none, or a wrong one
SPACINGS = "spacings.csv"
#: of unlabelled images of which nobody says what they are
DEFAULT_MODALITY = "ultrasound"


@dataclass(frozen=True, slots=True)
class Dataset:
    """One raw dataset: its folder, its declaration, and where its files lie."""

    folder: Path
    declaration: Declaration

    @classmethod
    def load(cls, folder: Path) -> "Dataset":
        """Read ``folder/dataset.json``. Raises BadRecord naming the file and each wrong key."""
        return cls(folder, load_declaration(folder / "dataset.json"))

    @property
    def name(self) -> str:
        """The folder's name, ``DatasetNNN_Name``."""
        return self.folder.name

    @property
    def task(self) -> Task:
        """What is learned from this dataset."""
        return self.declaration.task

    @property
    def modality(self) -> str:
        """The name that foundation checkpoints of these images are filed under."""
        return modality_name(self.declaration.modality or self.declaration.channel_names["0"])

    @property
    def source(self) -> Path:
        """Where the images of an unlabelled dataset lie, or are listed."""
        return self.folder / (self.declaration.images or "imagesTr")

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels' names in order."""
        names = self.declaration.channel_names
        return tuple(names[key] for key in sorted(names, key=int))

    @property
    def file_ending(self) -> str:
        """The ending of images and label maps, with its dot."""
        return self.declaration.file_ending or ""

    @property
    def labels(self) -> LabelScheme:
        """What the label values mean."""
        return label_scheme(self.declaration)

    def training_cases(self) -> Sequence[CaseFiles]:
        """Return all cases of imagesTr (or of the ``dataset`` key, or of the unlabelled source), in order.

        A label map has its image's ending, or another one that is read (PNG or NIfTI for DICOM images). A case whose
        label map is missing has ``label=None``; for a labelled task that is the doctor's finding.
        """
        if self.task == "unlabelled" and self.declaration.dataset is None:
            return list_cases(self.source, self.modality)
        sizes = read_spacings(self.folder / SPACINGS)
        if self.declaration.dataset is not None:
            names = sorted(self.declaration.dataset, key=natural_key)
            return [replace(self._declared_case(name), spacing_mm=sizes.get(name)) for name in names]
        images = self._group_channels(self.folder / "imagesTr")
        labels = self.label_maps()
        return [CaseFiles(name, files, labels.get(name), sizes.get(name)) for name, files in images.items()]

    def orphan_labels(self) -> list[Path]:
        """Return the label maps of labelsTr that have no image."""
        if self.declaration.dataset is not None or self.task != "segmentation":
            return []
        names = {case.name for case in self.training_cases()}
        return [path for name, path in self.label_maps().items() if name not in names]

    def test_cases(self) -> list[CaseFiles]:
        """Return the cases of imagesTs, with their label maps in labelsTs; none if there is no such folder."""
        folder = self.folder / "imagesTs"
        if not folder.is_dir():
            return []
        labels, sizes = self.label_maps("labelsTs"), read_spacings(self.folder / SPACINGS)
        images = self._group_channels(folder)
        return [CaseFiles(name, files, labels.get(name), sizes.get(name)) for name, files in images.items()]

    def label_maps(self, part: str = "labelsTr") -> dict[str, Path]:
        """Return case -> label map of a folder; where a case has several, the one with the ending of the images."""
        folder = self.folder / part
        if not folder.is_dir():
            return {}
        found = [path for path in visible_files(folder) if path.name.lower().endswith(image_endings())]
        others = {strip_ending(path.name): path for path in found}
        if not self.file_ending:
            return others
        own = [path for path in visible_files(folder) if path.name.endswith(self.file_ending)]
        return others | {path.name[: len(path.name) - len(self.file_ending)]: path for path in own}

    def classes_of_cases(self) -> dict[str, str]:
        """Return case -> class, or classes with semicolons between them, from labelsTr.csv."""
        return read_classes(self.folder / "labelsTr.csv")

    @property
    def class_scheme(self) -> ClassScheme:
        """The classes that labelsTr.csv gives to images that are there."""
        there, labels = {case.name for case in self.training_cases()}, self.classes_of_cases()
        return scheme_of_classes({case: label for case, label in labels.items() if case in there})

    def patients_of_cases(self) -> Mapping[str, str]:
        """Return case -> patient from patients.csv, or from the table of an unlabelled set; empty without either."""
        path = self.folder / "patients.csv"
        if path.exists():
            return read_table(path, "case", "patient")
        return listed_patients(self.source, self.modality) if self.task == "unlabelled" else {}

    def centres_of_cases(self) -> Mapping[str, str]:
        """Return case -> centre from patients.csv. Raises BadData if it is not there or has no such column."""
        return read_table(self.folder / "patients.csv", "case", "centre")

    def _declared_case(self, name: str) -> CaseFiles:
        entry = (self.declaration.dataset or {})[name]
        label = self.folder / entry.label if entry.label else None
        return CaseFiles(name, tuple(self.folder / image for image in entry.images), label)

    def _group_channels(self, folder: Path) -> dict[str, tuple[Path, ...]]:
        if not folder.is_dir():
            raise BadData(f"{folder}: there is no such folder. Put the training images there.")
        return group_channels(visible_files(folder), self.file_ending)


def declare_unlabelled(source: Path) -> dict[str, Any]:
    """Return the dataset.json of images that are read where they lie."""
    return {"channel_names": {"0": DEFAULT_MODALITY}, "task": "unlabelled", "images": str(source)}
