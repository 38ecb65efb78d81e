"""Cases as files: what belongs to one, which files are images, and sequences of millions that stay small."""

import hashlib
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

import numpy as np

from fmseg.files import natural_key
from fmseg.records.endings import image_endings, strip_ending

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: names without an ending that DICOM files go by: IM000001, 1.2.840.113619.2.1, US.1.2.840.113619.2.1
BARE_NAME = re.compile(r"[^.]+|(?:[A-Za-z]{2,3}\.)?\d+(?:\.\d+)+")
#: a directory of other files, itself without pixels
DICOM_DIRECTORY = "DICOMDIR"
DICOM_MARK, DICOM_MARK_AT = b"DICM", 128
#: folders of an nnU-Net dataset that hold label maps, or what models are tested on
NOT_PRETRAINED_ON = ("imagesTs", "labelsTr", "labelsTs")
#: folders that are listed, or files that are looked up, at the same time: what network disks are slow at is waiting
THREADS = 16


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """The files of one case: one image file per channel (or one RGB file), and its label map if it has one."""

    name: str
    images: tuple[Path, ...]
    label: Path | None
    #: (y, x) from spacings.csv; None leaves what the file says
    spacing_mm: tuple[float, float] | None = None


class Chosen(Sequence[T]):
    """Some items of a sequence, by their numbers, without a copy of any."""

    def __init__(self, items: Sequence[T], numbers: np.ndarray) -> None:
        self.items, self.numbers = items, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self.items[number] for number in self.numbers[index].tolist()]
        return self.items[int(self.numbers[index])]


class UnlabelledCases(Sequence[CaseFiles]):
    """Images named by their paths below a root: one string each, and no more until one is asked for."""

    def __init__(self, root: Path, paths: list[str]) -> None:
        self.root, self.paths = root, paths

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> CaseFiles: ...
    @overload
    def __getitem__(self, index: slice) -> list[CaseFiles]: ...
    def __getitem__(self, index: int | slice) -> CaseFiles | list[CaseFiles]:
        if isinstance(index, slice):
            return [self._case(path) for path in self.paths[index]]
        return self._case(self.paths[index])

    def _case(self, path: str) -> CaseFiles:
        return CaseFiles(case_name(path, self.root), (self.root / path,), None)


class CaseTable(Mapping[str, str]):
    """Case -> text for millions of cases, with a key of 8 bytes for each name."""

    def __init__(self, rows: Iterable[tuple[str, str]]) -> None:
        texts: dict[str, str] = {}
        keys, values = [], []
        for name, text in rows:
            keys.append(key_of(name))
            values.append(texts.setdefault(text, text))
        found = np.array(keys, np.uint64)
        self._order = np.argsort(found, kind="stable")
        self._keys, self._values = found[self._order], values

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        raise TypeError("A table of millions keeps no names; ask for those that you have.")

    def __getitem__(self, name: str) -> str:
        key = np.uint64(key_of(name))
        place = int(np.searchsorted(self._keys, key))
        if place == len(self._keys) or self._keys[place] != key:
            raise KeyError(name)
        return self._values[self._order[place]]


class CaseNames(Sequence[str]):
    """The names of cases, made when asked for."""

    def __init__(self, cases: Sequence[CaseFiles]) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return len(self.cases)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [case.name for case in self.cases[index]]
        return self.cases[index].name


def key_of(text: str) -> int:
    """Return 64 bits of a text: two of two million texts share them once in ten million times."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "little")


def unique_cases(cases: Sequence[CaseFiles]) -> Sequence[CaseFiles]:
    """Return the first case of each name, in order."""
    keys = np.fromiter((key_of(name) for name in CaseNames(cases)), np.uint64, len(cases))
    first = np.sort(np.unique(keys, return_index=True)[1])
    return cases if len(first) == len(cases) else Chosen(cases, first)


def case_name(path: str, root: Path) -> str:
    """Return the name of an image by its path, which may be relative to ``root``."""
    relative = os.path.relpath(path, root) if os.path.isabs(path) else os.path.normpath(path)
    return strip_ending(relative)


def list_images(folder: Path) -> list[str]:
    """Return the image files below a folder, relative to it, in natural order; links to folders are not followed.

    The order depends on the names alone, not on that of the file system.
    """
    found: list[str] = []
    with ThreadPoolExecutor(THREADS) as pool:
        level = [""]
        while level:
            below: list[str] = []
            for folders, images in pool.map(lambda place: _list_folder(folder, place), level):
                below += folders
                found += images
            level = below
    found.sort()  # names with equal keys, such as 1 and 01
    found.sort(key=compact_key)
    return found


def walk_images(folder: Path) -> Iterator[Path]:
    """Yield the image files below a folder, as ``list_images`` finds them; none below a file, such as a table."""
    return (folder / path for path in ([] if folder.is_file() else list_images(folder)))


def _list_folder(root: Path, place: str) -> tuple[list[str], list[str]]:
    """Return the folders and the images in one folder, both relative to ``root``."""
    folders, images = [], []
    try:
        with os.scandir(root / place) as entries:
            for entry in entries:
                if is_junk(entry.name) or entry.name in NOT_PRETRAINED_ON:
                    continue
                if not is_text(entry.name):
                    logger.warning("%r is left out: its name is not valid UTF-8. Rename it.", entry.path)
                    continue
                path = f"{place}/{entry.name}" if place else entry.name
                if entry.is_dir():
                    if not entry.is_symlink():
                        folders.append(path)
                elif entry.name.lower().endswith(image_endings()) or is_bare_dicom(Path(entry.path)):
                    images.append(path)
    except OSError as error:
        logger.warning("%s is left out: it cannot be listed (%s)", root / place, error.strerror)
    return folders, images


def is_image_file(path: Path) -> bool:
    """Return whether a file is an image by its ending, or DICOM without one."""
    return path.name.lower().endswith(image_endings()) or is_bare_dicom(path)


def is_bare_dicom(path: Path) -> bool:
    """Return whether a file whose name has no ending is DICOM, by the mark in it; others are not opened."""
    if not BARE_NAME.fullmatch(path.name) or path.name.upper() == DICOM_DIRECTORY or not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            file.seek(DICOM_MARK_AT)
            return file.read(len(DICOM_MARK)) == DICOM_MARK
    except OSError:
        return False


def is_text(name: str) -> bool:
    """Return whether a file name is valid UTF-8, so that it can be printed and written down."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def compact_key(text: str) -> str:
    """Return a sort key in one string that orders as ``natural_key`` does."""
    return re.sub(r"\d+", _number_key, text)


def _number_key(match: re.Match[str]) -> str:
    digits = str(int(match[0]))
    # below every letter, then by the number of digits
    return f"\0{chr(len(digits))}{digits}"


def visible_files(folder: Path) -> list[Path]:
    """Return the files of a folder in natural order.

    Junk such as .DS_Store, ._x and Thumbs.db is left out, and so are names that are no text.
    """
    found = [path for path in folder.iterdir() if path.is_file() and not is_junk(path.name) and is_text(path.name)]
    return sorted(found, key=lambda path: natural_key(path.name))


def odd_entries(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and problem of what has an image's name in a folder and is no file, or has no name that is text."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if is_junk(entry.name):
            continue
        if not is_text(entry.name):
            yield os.fsencode(entry.name).decode(errors="backslashreplace"), "its name is not valid UTF-8"
        elif entry.name.lower().endswith(image_endings()):
            problem = _no_file(Path(entry.path))
            if problem:
                yield entry.name, problem


def _no_file(path: Path) -> str:
    """Return why a path is no file; an empty text if it is one."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "this link leads nowhere"
    if stat.S_ISDIR(mode):
        return "this is a folder, though its name is that of an image"
    return "" if stat.S_ISREG(mode) else "this is no file, but a pipe or a device"


def is_junk(name: str) -> bool:
    """Return whether a file is an operating system's leftover."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def group_channels(paths: list[Path], ending: str) -> dict[str, tuple[Path, ...]]:
    """Return case -> files in channel order, from names as ``case_0000.png``; a name without suffix is a case."""
    cases: dict[str, dict[int, Path]] = {}
    for path in paths:
        if not path.name.endswith(ending):
            continue
        stem = path.name[: -len(ending)] if ending else strip_ending(path.name)
        match = re.fullmatch(r"(.+)_(\d{4})", stem, re.DOTALL)
        name, channel = (match[1], int(match[2])) if match else (stem, 0)
        cases.setdefault(name, {})[channel] = path
    return {name: tuple(files[key] for key in sorted(files)) for name, files in cases.items()}
