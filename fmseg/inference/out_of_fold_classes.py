"""Predictions of whole cases that a network was not trained on: during training, and at the end of a fold.

``probabilities.npz`` holds them: case names, class names, and (N, K) float32. Nothing in it can be anything but
names and numbers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from torch import nn

from fmseg.console import track
from fmseg.errors import BadData
from fmseg.files import write_json, writing
from fmseg.inference.calibration import cross_entropy
from fmseg.inference.class_scoring import macro_f1, score_classes
from fmseg.inference.classes import classify_stacks
from fmseg.inference.members import classes_of
from fmseg.inference.out_of_fold import PreparedCases, evaluating
from fmseg.records.labels import ClassScheme
from fmseg.records.run import RunConfig
from fmseg.records.scores import ClassificationScores

PROBABILITIES = "probabilities.npz"


class CaseProbabilities(NamedTuple):
    """What a network says on some cases."""

    cases: tuple[str, ...]
    classes: tuple[str, ...]
    #: (N, K)
    probabilities: np.ndarray


def validate_classes(
    model: nn.Module, config: RunConfig, store: PreparedCases, cases: Sequence[str], targets: np.ndarray
) -> dict[str, float]:
    """Return macro F1 and cross-entropy of some cases, without mirroring: quick. targets: (N, K)."""
    scheme = classes_of(config)
    probabilities = classify_stored(model, config, store, cases, mirror=False)
    return {
        "val_macro_f1": macro_f1(probabilities, targets, scheme),
        "validation_loss": cross_entropy(probabilities, targets, scheme),
    }


def predict_classes(
    model: nn.Module,
    config: RunConfig,
    store: PreparedCases,
    targets: np.ndarray,
    folder: Path,
    *,
    patients: Mapping[str, str],
) -> ClassificationScores:
    """Predict the fold's validation cases as ``predict`` would, and score them.

    targets: (N, K) of those cases in their order. folder: the run's ``validation``, which gets probabilities.npz,
    scores.json and summary.json.
    """
    scheme, cases = classes_of(config), config.cases.val
    found = classify_stored(model, config, store, cases, mirror=True).astype(np.float32)
    save_probabilities(folder / PROBABILITIES, CaseProbabilities(cases, scheme.names, found))
    # what was stored is what is scored, so that find_best sees the same figures
    scores = score_classes(cases, found.astype(np.float64), targets, scheme, patients=patients)
    save_class_scores(scores, folder)
    return scores


def classify_stored(
    model: nn.Module, config: RunConfig, store: PreparedCases, cases: Sequence[str], *, mirror: bool
) -> np.ndarray:
    """Return the probabilities (N, K) float64 of cases of a store, a batch of images at a time."""
    rows, group = [], []
    with evaluating(model):
        for case in track(cases, "validate", len(cases)) if mirror else cases:
            group.append(np.stack([store.image(index) for index in store.cases[case]]))
            if sum(map(len, group)) >= config.recipe.batch_size or case == cases[-1]:
                rows.append(classify_stacks(model, config, group, mirror=mirror))
                group = []
    return np.concatenate(rows)


def save_class_scores(scores: ClassificationScores, folder: Path) -> None:
    """Write scores.json, and summary.json without the single cases."""
    scores.save(folder / "scores.json")
    write_json(folder / "summary.json", scores.summary())


def save_probabilities(path: Path, found: CaseProbabilities) -> None:
    """Write probabilities, atomically; equal ones give equal bytes."""
    with writing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            cases=np.array(found.cases),
            classes=np.array(found.classes),
            probabilities=found.probabilities.astype(np.float32),
        )


def load_probabilities(path: Path, scheme: ClassScheme) -> CaseProbabilities:
    """Read what ``save_probabilities`` wrote. Raises BadData if it is damaged, missing or of other classes."""
    mend = "Remove it and train that fold again."
    try:
        with np.load(path, allow_pickle=False) as content:
            cases, classes = (tuple(content[name].tolist()) for name in ("cases", "classes"))
            probabilities = content["probabilities"].astype(np.float64)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise BadData(f"{path}: there are no readable probabilities in it ({error}). {mend}") from error
    if classes != scheme.names or probabilities.shape != (len(cases), len(classes)):
        raise BadData(f"{path}: it is of the classes {', '.join(classes)}, not {', '.join(scheme.names)}. {mend}")
    return CaseProbabilities(cases, classes, probabilities)
