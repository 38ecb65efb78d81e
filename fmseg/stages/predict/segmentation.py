"""What segmentation brings to predicting: label maps, report.csv, overlays."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fmseg.files import sha256, write_bytes
from fmseg.imaging.case import content_hash
from fmseg.imaging.readers import write_label
from fmseg.inference.cases import Failure
from fmseg.inference.exposure import Exposure
from fmseg.inference.inputs import output_name
from fmseg.inference.members import Member
from fmseg.inference.prediction_table import CaseTable, Row, label_map_columns
from fmseg.inference.predictor import Prediction, Predictor
from fmseg.inference.trained import Chosen
from fmseg.inference.unlike import UNLIKE, unlike
from fmseg.records.dataset import CaseFiles

#: that a file system takes
MAX_NAME_BYTES = 255
TABLE, OVERLAYS = "report.csv", "overlays"


class LabelMapWriter:
    """Writes a label map for each case, on its own grid and in its own format, and a line of report.csv."""

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
        self.predictor = Predictor(members, clean_up=chosen.clean_up, mirror=mirror)
        self.folder = folder
        self.exposure = exposure
        self.overlays = overlays
        self.table = CaseTable(folder / TABLE, label_map_columns(self.predictor.scheme))

    @staticmethod
    def target(case: CaseFiles) -> str:
        """Return the name of the file that the prediction of a case goes to."""
        return output_name(case)

    def card(self) -> dict[str, Any]:
        """Return what determines the predictions, besides the weights."""
        clean_up = [rule.model_dump(mode="json") for rule in self.predictor.clean_up]
        return {"clean_up": clean_up, "mirror": self.predictor.mirror}

    def targets(self, cases: Sequence[CaseFiles]) -> list[Path]:
        """Return the label maps that are written."""
        return [self.folder / output_name(case) for case in cases]

    def is_done(self, case: CaseFiles) -> bool:
        """Return whether an earlier run has predicted a case, and its files are still there."""
        files = [self.folder / output_name(case), *([self._overlay(case)] if self.overlays else [])]
        return output_name(case) in self._done and all(path.exists() for path in files)

    def answers(self, cases: Sequence[CaseFiles]) -> Iterator[tuple[CaseFiles, list[str]] | Failure]:
        """Predict and write cases; yield the cells of their lines, or why one could not be done."""
        return self.predictor.predict_cases(cases, self._write)

    def skipped(self, case: CaseFiles, problem: str) -> list[str]:
        """Return the cells of the line of a case that could not be done."""
        return self._cells(Row(case.name, "", None, None, (), f"skipped: {problem}"))

    @cached_property
    def _done(self) -> set[str]:
        return self.table.done("file")

    def _cells(self, row: Row) -> list[str]:
        return row.cells(len(self.predictor.scheme.names))

    def _write(self, done: Prediction) -> list[str]:
        name = output_name(done.files)
        write_label(done.labels, done.case.geometry, self.folder / name)
        if self.overlays:
            _write_overlay(done, self._overlay(done.files))
        shares = tuple(float(np.isin(done.labels, values).mean()) for values in self.predictor.scheme.values)
        notes = list(done.case.notes)
        if not done.labels.any():
            notes.append("nothing was found")
        if found := unlike(done.case, [member.config for member in self.predictor.members]):
            notes.append(UNLIKE + found)
        seen = self.exposure.sight(content_hash(done.case.voxels))
        row = Row(done.files.name, name, done.confidence, done.disagreement, shares, "; ".join(notes), seen)
        return self._cells(row)

    def _overlay(self, case: CaseFiles) -> Path:
        name = f"{output_name(case)}.png"
        if len(os.fsencode(name)) > MAX_NAME_BYTES:
            name = f"{sha256(os.fsencode(name))[:32]}.png"
        return self.folder / OVERLAYS / name


def _write_overlay(done: Prediction, path: Path) -> None:
    """Draw the contours on the image; of a stack, on the slice with most foreground."""
    import cv2

    from fmseg.reporting.case_pictures import as_picture
    from fmseg.reporting.overlays import overlay

    z = int((done.labels > 0).sum(axis=(1, 2)).argmax())
    drawn = overlay(as_picture(done.case.voxels[:, z]), done.labels[z])
    _, encoded = cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    write_bytes(path, encoded.tobytes())
