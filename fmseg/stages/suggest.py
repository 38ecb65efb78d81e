"""Which images to label next: those that what is labelled already says least about.

Features of a foundation checkpoint, k centres in their space (``inference/coverage.py``). Writes a table in the order
of choice, and a sheet of the first ones.
"""

import csv
import io
import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmseg.console import track
from fmseg.errors import BadData, FmsegError, UsageError
from fmseg.files import write_bytes
from fmseg.inference.coverage import Centre, choose_centres, make_unit
from fmseg.inference.embedding import Embedder
from fmseg.records.cases import CaseFiles, Chosen
from fmseg.records.dataset import Dataset
from fmseg.records.foundation import choose_foundation
from fmseg.records.sources import list_cases
from fmseg.reporting.feature_pictures import to_grey
from fmseg.reporting.overlays import contact_sheet
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

COLUMNS = ("rank", "image", "distance", "radius")
#: of the sheet
SHOWN, ACROSS = 36, 6


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Images to label, the most telling first."""

    checkpoint: str
    #: what was chosen from, and what is labelled already
    num_images: int
    num_labelled: int
    #: (file, centre)
    chosen: tuple[tuple[Path, Centre], ...]
    #: (file, why it was skipped)
    failed: tuple[tuple[str, str], ...]
    table: Path
    sheet: Path


def suggest(
    workspace: Workspace,
    source: Path,
    output: Path,
    *,
    count: int,
    labelled: str | None = None,
    foundation: str | None = None,
) -> Suggestion:
    """Choose ``count`` images of a folder, list or table to label; write ``output`` (CSV) and a PNG beside it.

    labelled: a dataset whose images are labelled already. Raises BadData if no image can be read.
    """
    if output.suffix != ".csv" or count < 1:
        raise UsageError(f"{output}, {count} images: type a name that ends in .csv, and at least one image.")
    folder, card = choose_foundation(workspace.foundations(), foundation)
    embedder = Embedder(folder, workspace.features())
    known = np.empty((0, card.architecture.width), np.float32)
    if labelled is not None:
        dataset = Dataset.load(
            workspace.need(workspace.raw_dataset(labelled), f"fmseg convert, or put {labelled} there")
        )
        known = _features(embedder, dataset.training_cases(), f"labelled images of {labelled}")[1]
    cases = list_cases(source, card.modality)
    kept, features, failed = _features(embedder, cases, "images")
    if not len(kept):
        raise BadData(f"{source}: there is no image in it that can be read.")
    centres = track(choose_centres(features, count, known), "choose", min(count, len(kept)))
    chosen = tuple((kept[centre.index].images[0], centre) for centre in centres)
    _tell_fewer(len(chosen), count, len(kept), card.name)
    write_bytes(output, _table(chosen).encode())
    sheet = output.with_suffix(".png")
    write_bytes(sheet, _sheet(embedder, [kept[centre.index] for _, centre in chosen[:SHOWN]]))
    return Suggestion(card.name, len(kept), len(known), chosen, failed, output, sheet)


def _tell_fewer(num_chosen: int, count: int, num_images: int, checkpoint: str) -> None:
    """Say why fewer images are chosen than were asked for, if they are."""
    if num_chosen == count:
        return
    left = num_images - num_chosen
    why = "there are no more"
    if left:
        why = f"to {checkpoint}, the other {left} are the same as one that is chosen or labelled"
    logger.warning("%d of %d images are chosen: %s", num_chosen, count, why)


def _features(
    embedder: Embedder, cases: Sequence[CaseFiles], what: str
) -> tuple[Sequence[CaseFiles], np.ndarray, tuple[tuple[str, str], ...]]:
    """Return the cases that can be read, their CLS tokens (N, D) of length one, and the others with the reason."""
    rows = np.empty((len(cases), embedder.width), np.float32)
    kept = array("q")
    failed = []
    found = track(embedder.embed(cases), what, len(cases), unit="images")
    for number, each in enumerate(found):
        if each.row is None:
            failed.append((str(each.files.images[0]), each.problem))
            logger.warning("skipped %s: %s", each.files.images[0], each.problem)
        else:
            rows[len(kept)] = each.row[: embedder.width]
            kept.append(number)
    return Chosen(cases, np.array(kept)), make_unit(rows[: len(kept)]), tuple(failed)


def _table(chosen: Sequence[tuple[Path, Centre]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rank, (path, centre) in enumerate(chosen, start=1):
        distance = "" if np.isinf(centre.distance) else f"{centre.distance:.4f}"
        writer.writerow((rank, path, distance, f"{centre.radius:.4f}"))
    return text.getvalue()


def _sheet(embedder: Embedder, cases: Sequence[CaseFiles]) -> bytes:
    pictures = []
    for case in cases:
        try:
            pictures.append(to_grey(embedder.image(case)))
        except FmsegError:  # it was there a moment ago
            pictures.append(np.zeros((8, 8), np.uint8))
    blank = [np.full((8, 8), 255, np.uint8)] * (-len(pictures) % ACROSS)
    rows = [
        (f"{first + 1} to {min(first + ACROSS, len(pictures))}", [*pictures, *blank][first : first + ACROSS])
        for first in range(0, len(pictures), ACROSS)
    ]
    return contact_sheet(rows, [""] * ACROSS, tile_px=160)
