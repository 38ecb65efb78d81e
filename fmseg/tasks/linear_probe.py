"""What frozen features are worth: the best of a grid of linear heads, found in seconds.

The grid is DINOv2's idea of a linear evaluation [1], solved instead of trained: which features (last block or last
four, class token alone or with the mean patch) times how strong a regularisation. Folds within the training cases,
no patient in two of them, choose; so the validation cases are seen by nobody.
[1] Oquab et al., DINOv2, 2023. https://arxiv.org/abs/2304.07193
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fmseg.records.labels import ClassScheme

# N images, F features, D width, K classes

#: inverse strengths of the regularisation
STRENGTHS = tuple(float(strength) for strength in np.logspace(-4, 1, 6))
#: those of DINOv2's evaluation by logistic regression, by factors of 10
WIDE_STRENGTHS = tuple(float(strength) for strength in np.logspace(-6, 5, 12))
#: folds within the training cases
INNER_FOLDS = 3
#: images that the choice is made on, at most; the chosen head learns from all
MOST_IMAGES = 4000
MOST_STEPS = 500
#: log-odds of a class that no training case shows, or all show
CERTAIN = 12.0
SEED = 12345


@dataclass(frozen=True, slots=True)
class Candidate:
    """One cell of the grid."""

    #: in words
    features: str
    strength: float
    #: mean over the inner folds; None where there are too few patients to make any
    macro_f1: float | None


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear head for the features as they come from the network."""

    #: (K, F) and (K,) float32
    weight: np.ndarray
    bias: np.ndarray
    chosen: Candidate
    #: the whole grid
    candidates: tuple[Candidate, ...]


def fit_probe(
    features: np.ndarray,
    targets: np.ndarray,
    groups: Sequence[str],
    scheme: ClassScheme,
    *,
    num_blocks: int,
    class_weights: Sequence[float],
    strengths: Sequence[float] = STRENGTHS,
    class_token_alone: bool = False,
) -> Probe:
    """Choose a cell of the grid and fit it to all images.

    features: (N, F), class token and mean patch of each of ``num_blocks`` blocks, the last one last. targets: (N, K).
    groups: the patient of each image. class_token_alone: of the last block, the only features that are tried.
    """
    mean, std = features.mean(axis=0), features.std(axis=0)
    scale = np.where(std > 0, std, 1)
    ready = (features - mean) / scale
    weights = np.asarray(class_weights or [1.0] * targets.shape[1])
    parts = feature_sets(features.shape[1], num_blocks)
    if class_token_alone:
        parts = dict([next(iter(parts.items()))])
    few = slice(None, None, 1 + (len(ready) - 1) // MOST_IMAGES)
    folds = list(inner_folds(targets[few], [*groups][few]))
    found = [
        Candidate(name, strength, _score(ready[few][:, columns], targets[few], folds, strength, weights, scheme))
        for name, columns in parts.items()
        for strength in strengths
    ]
    # of equals the one with fewer features, then the stronger regularisation: they come first
    # where nothing can be chosen: all features, at scikit-learn's own strength of 1
    usual = [each for each in found if each.strength == 1][-1]
    chosen = max(found, key=lambda each: each.macro_f1 or 0.0) if folds else usual
    columns = parts[chosen.features]
    small, bias = _fit(ready[:, columns], targets, chosen.strength, weights, scheme)
    weight = np.zeros((targets.shape[1], features.shape[1]))
    weight[:, columns] = small
    weight /= scale
    return Probe(weight.astype(np.float32), (bias - weight @ mean).astype(np.float32), chosen, tuple(found))


def feature_sets(num_features: int, num_blocks: int) -> dict[str, np.ndarray]:
    """Return the columns of each choice of features, by its name, from few features to many."""
    columns = np.arange(num_features).reshape(num_blocks, 2, -1)
    blocks = {"last block": columns[-1:]} | ({f"last {num_blocks} blocks": columns} if num_blocks > 1 else {})
    kinds = {"class token": slice(0, 1), "class token and mean patch": slice(0, 2)}
    return {
        f"{what} of {where}": part[:, kind].ravel() for where, part in blocks.items() for what, kind in kinds.items()
    }


def inner_folds(targets: np.ndarray, groups: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield training and validation rows of folds that share no patient.

    None for one patient alone, or where no two cases are of the same classes.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    strata = targets @ (1 << np.arange(targets.shape[1], dtype=object))  # a number for each set of classes
    strata = np.unique(strata.astype(str), return_inverse=True)[1]
    count = min(INNER_FOLDS, len(set(groups)), int(np.bincount(strata).max()))
    if count < 2:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer cases than folds is in some of them
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=SEED)
        yield from splitter.split(np.zeros(len(targets)), strata, groups)


def _score(
    features: np.ndarray,
    targets: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    strength: float,
    weights: np.ndarray,
    scheme: ClassScheme,
) -> float | None:
    """Return the mean macro F1 over the folds."""
    found = []
    for train, val in folds:
        weight, bias = _fit(features[train], targets[train], strength, weights, scheme)
        found.append(macro_f1_of(features[val] @ weight.T + bias, targets[val], scheme))
    return float(np.mean(found)) if found else None


def macro_f1_of(logits: np.ndarray, targets: np.ndarray, scheme: ClassScheme) -> float:
    """Return the mean F1 over the classes that are shown. logits, targets: (N, K)."""
    from sklearn.metrics import f1_score

    decided = logits > 0
    if scheme.is_exclusive:
        decided = np.arange(logits.shape[1]) == logits.argmax(axis=1)[:, None]
    shown = np.flatnonzero(targets.any(axis=0))
    return float(f1_score(targets > 0.5, decided, labels=shown, average="macro", zero_division=0))


def _fit(
    features: np.ndarray, targets: np.ndarray, strength: float, weights: np.ndarray, scheme: ClassScheme
) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (K, F) and bias (K,) of a regression."""
    weight, bias = np.zeros((targets.shape[1], features.shape[1])), np.full(targets.shape[1], -CERTAIN)
    if scheme.is_exclusive:
        labels = targets.argmax(axis=1)
        shown = np.unique(labels)
        if len(shown) == 1:
            bias[shown] = CERTAIN
            return weight, bias
        coefficients, intercepts = _regression(features, labels, strength, weights[labels])
        if len(shown) == 2:  # of the second class against the first
            coefficients, intercepts = (np.stack([-each[0], each[0]]) / 2 for each in (coefficients, intercepts))
        weight[shown], bias[shown] = coefficients, intercepts
        return weight, bias
    for k, column in enumerate(targets.T):
        if column.min() == column.max():
            bias[k] = CERTAIN if column.max() else -CERTAIN
            continue
        coefficients, intercepts = _regression(features, column, strength, np.where(column > 0, weights[k], 1.0))
        weight[k], bias[k] = coefficients[0], intercepts[0]
    return weight, bias


def _regression(
    features: np.ndarray, labels: np.ndarray, strength: float, sample_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # the weakest regularisations do not matter enough to be followed to their end
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=strength, max_iter=MOST_STEPS).fit(features, labels, sample_weights)
    return model.coef_, model.intercept_
