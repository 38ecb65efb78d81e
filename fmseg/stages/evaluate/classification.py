"""Score a predictions.csv against a table of labels."""

from pathlib import Path

import numpy as np

from fmseg.errors import BadData
from fmseg.imaging.decode import targets_from_classes
from fmseg.inference.class_scoring import score_classes
from fmseg.inference.out_of_fold_classes import save_class_scores
from fmseg.inference.prediction_table import PROBABILITY, read_seen_of
from fmseg.planning.patients import known_patients
from fmseg.records.dataset import Dataset
from fmseg.records.labels import ClassScheme
from fmseg.records.scores import ClassificationScores
from fmseg.records.tables import read_classes, read_rows
from fmseg.workspace import Workspace


def evaluate(workspace: Workspace, dataset: Dataset, predictions: Path, labels: Path) -> ClassificationScores:
    """Score every case of ``labels`` (a CSV like labelsTr.csv); it must have a prediction.

    predictions: a folder that ``predict`` wrote to, or its predictions.csv.
    """
    path = predictions / "predictions.csv" if predictions.is_dir() else predictions
    found, scheme = _probabilities(path, dataset)
    wanted = read_classes(labels)
    missing = [case for case in wanted if case not in found]
    if missing:
        listed = ", ".join(missing[:10]) + (" ..." if len(missing) > 10 else "")
        raise BadData(
            f"{path}: {len(missing)} of {len(wanted)} predictions are missing: {listed}. "
            "Predict them, or take their lines out of the labels."
        )
    cases = list(wanted)
    scores = score_classes(
        cases,
        np.array([found[case] for case in cases]),
        targets_from_classes(wanted, cases, scheme, labels),
        scheme,
        patients=known_patients(workspace, dataset, cases),
    ).evolve(seen=read_seen_of(path, cases))
    save_class_scores(scores, path.parent)
    return scores


def _probabilities(path: Path, dataset: Dataset) -> tuple[dict[str, np.ndarray], ClassScheme]:
    """Return case -> probabilities of the cases that were predicted, and what they are of."""
    table = [row for _, row in read_rows(path, ("case", "predicted"))]
    columns = [name for name in (table[0] if table else ()) if name.startswith(PROBABILITY)]
    names = tuple(name.removeprefix(PROBABILITY) for name in columns)
    try:
        rows = {row["case"]: np.array([float(row[c]) for c in columns]) for row in table if row[columns[0]]}
    except (ValueError, IndexError) as error:
        raise BadData(f"{path}: there are no probabilities in it ({error}). Make it with: fmseg predict") from error
    unknown = set(dataset.class_scheme.names) ^ set(names)
    if unknown:
        raise BadData(
            f"{path}: its classes are {', '.join(names)}, those of {dataset.name} "
            f"{', '.join(dataset.class_scheme.names)}. Name the dataset that the models were trained on."
        )
    return rows, ClassScheme(names=names, is_exclusive=dataset.class_scheme.is_exclusive)
