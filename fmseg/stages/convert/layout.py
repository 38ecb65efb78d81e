"""What a layout is, and the dataset that it fills: images are placed, label maps written, nothing is lost unsaid."""

import csv
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmseg.errors import BadData
from fmseg.files import natural_key, write_json
from fmseg.imaging.case import Array, BadFile, Geometry
from fmseg.imaging.readers import read_case, write_label
from fmseg.records.cases import CaseFiles, is_junk
from fmseg.records.endings import strip_ending
from fmseg.registry import Registry

JUNK = "left there by an operating system"
NOT_OF_IT = "no file of this layout"
#: folders that archives wrap around what is in them
DEEPEST = 3

#: file, relative to the source, -> why it was left out
Skipped = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which others keep their images."""

    #: the dataset's name where the user gives none; None takes the source folder's
    title: str | None
    #: (source, new folder) -> what was left out; writes a whole raw dataset. Raises BadData for another layout
    bring: Callable[[Path, Path], Skipped]
    #: whether a source looks like it, from the names in it alone; None for layouts that must be asked for
    fits: Callable[[Path], bool] | None = None


layouts: Registry[Layout] = Registry("layout")


class NewDataset:
    """A raw dataset while it is made."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source, target
        #: of the source, as far as they became part of the dataset
        self.used: set[Path] = set()
        self.skipped: dict[str, str] = {}
        self.patients: dict[str, str] = {}
        self._classes: dict[str, dict[str, str]] = {"Tr": {}, "Ts": {}}
        self._images: dict[str, dict[str, Path]] = {"Tr": {}, "Ts": {}}
        (target / "imagesTr").mkdir()

    def add(
        self,
        case: str,
        image: Path,
        label: Array | Path | None = None,
        *,
        geometry: Geometry | None = None,
        patient: str = "",
        label_class: str = "",
        is_test: bool = False,
    ) -> None:
        """Place an image with its label map (an array (Z, Y, X), or a file that is right as it is) or its class.

        A case whose name is taken is left out, with its reason.
        """
        part = "Ts" if is_test else "Tr"
        if case in self._images["Tr"] or case in self._images["Ts"]:
            self.skip(image, f"another image is called {case} too")
            return
        place_file(image, self.target / f"images{part}" / f"{case}_0000{ending_of(image)}")
        if isinstance(label, Path):
            place_file(label, self.target / f"labels{part}" / f"{case}{ending_of(label)}")
            self.used.add(label)
        elif label is not None:
            geometry = geometry or Geometry(None, is_2d=len(label) == 1)
            is_flat = geometry.is_2d and geometry.spacing_mm is None
            write_label(label, geometry, self.target / f"labels{part}" / f"{case}{'.png' if is_flat else '.nii.gz'}")
        self.used.add(image)
        self._images[part][case] = image
        if label_class:
            self._classes[part][case] = label_class
        if patient:
            self.patients[case] = patient

    @property
    def cases(self) -> set[str]:
        """The names of all cases until now."""
        return {*self._images["Tr"], *self._images["Ts"]}

    def skip(self, path: Path, reason: str) -> None:
        """Note why a file is left out; the first reason stays."""
        self.skipped.setdefault(relative(path, self.source), reason)

    def finish(self, declaration: Mapping[str, Any], rest: str = NOT_OF_IT) -> Skipped:
        """Write dataset.json and the tables; return what was left out. rest: why files nobody spoke of were."""
        training = self._images["Tr"]
        endings = Counter(ending_of(path) for path in (*training.values(), *self._images["Ts"].values()))
        value = {"channel_names": {"0": "ultrasound"}, "numTraining": len(training)} | dict(declaration)
        value["file_ending"] = next(iter(endings)) if len(endings) == 1 else ""
        if len(endings) > 1:
            value["dataset"] = {case: self._entry(case, path) for case, path in training.items()}
        write_json(self.target / "dataset.json", value)
        if self.patients:
            write_table(self.target / "patients.csv", ("case", "patient"), self.patients.items())
        for part, classes in self._classes.items():
            if classes:
                write_table(self.target / f"labels{part}.csv", ("case", "label"), classes.items())
        return rest_of(self.source, self.used, rest) | self.skipped

    def _entry(self, case: str, image: Path) -> dict[str, Any]:
        """Return what the key ``dataset`` says of a case where endings are mixed."""
        labels = sorted((self.target / "labelsTr").glob(f"{_plain(case)}.*"))
        label = {"label": f"labelsTr/{labels[0].name}"} if labels else {}
        return {"images": [f"imagesTr/{case}_0000{ending_of(image)}"]} | label


def checked_size(image: Path, label: Array, drawn: Path) -> Geometry:
    """Return the geometry of an image after comparing sizes. Raises BadFile naming the label map ``drawn``."""
    case = read_case(CaseFiles(image.stem, (image,), None))
    if case.voxels.shape[1:] != label.shape:
        sizes = f"it is {label.shape}, its image {case.voxels.shape[1:]} (z, y, x)"
        raise BadFile(drawn, sizes, "Export it on the image's grid.")
    return case.geometry


def reason_of(error: BadData) -> str:
    """Return what was wrong with a file, without its folder."""
    return f"{error.path.name}: {error.problem}" if isinstance(error, BadFile) else str(error)


def folder_named(source: Path, *names: str) -> Path | None:
    """Return the folder, at most some levels down, that holds entries of all these names; None if there is none."""
    level = [source]
    for _ in range(DEEPEST):
        for folder in level:
            there = {path.name.lower() for path in folder.iterdir()} if folder.is_dir() else set()
            if there >= {name.lower() for name in names}:
                return folder
        level = [path for folder in level for path in files_in(folder) if path.is_dir()]
    return None


def need_folder(source: Path, *names: str) -> Path:
    """Return the folder that holds all these names. Raises BadData if there is none."""
    found = folder_named(source, *names)
    if found is None:
        raise BadData(f"{source}: {' and '.join(names)} are not there. Type the folder that holds them.")
    return found


def entry(folder: Path, name: str) -> Path:
    """Return an entry of a folder, whatever the case of its letters."""
    return next((path for path in files_in(folder) if path.name.lower() == name.lower()), folder / name)


def ending_of(path: Path) -> str:
    """Return the ending of an image file, with its dot; "" without one."""
    return path.name[len(strip_ending(path.name)) :]


def stem_of(path: Path) -> str:
    """Return the name of an image file without its ending, with accents written in one way."""
    return unicodedata.normalize("NFC", strip_ending(path.name))


def place_file(source: Path, target: Path) -> None:
    """Link a file, or copy it where a link is impossible (another disk, another owner)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def rest_of(source: Path, used: Iterable[Path], reason: str) -> dict[str, str]:
    """Return the files of the source that were not used, with the reason."""
    taken = set(used)
    return {
        relative(path, source): JUNK if is_junk(path.name) else reason
        for path in all_files(source)
        if path not in taken
    }


def all_files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder; links to folders are followed, each folder is visited once."""
    seen = {os.path.realpath(folder)}
    for root, folders, names in os.walk(folder, followlinks=True):
        yield from (Path(root, name) for name in names)
        fresh = {name: real for name in folders if (real := os.path.realpath(Path(root, name))) not in seen}
        folders[:] = sorted(fresh)
        seen |= set(fresh.values())


def files_in(folder: Path) -> list[Path]:
    """Return what lies in a folder, junk left out, in natural order; nothing if it is not there."""
    found = (path for path in folder.iterdir() if not is_junk(path.name)) if folder.is_dir() else ()
    return sorted(found, key=lambda path: natural_key(path.name))


def find_file(folder: Path, name: str) -> Path:
    """Return the path of a file that a table names; its accents may be written in another way on the disk."""
    ways = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return next((folder / way for way in ways if (folder / way).is_file()), folder / name)


def relative(path: Path, source: Path) -> str:
    """Return a path as it stands in the list of what was left out."""
    return str(path.relative_to(source)) if path.is_relative_to(source) else str(path)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Iterable[str]]) -> None:
    """Write a CSV."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _plain(case: str) -> str:
    """Return a name as glob takes it, letter by letter."""
    return re.sub(r"([*?[])", r"[\1]", case)
