"""Write the features of a folder of images: CLS and mean patch token of a foundation checkpoint, dense maps if asked.

The file is a plain .npz: ``names``, ``cls`` and ``patch_mean`` (N, D) float32, ``content`` (N,) uint64, equal for
equal images, and with dense maps ``dense/NAME`` (rows, columns, D) float16 for each. It is written row by row, so that
millions of images need no memory.
"""

import logging
import zipfile
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmseg.console import track
from fmseg.errors import BadData, UsageError
from fmseg.files import writing
from fmseg.inference.embedding import Embedder, Embedding
from fmseg.records.cases import CaseFiles, Chosen
from fmseg.records.foundation import choose_foundation
from fmseg.records.sources import list_cases
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

ROWS = 4096


@dataclass(frozen=True, slots=True)
class Embedded:
    """What became of a folder of images."""

    checkpoint: str
    num_images: int
    width: int
    #: (file, why it was skipped)
    failed: tuple[tuple[str, str], ...]
    path: Path


def embed(
    workspace: Workspace, source: Path, output: Path, *, foundation: str | None = None, dense: bool = False
) -> Embedded:
    """Write the features of all images of a folder, list or table. Raises BadData if none can be read."""
    if output.suffix != ".npz":
        raise UsageError(f"{output}: features are written as .npz. Type a name that ends so.")
    folder, card = choose_foundation(workspace.foundations(), foundation)
    cases = list_cases(source, card.modality)
    if not len(cases):
        raise BadData(f"{source}: there is no image in it.")
    embedder = Embedder(folder, workspace.features())
    failed: list[tuple[str, str]] = []
    found = track(embedder.embed(cases), "embed", len(cases), unit="images")
    with writing(output) as temporary:
        kept = Chosen(cases, write_features(temporary, found, failed, embedder.width))
        if not len(kept):
            raise BadData(f"{source}: none of {len(cases)} images can be read, the first since: {failed[0][1]}")
        if dense:
            _append_dense(temporary, embedder, kept)
    for name, problem in failed[:20]:
        logger.warning("skipped %s: %s", name, problem)
    return Embedded(card.name, len(kept), card.architecture.width, tuple(failed), output)


def write_features(path: Path, found: Iterable[Embedding], failed: list[tuple[str, str]], width: int) -> np.ndarray:
    """Write rows as they come; append what is broken to ``failed``; return the numbers of those that were written.

    How many there are is known at the end alone, so rows go to a file beside first.
    """
    kept, contents, names = array("q"), array("Q"), []
    rows = path.with_name(path.name + ".rows.tmp")
    try:
        with open(rows, "wb") as file:
            for number, each in enumerate(found):
                if each.row is None:
                    failed.append((str(each.files.images[0]), each.problem))
                    continue
                kept.append(number)
                names.append(each.files.name)
                contents.append(each.content)
                file.write(each.row.astype("<f4").tobytes())
        if kept:
            table = np.memmap(rows, dtype="<f4", mode="r", shape=(len(kept), 2 * width))
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                _write(archive, "names", np.array(names))
                _write(archive, "content", np.array(contents, np.uint64))
                _write_rows(archive, "cls", table[:, :width])
                _write_rows(archive, "patch_mean", table[:, width:])
    finally:
        rows.unlink(missing_ok=True)
    return np.array(kept, np.int64)


def _append_dense(path: Path, embedder: Embedder, cases: Sequence[CaseFiles]) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for case in track(cases, "dense maps", len(cases)):
            _write(archive, f"dense/{case.name}", embedder.patches(case))


def _write(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(_entry(name), "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def _write_rows(archive: zipfile.ZipFile, name: str, table: np.ndarray) -> None:
    """Write a table that need not fit into memory."""
    header = {"descr": "<f4", "fortran_order": False, "shape": table.shape}
    with archive.open(_entry(name), "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, len(table), ROWS):
            file.write(np.ascontiguousarray(table[first : first + ROWS]).tobytes())


def _entry(name: str) -> zipfile.ZipInfo:
    """Return an entry without a time: equal features are equal bytes."""
    return zipfile.ZipInfo(f"{name}.npy")
