"""Score a predictions.csv against a table of labels."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from fmseg.errors import BadData, BadRecord
from fmseg.files import read_json
from fmseg.imaging.decode import targets_from_classes
from fmseg.inference.class_scoring import score_classes
from fmseg.inference.out_of_fold_classes import save_class_scores
from fmseg.inference.prediction_table import CARD, PROBABILITY, read_seen_of
from fmseg.planning.patients import known_patients
from fmseg.records.dataset import Dataset
from fmseg.records.labels import ClassScheme, is_labelled, split_classes
from fmseg.records.scores import ClassificationScores
from fmseg.records.tables import read_classes, read_rows
from fmseg.stages.evaluate.pairing import cases_of_labels, predictions_of_cases
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)


def evaluate(workspace: Workspace, dataset: Dataset, predictions: Path, labels: Path) -> ClassificationScores:
    """Score every labelled case of ``labels`` (a CSV like labelsTr.csv); it must have a prediction.

    predictions: a folder that ``predict`` wrote to, or its predictions.csv. It says what the classes are: labels may
    lack some of them, which then count in no mean. Raises BadData for a class that cannot be predicted.
    """
    path = predictions / "predictions.csv" if predictions.is_dir() else predictions
    found, scheme = _probabilities(path)
    given = _wanted(read_classes(labels), scheme, labels)
    wanted = {case: given[name] for case, name in cases_of_labels(dataset, given, labels).items()}
    names = predictions_of_cases(wanted, found, path, mend="take their lines out of the labels")
    cases = list(wanted)
    scores = score_classes(
        cases,
        np.array([found[names[case]] for case in cases]),
        targets_from_classes(wanted, cases, scheme, labels),
        scheme,
        patients=known_patients(workspace, dataset, cases),
    ).evolve(seen=read_seen_of(path, [names[case] for case in cases]))
    absent = [name for name, each in scores.per_class.items() if not each.support]
    if absent:
        logger.info("%s: no case is of %s, so that enters no mean", labels, ", ".join(absent))
    save_class_scores(scores, path.parent)
    return scores


def _wanted(labels: Mapping[str, str], scheme: ClassScheme, source: Path) -> dict[str, str]:
    """Return the labels that say something; ``source`` is named in errors and log."""
    unknown = {name for label in labels.values() for name in split_classes(label)} - set(scheme.names)
    if unknown:
        raise BadData(
            f"{source}: {', '.join(sorted(unknown))} cannot be predicted; the predictions are of "
            f"{', '.join(scheme.names)}. Give both the same names, or take such lines out."
        )
    wanted = {case: label for case, label in labels.items() if is_labelled(label, scheme)}
    if len(wanted) < len(labels):
        logger.warning("%s: %d cases without a label are left out", source, len(labels) - len(wanted))
    if not any(split_classes(label) for label in wanted.values()):
        raise BadData(f"{source}: no case has a class. Fill in the labels.")
    return wanted


def _probabilities(path: Path) -> tuple[dict[str, np.ndarray], ClassScheme]:
    """Return case -> probabilities of the cases that were predicted, and what they are of."""
    table = [row for _, row in read_rows(path, ("case", "predicted"))]
    columns = [name for name in (table[0] if table else ()) if name.startswith(PROBABILITY)]
    names = tuple(name.removeprefix(PROBABILITY) for name in columns)
    try:
        rows = {row["case"]: np.array([float(row[c]) for c in columns]) for row in table if row[columns[0]]}
    except (ValueError, IndexError) as error:
        raise BadData(f"{path}: there are no probabilities in it ({error}). Make it with: fmseg predict") from error
    return rows, _noted_scheme(path.parent / CARD, names) or _scheme_of_sums(rows.values(), names)


def _noted_scheme(card: Path, names: tuple[str, ...]) -> ClassScheme | None:
    """Return the classes that ``predict`` noted; None where it noted none, or others than these."""
    if not card.exists():
        return None
    try:
        scheme = ClassScheme.parse(read_json(card).get("labels"), str(card))
    except BadRecord as error:
        logger.debug("%s", error)
        return None
    return scheme if scheme.names == names else None


def _scheme_of_sums(rows: Iterable[np.ndarray], names: tuple[str, ...]) -> ClassScheme:
    """Return the classes of bare probabilities: those of one class each add up to 1 in every case."""
    return ClassScheme(names=names, is_exclusive=all(abs(row.sum() - 1) < 1e-3 for row in rows))
