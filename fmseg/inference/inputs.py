"""A folder of new images as cases: channels grouped, each with the file that its prediction goes to."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fmseg.errors import UsageError
from fmseg.files import natural_key
from fmseg.records.cases import is_image_file, odd_entries
from fmseg.records.dataset import SPACINGS, CaseFiles, group_channels, visible_files
from fmseg.records.endings import image_endings, strip_ending
from fmseg.records.tables import read_spacings

#: endings that cannot hold label maps: JPEG and video change values, DICOM, which may have no ending, is not written
#: -> what is written instead
LOSSLESS_ENDING = {
    **dict.fromkeys((".jpg", ".jpeg"), ".png"),
    **dict.fromkeys((".dcm", ".dicom", "", ".mp4", ".avi"), ".nii.gz"),
}


@dataclass(frozen=True)
class Inputs:
    """What is to be predicted, and what in the folder cannot be."""

    cases: tuple[CaseFiles, ...]
    #: (file name, why)
    refused: tuple[tuple[str, str], ...]

    @cached_property
    def _shared(self) -> frozenset[str]:
        counts = Counter(case.name for case in self.cases)
        return frozenset(name for name, count in counts.items() if count > 1)

    def row_name(self, case: CaseFiles) -> str:
        """Return what a case is called in a table: its name, or its file where two endings have one name."""
        return case.images[0].name if case.name in self._shared else case.name


def output_name(case: CaseFiles) -> str:
    """Return the file name of a case's label map: the case's, with the ending of its image where that is lossless."""
    ending = _ending(case.images[0])
    return case.name + LOSSLESS_ENDING.get(ending.lower(), ending)


def find_inputs(place: Path, target: Callable[[CaseFiles], str] = output_name) -> Inputs:
    """Return the cases of a folder (its subfolders left out), or of a single file, in natural order.

    All endings may be mixed. ``a_0000.png`` is channel 0 of case ``a``; numbers that do not count from 0
    without a gap are no channels but part of the name. target: where a case's prediction goes, in words; of two
    that go to one place, where names that differ in case or accents are one, neither is predicted. Raises
    UsageError if there is no image.
    """
    if not place.exists():
        raise UsageError(f"{place}: there is no such folder. Type the folder of the images after -i.")
    files = [place] if place.is_file() else visible_files(place)
    images = [path for path in files if is_image_file(path)]
    if not images:
        below = "" if place.is_file() or not any(path.is_dir() for path in place.iterdir()) else " (it has subfolders)"
        raise UsageError(f"{place}: there is no image in it{below}. Images end in {', '.join(image_endings())}.")
    groups = [case for ending in sorted({_ending(path) for path in images}) for case in _grouped(images, ending)]
    outputs = Counter(_folded(target(case)) for case in groups)
    cases: list[CaseFiles] = []
    refused = [] if place.is_file() else [(name, f"{problem}.") for name, problem in odd_entries(place)]
    for case in sorted(groups, key=lambda case: natural_key(case.name)):
        count = outputs[_folded(target(case))]
        if count == 1:
            cases.append(case)
        else:
            problem = f"{count} cases would be written to {target(case)}. Rename one of them."
            refused += [(path.name, problem) for path in case.images]
    sizes = read_spacings((place.parent if place.is_file() else place) / SPACINGS)
    return Inputs(tuple(replace(case, spacing_mm=sizes.get(case.name)) for case in cases), tuple(refused))


def _folded(name: str) -> str:
    """Return a name as file systems see it that know no case, or write accents in one way."""
    return unicodedata.normalize("NFC", name).casefold()


def _grouped(images: Sequence[Path], ending: str) -> list[CaseFiles]:
    own = [path for path in images if _ending(path) == ending]
    cases, grouped = [], set()
    for name, files in group_channels(own, ending).items():
        numbers = [int(match[1]) for path in files if (match := re.search(r"_(\d{4})$", strip_ending(path.name)))]
        if numbers in ([], list(range(len(files)))):
            cases.append(CaseFiles(name, files, None))
            grouped |= set(files)
    # years and serial numbers that are no channels, and files whose case name another one took
    return cases + [CaseFiles(strip_ending(path.name), (path,), None) for path in own if path not in grouped]


def _ending(path: Path) -> str:
    return path.name[len(strip_ending(path.name)) :]
