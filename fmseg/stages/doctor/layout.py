"""What lies in the folders of a dataset: files that nothing reads, label maps without image, names that clash."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fmseg.imaging.masks import are_lines
from fmseg.imaging.survey import finding, listed
from fmseg.records.cases import CaseNames, key_of, odd_entries
from fmseg.records.dataset import Dataset, visible_files
from fmseg.records.declaration import free_number
from fmseg.records.endings import image_endings, strip_ending
from fmseg.records.fingerprint import CaseFacts, Finding, Severity

NOT_READ = "It is left out, and nobody may notice."
WITHOUT_IMAGE = "this label map has no image"
ORPHAN = "An image was lost, or its name is written in another way."
MIXED_UP = "One channel would be taken for another."
LABELS = "labelsTr"


def layout(dataset: Dataset) -> list[Finding]:
    """Find what is in the folders of a labelled dataset and belongs to no case."""
    if dataset.task == "unlabelled":
        return []
    found: list[Finding] = []
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        folder = dataset.folder / part
        if folder.is_dir():
            found += _strays(folder, dataset)
        elif folder.exists():
            mend = f"Rename it, and put the files into a folder called {part}."
            found.append(finding("error", part, "this is a file, and must be a folder", mend, NOT_READ))
    if not (dataset.folder / "imagesTr").is_dir():
        return found
    found += _channel_numbers(dataset)
    if dataset.task == "classification" and (dataset.folder / LABELS).is_dir():
        problem, mend = (
            "nothing reads label maps: 'task' is classification",
            "Write segmentation, or remove the folder.",
        )
        found.append(finding("warning", LABELS, problem, mend, "Someone may count on them."))
    if dataset.declaration.dataset is None and dataset.task == "segmentation":
        found += _double_labels(dataset.folder / LABELS)
        found += _masks(dataset)
        for path in dataset.orphan_labels():
            mend = "Add its image to imagesTr, or remove it."
            found.append(finding("error", f"{LABELS}/{path.name}", WITHOUT_IMAGE, mend, ORPHAN, (), "remove"))
    return found


def names(dataset: Dataset) -> Iterator[Finding]:
    """Find case names that some file system takes for one."""
    cases_of = dataset.training_cases()
    folded = (unicodedata.normalize("NFC", name).casefold() for name in CaseNames(cases_of))
    keys = np.fromiter(map(key_of, folded), np.uint64, len(cases_of))
    _, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    alike = defaultdict(list)
    for number in np.flatnonzero(counts[group] > 1).tolist():
        alike[int(group[number])].append(cases_of[number])
    for cases in alike.values():
        own = sorted({case.name for case in cases})
        if len(own) > 1:
            problem = f"the case names {listed(own)} differ only in case or accents"
            mend = "Rename all but one: some file systems take them for one."
            yield finding("error", own[0], problem, mend, "On such a disk one file overwrites the other.", own)
        elif len(cases) > 1:
            files = listed([path.name for case in cases for path in case.images])
            problem = f"{files} give one case name; only the first is used"
            yield finding("warning", own[0], problem, "Rename them.", NOT_READ, own)


def outlined(dataset: Dataset, facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Find label maps that are drawn as lines around what they mean."""
    flat = {fact.case for fact in facts if fact.label_counts and fact.shape[0] == 1}
    paths = [case.label for case in dataset.training_cases() if case.name in flat and case.label is not None]
    if paths and are_lines(paths, [value for value in dataset.labels.declared if value]):
        problem = "the label maps are thin lines around something"
        mend = f"If what lies within them is meant, fill them, into a new dataset: fmseg convert masks {dataset.folder}"
        why = "A network would learn to draw the line, which hardly covers anything."
        yield finding("warning", LABELS, problem, f"{mend} -d {free_number(dataset.folder.parent)}", why)


def _strays(folder: Path, dataset: Dataset) -> Iterator[Finding]:
    """Find what bears the name of an image and is none, and files that nothing reads."""
    for name, problem in odd_entries(folder):
        # a name that is no text can neither be told nor written down
        severity: Severity = "error" if "UTF-8" in problem else "warning"
        mend = "Rename it." if severity == "error" else "Replace it by the file itself."
        yield finding(severity, f"{folder.name}/{name}", problem, mend, NOT_READ)
    used, others = _files_of_cases(folder, dataset), []
    for path in visible_files(folder):
        if not path.name.lower().endswith(image_endings()):
            others.append(path.name)
        elif path.name not in used:
            problem = f"nothing reads this file: 'file_ending' is {dataset.file_ending}"
            if path.name.endswith(dataset.file_ending):
                problem = "nothing reads this file: another one has its case and channel"
            yield finding("warning", f"{folder.name}/{path.name}", problem, "Convert it, or remove it.", NOT_READ)
    if others:
        problem = f"{len(others)} files are no images and are left alone: {listed(others)}"
        yield finding("note", folder.name, problem, "Nothing to do.", "They may be notes or junk.")


def _files_of_cases(folder: Path, dataset: Dataset) -> set[str]:
    """Return the names of the files in a folder that are read."""
    found = {path.name for path in visible_files(folder)}
    if folder.name.startswith("labels") or dataset.declaration.dataset is not None:
        return found  # label maps of any ending are, or are orphans
    if folder.name == "imagesTr":
        return {path.name for case in dataset.training_cases() for path in case.images}
    return {name for name in found if name.endswith(dataset.file_ending)}


def _channel_numbers(dataset: Dataset) -> Iterator[Finding]:
    """Find cases whose channels are not numbered 0000, 0001 ..."""
    if dataset.declaration.dataset is not None:
        return
    for case in dataset.training_cases():
        numbers = [match[1] for path in case.images if (match := re.search(r"_(\d{4})$", strip_ending(path.name)))]
        if len(numbers) > 1 and numbers != [f"{index:04d}" for index in range(len(numbers))]:
            problem = f"its channels are numbered {', '.join(numbers)}"
            mend = "Number them from 0000 on without a gap, in the order of 'channel_names'."
            yield finding("error", case.name, problem, mend, MIXED_UP, [case.name], "leave_out")


def _masks(dataset: Dataset) -> Iterator[Finding]:
    """Find what looks like masks of these images that are named, or lie, otherwise than label maps do."""
    cases = {case.name: case for case in dataset.training_cases()}
    stems = {path.name: strip_ending(path.name) for path in dataset.orphan_labels()}
    words = [
        name
        for name, stem in stems.items()
        if any(stem[: match.start()] in cases for match in re.finditer(r"[ _.-]", stem))
    ]
    folder = dataset.folder / LABELS
    below = [f"{path.name}/" for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    if words or below:
        problem = f"beside label maps, which have the names of their images, there are {listed(sorted(below) or words)}"
        command = f"fmseg convert masks {dataset.folder} -d {free_number(dataset.folder.parent)}"
        mend = f"If they are masks of these images, make label maps of them, in a new dataset: {command}"
        severity: Severity = "error" if any(case.label is None for case in cases.values()) else "warning"
        yield finding(severity, LABELS, problem, mend, "An image without a label map cannot be trained on.")


def _double_labels(folder: Path) -> Iterator[Finding]:
    """Find cases with several label maps."""
    if not folder.is_dir():
        return
    files = defaultdict(list)
    for path in visible_files(folder):
        if path.name.lower().endswith(image_endings()):
            files[strip_ending(path.name)].append(path.name)
    for case, found in files.items():
        if len(found) > 1:
            problem = f"there are two label maps of one case: {listed(found)}"
            mend = "Keep one of them; that with the ending of the images is used."
            yield finding("warning", f"{LABELS}/{found[0]}", problem, mend, "They may differ.", [case])
