"""What classification brings to predicting: predictions.csv, with the probability of each class."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from fmseg.errors import UsageError
from fmseg.imaging.case import Case, content_hash
from fmseg.inference.cases import Failure
from fmseg.inference.classes import ClassPredictor, Verdict
from fmseg.inference.exposure import Exposure
from fmseg.inference.members import Member
from fmseg.inference.prediction_table import CaseTable, class_cells, class_columns
from fmseg.inference.trained import Chosen
from fmseg.inference.unlike import UNLIKE, unlike
from fmseg.records.dataset import CaseFiles

TABLE = "predictions.csv"


class ClassWriter:
    """Writes a line of predictions.csv for each case, and nothing else."""

    def __init__(
        self,
        members: Sequence[Member],
        chosen: Chosen,
        folder: Path,
        exposure: Exposure,
        *,
        mirror: bool,
        overlays: bool,
    ) -> None:
        if overlays:
            raise UsageError("Classes of whole images have no outlines to draw. Leave --overlays out.")
        self.predictor = ClassPredictor(members, temperature=chosen.temperature, mirror=mirror)
        self.folder = folder
        self.exposure = exposure
        self.table = CaseTable(folder / TABLE, class_columns(self.predictor.scheme.names))

    @staticmethod
    def target(case: CaseFiles) -> str:
        """Return where the prediction of a case goes, in words."""
        return f"the line '{case.name}' of {TABLE}"

    def card(self) -> dict[str, Any]:
        """Return what determines the predictions, besides the weights."""
        return {"temperature": self.predictor.temperature, "mirror": self.predictor.mirror}

    def targets(self, cases: Sequence[CaseFiles]) -> list[Path]:
        """Return the one file that is written."""
        return [self.table.path]

    def is_done(self, case: CaseFiles) -> bool:
        """Return whether an earlier run has predicted a case."""
        return case.name in self._done

    def answers(self, cases: Sequence[CaseFiles]) -> Iterator[tuple[CaseFiles, list[str]] | Failure]:
        """Predict cases; yield the cells of their lines, or why one could not be done."""
        return self.predictor.predict_cases(cases, self._cells)

    def skipped(self, case: CaseFiles, problem: str) -> list[str]:
        """Return the cells of the line of a case that could not be done."""
        return class_cells(case.name, None, len(self.predictor.scheme.names), f"skipped: {problem}")

    @cached_property
    def _done(self) -> set[str]:
        return self.table.done("case")

    def _cells(self, case: CaseFiles, read: Case, verdict: Verdict) -> list[str]:
        seen = self.exposure.sight(content_hash(read.voxels))
        notes = list(read.notes)
        if found := unlike(read, [member.config for member in self.predictor.members]):
            notes.append(UNLIKE + found)
        return class_cells(case.name, verdict, len(self.predictor.scheme.names), "; ".join(notes), seen)
