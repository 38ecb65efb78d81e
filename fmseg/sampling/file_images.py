"""The images of a plan, read from their files and prepared when asked for: what a store holds, without one.

For those who have no disk for a store: each image is decoded anew whenever it is drawn.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fmseg.errors import BadData, NotReady
from fmseg.imaging.case import Array, Geometry
from fmseg.imaging.measure import read_facts
from fmseg.imaging.prepare import prepare
from fmseg.imaging.readers import read_case
from fmseg.records.cases import CaseFiles, CaseNames, Chosen, unique_cases
from fmseg.records.dataset import Dataset
from fmseg.records.fingerprint import CaseFacts
from fmseg.records.plans import Plans, Preprocessing
from fmseg.sampling.case_journal import CaseJournal
from fmseg.sampling.store import store_folder


class _Kind(NamedTuple):
    """What decides whether an image can be prepared."""

    channels: int
    dtype: str
    has_spacing: bool


class FileImages:
    """The images of an unlabelled dataset under a plan; the same ones, in the same order, as in its store."""

    def __init__(self, dataset: Dataset, prepared: Path, plans: Plans) -> None:
        """Raises NotReady if files have changed since they were measured."""
        self.folder = store_folder(prepared, plans)
        self._preprocessing, self._reader = plans.preprocessing, plans.reader
        cases = unique_cases(dataset.training_cases())
        path = prepared / "cases.jsonl"
        journal = CaseJournal(path, cases, None, None)
        if len(journal.missing) or journal.num_stale:
            raise NotReady(f"{dataset.source}: images have changed. Run: fmseg plan_and_preprocess -d {dataset.name}")
        num_slices = [fact.shape[0] if self._is_usable(fact) else 0 for fact in read_facts(path)]
        slices = np.array(num_slices, np.int64)
        numbers = np.flatnonzero(slices)
        self._cases: Sequence[CaseFiles] = Chosen(cases, numbers)
        #: of the images through all cases: behind the last image of each case
        self._ends = np.cumsum(slices[numbers])
        self._last: tuple[int, Array] | None = None

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def image(self, index: int) -> Array:
        """Return image ``index``, (C, h, w), uint8 or float16. Raises BadData if its file cannot be read any more."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[number - 1]) if number else 0
        if self._last is None or self._last[0] != number:
            case = read_case(self._cases[number], self._reader)
            self._last = number, prepare(case.voxels, case.geometry, self._preprocessing)
        image: Array = self._last[1][index - first]
        return image

    def label(self, index: int) -> None:
        """Return None: unlabelled images have no label maps."""

    @property
    def case_names(self) -> Sequence[str]:
        """Names of the cases, in the order of the dataset."""
        return CaseNames(self._cases)

    @cached_property
    def cases(self) -> dict[str, range]:
        """Case name -> its images, in the order of the dataset."""
        starts = [0, *self._ends[:-1].tolist()]
        return {name: range(*ends) for name, *ends in zip(self.case_names, starts, self._ends.tolist(), strict=True)}

    def _is_usable(self, fact: CaseFacts) -> bool:
        if not fact.shape[0] or any(finding.severity == "error" for finding in fact.findings):
            return False
        return _can_be_prepared(_Kind(fact.channels, fact.dtype, fact.spacing_mm is not None), self._preprocessing)


@lru_cache
def _can_be_prepared(kind: _Kind, preprocessing: Preprocessing) -> bool:
    """Return whether an image of this kind fits the plan: tried on an empty one."""
    try:
        empty = np.zeros((kind.channels, 1, 8, 8), kind.dtype)
        prepare(empty, Geometry((1.0, 1.0, 1.0) if kind.has_spacing else None), preprocessing)
    except BadData:
        return False
    return True
