"""Bring a public layout, a folder of images or an nnU-Net dataset into fmseg_raw.

The source is only read: files that need no change are hard-linked, or copied where they cannot be. A dataset
appears whole or not at all, and every file of the source is either in it or listed with the reason why not.
More layouts are added to the registry ``layouts``.
"""

import csv
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fmseg.console import track
from fmseg.errors import BadData, UsageError
from fmseg.files import locked, natural_key, read_json, sync_folder, write_json
from fmseg.imaging.case import Array, BadFile, Geometry
from fmseg.imaging.outlines import fill_outline
from fmseg.imaging.readers import read_case, read_label, write_label
from fmseg.records.dataset import CaseFiles, Dataset, declare_unlabelled, is_junk, walk_images
from fmseg.records.tables import read_table
from fmseg.registry import Registry
from fmseg.workspace import DATASET_NAME, Workspace, dataset_id, dataset_title

JUNK = "left there by an operating system"
HC18_TABLES = ("training_set_pixel_size_and_HC.csv", "test_set_pixel_size.csv")
PLANE_NAME = re.compile(r"(Patient\d+)_(Plane\d+)_.+")
#: in the numbering of FETAL_PLANES_DB
PLANES = {
    "Plane1": "other",
    "Plane2": "abdomen",
    "Plane3": "brain",
    "Plane4": "maternal cervix",
    "Plane5": "femur",
    "Plane6": "thorax",
}

#: file, relative to the source, -> why it was left out
Skipped = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which others keep their images."""

    #: the dataset's name where the user gives none; None takes the source folder's
    title: str | None
    #: (source, new folder) -> what was left out; writes a whole raw dataset. Raises BadData for another layout
    bring: Callable[[Path, Path], Skipped]


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a source folder."""

    dataset: str
    folder: Path
    task: str
    modality: str
    num_cases: int
    #: (file, why it was left out)
    skipped: tuple[tuple[str, str], ...]

    @property
    def exit_code(self) -> int:
        """5 if something was left out, else 0."""
        return 5 if self.skipped else 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"folder": str(self.folder), "exit_code": self.exit_code}


layouts: Registry[Layout] = Registry("layout")


def convert(
    workspace: Workspace,
    layout: str,
    source: Path,
    dataset_id: int,
    name: str | None = None,
    *,
    modality: str | None = None,
) -> Summary:
    """Make ``DatasetNNN_<name>`` of a folder in some layout, and return what is in it and what is not.

    modality: what the images are, where the layout does not say it or says it wrongly. Raises UsageError if there
    is a dataset of that number or name already, BadData if the source is not in that layout.
    """
    chosen = layouts[layout]
    if not source.is_dir():
        raise UsageError(f"{source}: there is no such folder. Type the folder of the original files.")
    source = source.resolve()
    folder = _free_folder(workspace, source, dataset_id, name or chosen.title or dataset_title(source.name))
    temporary = folder.with_name(f".{folder.name}.tmp")
    with locked(workspace.raw, "a conversion"):
        shutil.rmtree(temporary, ignore_errors=True)  # of a conversion that was killed
        temporary.mkdir()
        try:
            skipped = chosen.bring(source, temporary)
            if modality is not None:
                path = temporary / "dataset.json"
                write_json(path, read_json(path) | {"modality": modality})
            num_cases = _count_cases(Dataset.load(temporary), source, skipped)
            os.rename(temporary, folder)
            sync_folder(workspace.raw)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    dataset = Dataset.load(folder)
    listed = sorted(skipped.items(), key=lambda item: natural_key(item[0]))
    return Summary(dataset.name, folder, dataset.task, dataset.modality, num_cases, tuple(listed))


def _free_folder(workspace: Workspace, source: Path, number: int, title: str) -> Path:
    """Return the folder of the new dataset. Raises UsageError if its number or name is taken or impossible."""
    full = f"Dataset{number:03d}_{title}"
    if DATASET_NAME.fullmatch(full) is None or re.search(r"[^\w.-]", full):
        raise UsageError(f"'{full}' cannot be a dataset's name. Use a number from 1 on, letters, digits, - and _.")
    if workspace.raw.resolve().is_relative_to(source):
        raise UsageError(f"{source} holds the workspace itself. Work in another folder, or type --root.")
    taken = [other for other in workspace.dataset_names() if dataset_id(other) == number and other != full]
    if taken:
        raise UsageError(f"The number {number} belongs to {taken[0]} already. Choose another number.")
    folder = workspace.raw_dataset(full)
    if folder.exists():
        raise UsageError(f"{folder} is there already. Choose another number, or remove that folder first.")
    return folder


def _count_cases(dataset: Dataset, source: Path, skipped: Skipped) -> int:
    """Return the number of cases of a new dataset. Raises BadData if there is none, or if one lacks a file."""
    cases = dataset.training_cases()
    if not cases:
        first = next((f" The first file left out, {file}: {reason}." for file, reason in skipped.items()), "")
        raise BadData(f"{source}: there is no image of that layout in it.{first}")
    for case in cases:
        missing = [path for path in case.images if not path.exists()]
        if missing:
            raise BadData(f"{source}: dataset.json names {missing[0].name} for '{case.name}', which is not there.")
    return len(cases)


def _bring_hc18(source: Path, target: Path) -> Skipped:
    """Fetal heads: outlines become masks, exams become patients, pixel sizes are kept for measurements."""
    sizes: dict[str, str] = {}
    tables = [source / name for name in HC18_TABLES if (source / name).exists()]
    for table in tables:
        sizes |= read_table(table, "filename", "pixel size(mm)")
    if not tables:
        raise BadData(f"{source}: {HC18_TABLES[0]} is not there. Type the folder that holds it and training_set.")
    images = [path for path in _files(source / "training_set") if re.fullmatch(r"\d+_\d*HC\.png", path.name)]
    tests = [path for path in _files(source / "test_set") if re.fullmatch(r"\d+_\d*HC\.png", path.name)]
    skipped: dict[str, str] = {}
    cases = []
    (target / "imagesTr").mkdir()
    for image in track(images, "filling outlines", len(images)):
        outline = image.with_name(f"{image.stem}_Annotation.png")
        try:
            write_label(_filled(image, outline), Geometry(None, is_2d=True), target / "labelsTr" / image.name)
        except BadData as error:
            reason = f"{error.path.name}: {error.problem}" if isinstance(error, BadFile) else str(error)
            skipped |= {_relative(path, source): reason for path in (image, outline) if path.exists()}
            continue
        _place(image, target / "imagesTr" / f"{image.stem}_0000.png")
        cases.append(image.stem)
    for image in tests:
        _place(image, target / "imagesTs" / f"{image.stem}_0000.png")
    names = cases + [image.stem for image in tests]
    _write_table(target / "patients.csv", "case", "patient", ((case, case.split("_")[0]) for case in names))
    known = ((case, sizes[f"{case}.png"]) for case in names if f"{case}.png" in sizes)
    _write_table(target / "spacing.csv", "case", "spacing_mm", known)
    declaration = {
        "channel_names": {"0": "ultrasound"},
        "labels": {"background": 0, "head": 1},
        "numTraining": len(cases),
        "file_ending": ".png",
        "task": "segmentation",
        "reference": "https://doi.org/10.5281/zenodo.1327317",
        "licence": "CC BY 4.0",
    }
    write_json(target / "dataset.json", declaration)
    outlines = [image.with_name(f"{image.stem}_Annotation.png") for image in images]
    return _rest(source, {*tables, *images, *tests, *outlines}, "no image of HC18 or its outline") | skipped


def _filled(image: Path, outline: Path) -> Array:
    """Return the filled outline (1, Y, X) uint8. Raises BadData if it does not fit the image or is not closed."""
    voxels = read_case(CaseFiles(image.stem, (image,), None)).voxels
    line, _ = read_label(outline)
    if line.shape != voxels.shape[1:]:
        raise BadData(f"the outline is {line.shape[1:]} px, its image {voxels.shape[2:]} (height, width)")
    return fill_outline(line[0])[None].astype("uint8")


def _bring_fetal_planes(source: Path, target: Path) -> Skipped:
    """Planes of fetal ultrasound, named PatientNNNNN_PlaneK_...: the classes come from the names."""
    found = {path: match for path in walk_images(source) if (match := PLANE_NAME.fullmatch(path.stem))}
    endings = [path.suffix for path in found]
    ending = max(sorted(set(endings)), key=endings.count, default=".jpg")
    planes = {path: found[path] for path in sorted(found) if path.suffix == ending}
    (target / "imagesTr").mkdir()
    for path in track(planes, "linking", len(planes)):
        if (target / "imagesTr" / path.name).exists():
            raise BadData(f"{source}: there are two files called {path.name}. Keep one of them.")
        _place(path, target / "imagesTr" / path.name)
    classes = ((path.stem, PLANES.get(match[2], match[2])) for path, match in planes.items())
    _write_table(target / "labelsTr.csv", "case", "label", classes)
    _write_table(target / "patients.csv", "case", "patient", ((path.stem, match[1]) for path, match in planes.items()))
    declaration = {
        "channel_names": {"0": "ultrasound"},
        "numTraining": len(planes),
        "file_ending": ending,
        "task": "classification",
        "reference": "https://doi.org/10.5281/zenodo.3904280",
        "licence": "CC BY 4.0",
    }
    write_json(target / "dataset.json", declaration)
    return _rest(source, planes, f"no image called PatientNNNNN_PlaneK_...{ending}")


def _bring_images(source: Path, target: Path) -> Skipped:
    """Any folder tree of images without labels: read where they lie."""
    write_json(target / "dataset.json", declare_unlabelled(source))
    return _rest(source, walk_images(source), "not a kind of image that fmseg reads, or behind a link to a folder")


def _bring_nnunet(source: Path, target: Path) -> Skipped:
    """A raw dataset of nnU-Net v2, which is one of ours as it is."""
    Dataset.load(source).training_cases()  # refuses another layout before anything is linked
    files = [path for path in _all_files(source) if not is_junk(path.name)]
    for path in track(files, "linking", len(files)):
        _place(path, target / path.relative_to(source))
    return _rest(source, files, JUNK)


layouts.add("hc18", Layout("HC18", _bring_hc18))
layouts.add("fetal_planes", Layout("FetalPlanes", _bring_fetal_planes))
layouts.add("images", Layout(None, _bring_images))
layouts.add("nnunet", Layout(None, _bring_nnunet))


def _place(source: Path, target: Path) -> None:
    """Link a file, or copy it where a link is impossible (another disk, another owner)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _rest(source: Path, used: Iterable[Path], reason: str) -> dict[str, str]:
    """Return the files of the source that were not used, with the reason."""
    taken = set(used)
    return {
        _relative(path, source): JUNK if is_junk(path.name) else reason
        for path in _all_files(source)
        if path not in taken
    }


def _all_files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder; links to folders are followed, each folder is visited once."""
    seen = {os.path.realpath(folder)}
    for root, folders, names in os.walk(folder, followlinks=True):
        yield from (Path(root, name) for name in names)
        fresh = {name: real for name in folders if (real := os.path.realpath(Path(root, name))) not in seen}
        folders[:] = sorted(fresh)
        seen |= set(fresh.values())


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: natural_key(path.name)) if folder.is_dir() else []


def _relative(path: Path, source: Path) -> str:
    return str(path.relative_to(source))


def _write_table(path: Path, key: str, value: str, rows: Iterable[tuple[str, str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((key, value))
        writer.writerows(rows)
