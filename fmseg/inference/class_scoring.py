"""From probabilities of whole cases to honest figures, with intervals from resampling the patients."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fmseg.imaging.decode import decide, shown_classes
from fmseg.inference.calibration import calibration_error
from fmseg.inference.scoring import draw_patients, interval, share_higher
from fmseg.records.labels import SEPARATOR, ClassScheme
from fmseg.records.scores import ClassificationScores, ClassifiedCase, ClassMeasures, Interval

ABSENT_RULE = (
    "A class without a labelled case in the set counts in no mean; a case that is taken for it is still an error of "
    "its own class. AUROC needs cases of the class and others. In each resampling of the patients the same holds."
)
#: resamplings that are ranked at once, to bound the memory
CHUNK = 50

# N cases, K classes, P patients, D draws


class _Means(NamedTuple):
    """The figures that are means over the classes or cases, one for each draw: (D,)."""

    macro_f1: np.ndarray
    balanced_accuracy: np.ndarray
    accuracy: np.ndarray
    auroc: np.ndarray
    auprc: np.ndarray


def score_classes(
    cases: Sequence[str],
    probabilities: np.ndarray,
    targets: np.ndarray,
    scheme: ClassScheme,
    *,
    patients: Mapping[str, str],
) -> ClassificationScores:
    """Return all figures of a set. probabilities: (N, K); targets: (N, K), 1 where a case is of a class.

    Cases without a patient count as their own.
    """
    truth, decided = targets > 0.5, decide(probabilities, scheme)
    owners = [patients.get(case, case) for case in cases]
    names, owner = np.unique(np.asarray(owners), return_inverse=True)
    centre = _means(probabilities, truth, decided, scheme, owner, np.ones((1, len(names))))
    spread = _means(probabilities, truth, decided, scheme, owner, draw_patients(owners))
    means = {key: _interval(value, draws) for key, value, draws in zip(_Means._fields, centre, spread, strict=True)}
    sure = np.where(decided, probabilities, 1 - probabilities)
    confidence = sure.max(axis=1, where=decided, initial=0) if scheme.is_exclusive else sure.mean(axis=1)
    right = decided == truth
    if scheme.is_exclusive:
        error = calibration_error(confidence, right.all(axis=1))
    else:
        error = calibration_error(sure.ravel(), right.ravel())
    labels = [SEPARATOR.join(shown_classes(row, scheme)) for row in truth]
    taken = [SEPARATOR.join(shown_classes(row, scheme)) for row in decided]
    assert means["macro_f1"] and means["balanced_accuracy"] and means["accuracy"], "no case has a class"
    return ClassificationScores(
        classes=scheme.names,
        cases=tuple(
            ClassifiedCase(case=case, patient=patient, label=label, predicted=found, confidence=float(f"{sure:.4g}"))
            for case, patient, label, found, sure in zip(cases, owners, labels, taken, confidence, strict=True)
        ),
        macro_f1=means["macro_f1"],
        balanced_accuracy=means["balanced_accuracy"],
        accuracy=means["accuracy"],
        auroc=means["auroc"],
        auprc=means["auprc"],
        calibration_error=error,
        per_class=_per_class(probabilities, truth, decided, scheme),
        confusion=_confusion(truth, decided) if scheme.is_exclusive else (),
        absent_rule=ABSENT_RULE,
    )


def macro_f1(probabilities: np.ndarray, targets: np.ndarray, scheme: ClassScheme) -> float:
    """Return the mean F1 over the classes that have a case; 0 where none has."""
    truth, decided = targets > 0.5, decide(probabilities, scheme)
    f1, _ = _f1_and_recall(*(each.sum(axis=0)[None] for each in _outcomes(truth, decided)), is_exclusive=True)
    return float(np.nan_to_num(_mean_over_classes(f1)[0]))


def share_of_draws_better(
    one: np.ndarray, other: np.ndarray, targets: np.ndarray, scheme: ClassScheme, patients: Sequence[str]
) -> float:
    """Return the share of patient draws in which ``one`` has the higher macro F1. one, other: probabilities (N, K)."""
    draws, truth = draw_patients(patients), targets > 0.5
    return share_higher(*(macro_f1_of_draws(truth, decide(each, scheme), patients, draws) for each in (one, other)))


def macro_f1_of_draws(truth: np.ndarray, decided: np.ndarray, patients: Sequence[str], draws: np.ndarray) -> np.ndarray:
    """Return the macro F1 for each draw of the patients: (D,). truth, decided: (N, K) bool. draws: (D, P)."""
    _, owner = np.unique(np.asarray(patients), return_inverse=True)
    sums = (_by_patient(each, owner) for each in _outcomes(truth, decided))
    f1, _ = _f1_and_recall(*(draws @ each for each in sums), is_exclusive=True)
    return _mean_over_classes(f1)


def rankings(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return AUROC and average precision of one class for several weightings of the cases: (D,) each.

    scores: (N,), higher for cases that are rather of the class; truth: (N,) bool; weights: (D, N). NaN where all
    cases (for AUROC), or none, are of the class. As scikit-learn's, for all weightings at once.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of cases with equal scores
    hits = np.cumsum(weights[:, order] * truth[order], axis=1)[:, ends]
    misses = np.cumsum(weights[:, order] * ~truth[order], axis=1)[:, ends]
    more_hits, more_misses = (np.diff(each, axis=1, prepend=0) for each in (hits, misses))
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = (more_misses * (hits - more_hits / 2)).sum(axis=1) / (hits[:, -1] * misses[:, -1])
        precision = np.nan_to_num(hits / (hits + misses))
        auprc = (more_hits * precision).sum(axis=1) / hits[:, -1]
    return auroc, auprc


def _means(
    probabilities: np.ndarray,
    truth: np.ndarray,
    decided: np.ndarray,
    scheme: ClassScheme,
    owner: np.ndarray,
    draws: np.ndarray,
) -> _Means:
    """draws: (D, P), how often each patient counts. owner: (N,), the patient of each case."""
    sums = (draws @ _by_patient(each, owner) for each in _outcomes(truth, decided))  # (D, K)
    f1, recall = _f1_and_recall(*sums, is_exclusive=scheme.is_exclusive)
    right = _by_patient((truth == decided).all(axis=1)[:, None], owner)[:, 0]
    accuracy = draws @ right / (draws @ np.bincount(owner))
    ranked = np.empty((2, len(draws), truth.shape[1]))
    for first in range(0, len(draws), CHUNK):
        weights = draws[first : first + CHUNK, owner].astype(float)
        for k in range(truth.shape[1]):
            ranked[:, first : first + CHUNK, k] = rankings(probabilities[:, k], truth[:, k], weights)
    return _Means(
        _mean_over_classes(f1),
        _mean_over_classes(recall),
        accuracy,
        _mean_over_classes(ranked[0]),
        _mean_over_classes(ranked[1]),
    )


def _outcomes(truth: np.ndarray, decided: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return which cases are true and false positives, false and true negatives of each class: (N, K) each."""
    return truth & decided, ~truth & decided, truth & ~decided, ~truth & ~decided


def _f1_and_recall(
    tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray, *, is_exclusive: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return F1 and recall, NaN for classes without a case; without exclusion, recall's mean with specificity."""
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)
        recall = tp / (tp + fn)
        return f1, recall if is_exclusive else (recall + tn / (tn + fp)) / 2


def _by_patient(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Return the sums of (N, K) over the cases of each patient: (P, K)."""
    sums = np.zeros((owner.max() + 1, values.shape[1]))
    np.add.at(sums, owner, values)
    return sums


def _mean_over_classes(values: np.ndarray) -> np.ndarray:
    """Return the mean of (D, K) over the classes that have a value, NaN where none has."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=1) / defined.sum(axis=1)


def _interval(centre: np.ndarray, draws: np.ndarray) -> Interval | None:
    return None if np.isnan(centre[0]) else interval(float(centre[0]), draws)


def _confusion(truth: np.ndarray, decided: np.ndarray) -> tuple[tuple[int, ...], ...]:
    from sklearn.metrics import confusion_matrix

    labels = range(truth.shape[1])
    table = confusion_matrix(truth.argmax(axis=1), decided.argmax(axis=1), labels=list(labels))
    return tuple(tuple(int(count) for count in row) for row in table)


def _per_class(
    probabilities: np.ndarray, truth: np.ndarray, decided: np.ndarray, scheme: ClassScheme
) -> dict[str, ClassMeasures]:
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(truth, decided, zero_division=np.nan)
    measures = {}
    for k, (name, precision, recall, f1, support) in enumerate(zip(scheme.names, *columns, strict=True)):
        auroc, auprc = rankings(probabilities[:, k], truth[:, k], np.ones((1, len(truth))))
        measures[name] = ClassMeasures(
            support=int(support),
            precision=_number(precision),
            recall=_number(recall),
            f1=_number(f1) if support else None,
            auroc=_number(auroc[0]),
            auprc=_number(auprc[0]),
        )
    return measures


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
