"""doctor.png: the images that the worst findings are about, with the outlines of their label maps, on one sheet."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fmseg.errors import BadData
from fmseg.imaging.readers import read_case, read_label
from fmseg.records.dataset import CaseFiles, Dataset
from fmseg.records.fingerprint import Finding
from fmseg.reporting.overlays import overlay
from fmseg.reporting.tiles import Tile, draw_tiles

MAX_TILES = 24
#: cases of one finding that are shown, as of copies
MAX_CASES = 2
COLOURS = {"error": (200, 30, 30), "warning": (230, 150, 20)}
MIN_SPREAD = 1e-6


def draw_sheet(dataset: Dataset, findings: Sequence[Finding], path: Path) -> None:
    """Draw what errors and warnings are about; where there is nothing to show, no sheet stays behind."""
    shown = [finding for finding in findings if finding.severity in COLOURS and finding.cases]
    tiles: list[Tile] = []
    if dataset.task != "unlabelled" and shown:
        files = {case.name: case for case in dataset.training_cases()}
        for finding in shown[:MAX_TILES]:
            tiles += _tiles(finding, files, dataset.declaration.overwrite_image_reader_writer)
    if tiles:
        draw_tiles(tiles[:MAX_TILES], path)
    else:
        path.unlink(missing_ok=True)


def _tiles(finding: Finding, files: dict[str, CaseFiles], reader: str | None) -> Iterator[Tile]:
    for case in finding.cases[:MAX_CASES]:
        picture = _picture(files[case], reader) if case in files else None
        yield Tile(picture, case, f"{finding.where}: {finding.problem}", COLOURS[finding.severity])


def _picture(files: CaseFiles, reader: str | None) -> np.ndarray | None:
    """Return the image, of a stack the slice with most foreground, with its label map, if they can be read."""
    try:
        voxels = read_case(files, reader).voxels
    except BadData:
        return None
    labels = None
    if files.label is not None:
        try:
            labels = read_label(files.label, reader)[0]
        except BadData:
            labels = None
    if labels is None or labels.shape != voxels.shape[1:]:
        return _eight_bit(voxels[:, voxels.shape[1] // 2])
    z = int((labels > 0).sum(axis=(1, 2)).argmax())
    return overlay(_eight_bit(voxels[:, z]), np.clip(labels[z], 0, 255).astype(np.uint8))


def _eight_bit(channels: np.ndarray) -> np.ndarray:
    """Turn (C, Y, X) of any type into uint8: (Y, X, 3) of RGB, else (Y, X) of the first channel."""
    shown = np.moveaxis(channels, 0, -1) if len(channels) == 3 else channels[0]
    if shown.dtype == np.uint8:
        return np.ascontiguousarray(shown)
    shown = np.nan_to_num(shown.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = np.percentile(shown, (0.5, 99.5))
    return (np.clip((shown - low) / max(float(high - low), MIN_SPREAD), 0, 1) * 255).astype(np.uint8)
