"""Score a folder of predictions against a folder of label maps."""

from pathlib import Path

import numpy as np

from fmseg.errors import BadData, UsageError
from fmseg.files import natural_key
from fmseg.imaging.readers import read_label
from fmseg.inference.out_of_fold import Shape, save_scores, score_cases
from fmseg.inference.prediction_table import read_seen_of
from fmseg.planning.patients import known_patients
from fmseg.records.dataset import SPACINGS, CaseFiles, Dataset, visible_files
from fmseg.records.endings import image_endings, strip_ending
from fmseg.records.scores import Scores
from fmseg.records.tables import read_spacings
from fmseg.stages.evaluate.pairing import cases_of_labels, predictions_of_cases
from fmseg.workspace import Workspace


def evaluate(workspace: Workspace, dataset: Dataset, predictions: Path, labels: Path) -> Scores:
    """Score every label map of ``labels``; it must have a prediction of the same name, whose ending may differ.

    summary.json is as nnU-Net writes it.
    """
    drawn, maps = _maps(labels), _maps(predictions)
    wanted = {case: drawn[name] for case, name in cases_of_labels(dataset, drawn, labels).items()}
    names = predictions_of_cases(wanted, maps, predictions, mend="take their label maps out")
    found = {case: maps[name] for case, name in names.items()}
    sizes = read_spacings(dataset.folder / SPACINGS)
    scores = score_cases(
        [CaseFiles(case, (found[case],), path, sizes.get(case)) for case, path in wanted.items()],
        _read_prediction,
        dataset.labels,
        patients=known_patients(workspace, dataset, list(wanted)),
    ).evolve(seen=read_seen_of(predictions / "report.csv", list(names.values())))
    save_scores(scores, predictions, dataset.labels, {case: (path, found[case]) for case, path in wanted.items()})
    return scores


def _read_prediction(case: CaseFiles, shape: Shape) -> np.ndarray:
    labels, _ = read_label(case.images[0])
    if labels.shape != shape:
        raise BadData(
            f"{case.images[0]}: the prediction is {labels.shape}, its label map {case.label} {shape} (z, y, x). "
            "Predict the image that the label map was drawn on."
        )
    return labels


def _maps(folder: Path) -> dict[str, Path]:
    """Return case -> label map, in natural order. Raises UsageError if there is none."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder.")
    files = [path for path in visible_files(folder) if path.name.lower().endswith(image_endings())]
    if not files:
        raise UsageError(f"{folder}: there is no label map in it.")
    maps: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: natural_key(path.name)):
        case = strip_ending(path.name)
        if case in maps:
            raise BadData(f"{folder}: {maps[case].name} and {path.name} are of one case. Remove one of them.")
        maps[case] = path
    return maps
