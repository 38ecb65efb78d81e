"""What a task brings to predicting a folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from fmseg.inference.cases import Failure
from fmseg.inference.exposure import Exposure
from fmseg.inference.members import Member
from fmseg.inference.prediction_table import CaseTable
from fmseg.inference.trained import Chosen
from fmseg.records.dataset import CaseFiles


class Writer(Protocol):
    """Predicts cases with some networks and writes what they say into one folder."""

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
        """Take the networks that were chosen, the folder that is written to, and what the networks have met."""

    @staticmethod
    def target(case: CaseFiles) -> str:
        """Return where the prediction of a case goes, in words."""

    @property
    def table(self) -> CaseTable:
        """The lines about all cases."""

    def card(self) -> dict[str, Any]:
        """Return what determines the predictions, besides the weights."""

    def targets(self, cases: Sequence[CaseFiles]) -> list[Path]:
        """Return the files that will be written for cases; that which was there before must be of the same card."""

    def is_done(self, case: CaseFiles) -> bool:
        """Return whether an earlier run has predicted a case, and nothing of it is missing."""

    def answers(self, cases: Sequence[CaseFiles]) -> Iterator[tuple[CaseFiles, list[str]] | Failure]:
        """Predict and write cases; yield the cells of their lines, or why one could not be done."""

    def skipped(self, case: CaseFiles, problem: str) -> list[str]:
        """Return the cells of the line of a case that could not be done."""
