"""From the scores of single cases to honest figures: means, with intervals from resampling the patients.

Images of one patient are alike, so patients are drawn, not images: each draw takes as many patients as there
are, with replacement, and all their cases. The seed is fixed, so the same cases give the same interval.
"""

import logging
from collections.abc import Sequence

import numpy as np

from fmseg.imaging.metrics import EMPTY_RULE, dice_of_counts
from fmseg.records.scores import BACKGROUND, CaseScore, ClassScore, Interval, Scores

logger = logging.getLogger(__name__)

NUM_DRAWS = 1000
SEED = 12345
MEASURES = ("dice", "iou", "hd95", "assd", "nsd")
#: in the unit of the distances: what a careful person misses an outline by
NSD_TOLERANCE = 2.0

# N cases, M columns (classes or measures), P patients, D draws


def score(cases: Sequence[CaseScore], *, distance_unit: str, nsd_tolerance: float = NSD_TOLERANCE) -> Scores:
    """Return means with 95 % intervals over patients, and Dice pooled over all pixels.

    distance_unit: "mm" or "px", of hd95 and of the tolerance. ``foreground_dice`` is the mean over the classes
    of their means over the cases, as in nnU-Net.
    """
    names = list(cases[0].classes)
    patients = [case.patient for case in cases]
    draws = draw_patients(patients)
    mean: dict[str, dict[str, Interval]] = {}
    for name in names:
        columns = measure_table(cases, name)
        centre, spread = column_means(columns, patients), column_means(columns, patients, draws)
        found = {
            measure: interval(float(centre[index]), spread[:, index])
            for index, measure in enumerate(MEASURES)
            if not np.isnan(centre[index])
        }
        if found:
            mean[name] = found
    dice = dice_table(cases)
    foreground = mean_over_classes(column_means(dice, patients))
    pooled = _pooled_dice(cases, names)
    if not mean:
        logger.warning("No class is present or predicted in any of the %d cases: nothing could go wrong.", len(cases))
    return Scores(
        cases=tuple(cases),
        mean=mean,
        foreground_dice=interval(
            float(foreground), mean_over_classes(column_means(dice, patients, draws), nothing=np.nan)
        ),
        pooled_foreground_dice=float(mean_over_classes(np.array([pooled[name] for name in names]))),
        pooled_dice_with_background=float(mean_over_classes(np.array(list(pooled.values())))),
        pooled_dice={name: value for name, value in pooled.items() if not np.isnan(value)},
        distance_unit=distance_unit,
        nsd_tolerance=nsd_tolerance,
        empty_rule=EMPTY_RULE,
    )


def share_of_draws_better(one: Sequence[CaseScore], other: Sequence[CaseScore]) -> float:
    """Return the share of patient draws in which ``one`` has the higher foreground Dice; the same cases in both."""
    patients = [case.patient for case in one]
    draws = draw_patients(patients)
    tables = (column_means(dice_table(cases), patients, draws) for cases in (one, other))
    return share_higher(*(mean_over_classes(table, nothing=np.nan) for table in tables))


def share_higher(first: np.ndarray, second: np.ndarray) -> float:
    """Return in which share of draws (D,) the first is higher, of those in which both have a value, NaN otherwise."""
    defined = ~np.isnan(first - second)
    return float(np.mean(first[defined] > second[defined])) if defined.any() else 0.0


def draw_patients(patients: Sequence[str], num_draws: int = NUM_DRAWS) -> np.ndarray:
    """Return how often each patient is drawn: (D, P), patients in sorted order."""
    count = len(set(patients))
    return np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=num_draws)


def column_means(values: np.ndarray, patients: Sequence[str], draws: np.ndarray | None = None) -> np.ndarray:
    """Return the means over the cases where a value is defined: (M,), or (D, M) for each draw of patients.

    values: (N, M), NaN where undefined. A column without any value is NaN.
    """
    _, owner = np.unique(np.asarray(patients), return_inverse=True)
    defined = ~np.isnan(values)
    sums, counts = np.zeros((2, owner.max() + 1, values.shape[1]))
    np.add.at(sums, owner, np.where(defined, values, 0.0))
    np.add.at(counts, owner, defined)
    weights = np.ones((1, len(sums))) if draws is None else draws.astype(float)
    total, number = weights @ sums, weights @ counts
    means = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return means[0] if draws is None else means


def mean_over_classes(means: np.ndarray, *, nothing: float = 1.0) -> np.ndarray:
    """Return the mean along the last axis over the classes that have one.

    nothing: what stands where none has one: a whole set of which nothing can be missed scores 1, but such a draw from a
    set that has classes says nothing, and is NaN.
    """
    defined = ~np.isnan(means)
    count = defined.sum(axis=-1)
    total = np.where(defined, means, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(count.shape, nothing), where=count > 0)


def dice_table(cases: Sequence[CaseScore]) -> np.ndarray:
    """Return Dice per case and class, (N, classes), NaN where undefined."""
    rows = [[np.nan if each.dice is None else each.dice for each in case.classes.values()] for case in cases]
    return np.array(rows, dtype=float)


def measure_table(cases: Sequence[CaseScore], name: str) -> np.ndarray:
    """Return all measures of one class, (N, measures), NaN where undefined."""
    values = [[getattr(case.classes[name], measure) for measure in MEASURES] for case in cases]
    return np.array(values, dtype=float)  # None becomes NaN


def _pooled_dice(cases: Sequence[CaseScore], names: Sequence[str]) -> dict[str, float]:
    """Return Dice of the counts summed over the cases, of each class and the background; NaN where both are empty."""
    counts = np.array([[_counts(case.classes[name]) for name in names] for case in cases], dtype=np.int64).sum(axis=0)
    background = np.array([case.background for case in cases if case.background is not None], dtype=np.int64)
    assert len(background) == len(cases), "the background was not counted"
    found = dice_of_counts(np.vstack([counts, background.sum(axis=0)]))
    return dict(zip((*names, BACKGROUND), found.tolist(), strict=True))


def _counts(score: ClassScore) -> tuple[int, int, int]:
    return score.tp, score.fp, score.fn


def interval(mean: float, draws: np.ndarray) -> Interval:
    """Return a mean with the 95 % interval of its resamplings (D,), NaN where one has no value."""
    known = draws[~np.isnan(draws)]
    low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (mean, mean)
    # a skewed handful of patients may draw an interval beside its own mean
    return Interval(mean=mean, low=min(mean, float(low)), high=max(mean, float(high)))
