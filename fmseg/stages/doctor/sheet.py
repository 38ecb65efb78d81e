"""doctor.png: the images that the worst findings are about, on one sheet."""

from collections.abc import Sequence
from pathlib import Path

from fmseg.records.dataset import Dataset
from fmseg.records.fingerprint import Finding


def draw_sheet(dataset: Dataset, findings: Sequence[Finding], path: Path) -> None:
    """Draw the sheet."""
