"""Predictions of cases that a network was not trained on: during training, and at the end of a fold."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import nn

from fmseg.console import track
from fmseg.errors import BadData
from fmseg.files import natural_key, write_json
from fmseg.imaging.decode import labels_from_probabilities
from fmseg.imaging.metrics import background_counts, score_case
from fmseg.imaging.prepare import restore
from fmseg.imaging.readers import read_reference
from fmseg.inference.ensemble import dice_of_case, mean_dice
from fmseg.inference.members import Member, scheme_of
from fmseg.inference.pipeline import NUM_THREADS, map_ahead
from fmseg.inference.predictor import Predictor
from fmseg.inference.probabilities import ENDING, load_probabilities, save_probabilities
from fmseg.inference.scoring import NSD_TOLERANCE, score
from fmseg.records.dataset import CaseFiles
from fmseg.records.labels import LabelScheme
from fmseg.records.run import RunConfig
from fmseg.records.scores import CaseScore, Scores

#: (Z, Y, X)
Shape = tuple[int, int, int]


class PreparedCases(Protocol):
    """What is needed of the store: prepared images and label maps by number."""

    @property
    def cases(self) -> Mapping[str, range]:
        """Case -> the numbers of its images."""

    def image(self, index: int) -> np.ndarray:
        """Return (C, h, w)."""

    def label(self, index: int) -> np.ndarray | None:
        """Return (h, w), None without labels."""


def validate(model: nn.Module, config: RunConfig, store: PreparedCases, names: Sequence[str]) -> float:
    """Return the mean foreground Dice of some cases at prepared resolution, without mirroring: quick."""
    scheme = scheme_of(config)
    rows = []
    for name, probabilities in _predicted(model, config, store, names, mirror=False):
        labels = labels_from_probabilities(probabilities, scheme)
        references = [label for index in store.cases[name] if (label := store.label(index)) is not None]
        rows.append(dice_of_case(labels, np.stack(references), scheme))
    return mean_dice(np.array(rows))


def predict_fold(
    model: nn.Module,
    config: RunConfig,
    store: PreparedCases,
    cases: Sequence[CaseFiles],
    folder: Path,
    *,
    patients: Mapping[str, str],
) -> Scores:
    """Predict the fold's validation cases as ``predict`` would, and score them on their own grid.

    cases: of the raw dataset, for their label maps. folder: the run's ``validation``, which gets one .prob file
    per case, scores.json and summary.json. Raises BadData naming a label map that does not fit.
    """
    labelled = {case.name: case for case in cases if case.label is not None}
    names = sorted(config.cases.val, key=natural_key)
    missing = [name for name in names if name not in labelled]
    if missing:
        raise BadData(f"{missing[0]} and {len(missing) - 1} more cases of the fold have no label map any more.")
    for name, probabilities in track(_predicted(model, config, store, names), "validate", len(names)):
        save_probabilities(folder / f"{name}{ENDING}", probabilities)
    scores = score_cases(
        [labelled[name] for name in names],
        # what was stored is what is scored, so that find_best sees the same figures
        lambda case, shape: restored_labels(load_probabilities(folder / f"{case.name}{ENDING}"), shape, config),
        scheme_of(config),
        patients=patients,
    )
    files = {name: (labelled[name].label or Path(), folder / f"{name}{ENDING}") for name in names}
    save_scores(scores, folder, scheme_of(config), files)
    return scores


def restored_labels(probabilities: np.ndarray, shape: Shape, config: RunConfig) -> np.ndarray:
    """Return the label map (Z, Y, X) of prepared probabilities (K, Z, h, w) on a case's own grid."""
    return labels_from_probabilities(restore(probabilities, shape), scheme_of(config))


def score_cases(
    cases: Sequence[CaseFiles],
    predict: Callable[[CaseFiles, Shape], np.ndarray],
    scheme: LabelScheme,
    *,
    patients: Mapping[str, str],
) -> Scores:
    """Score label maps against those of the cases' files.

    predict: (case, shape (Z, Y, X) of its label map) -> labels. Cases without a patient count as their own.
    Raises BadData naming the label map that does not fit its prediction or holds an undeclared value.
    """
    unit = distance_unit(cases)

    def scored(case: CaseFiles) -> CaseScore:
        reference, spacing = read_reference(case)
        depth, height, width = reference.shape
        labels = predict(case, (depth, height, width))
        try:
            found = score_case(labels, reference, scheme, spacing if unit == "mm" else None, NSD_TOLERANCE)
            background = background_counts(labels, reference, scheme)
        except BadData as error:
            raise BadData(f"{case.label}: {error}") from error
        patient = patients.get(case.name, case.name)
        return CaseScore(case=case.name, patient=patient, classes=found, background=background)

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        rows = map_ahead(pool, scored, cases, lambda: 2 * NUM_THREADS)
        return score(list(track(rows, "score", len(cases))), distance_unit=unit)


def distance_unit(cases: Iterable[CaseFiles]) -> str:
    """Return "mm" if the pixel size of every labelled case is known, else "px": one set is measured in one unit."""
    return "mm" if all(case.spacing_mm or read_reference(case)[1] for case in cases) else "px"


def save_scores(scores: Scores, folder: Path, scheme: LabelScheme, files: Mapping[str, tuple[Path, Path]]) -> None:
    """Write scores.json, and summary.json as nnU-Net does. files: case -> its label map and its prediction."""
    scores.save(folder / "scores.json")
    write_json(folder / "summary.json", scores.summary(scheme, files))


def _predicted(
    model: nn.Module, config: RunConfig, store: PreparedCases, names: Sequence[str], *, mirror: bool = True
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each case with its probabilities (K, Z, h, w), a batch of images at a time."""
    with evaluating(model):
        predictor = Predictor([Member(model, config)], mirror=mirror)
        group: list[str] = []
        for name in names:
            group.append(name)
            if sum(len(store.cases[each]) for each in group) >= predictor.batch_size or name == names[-1]:
                stacks = [np.stack([store.image(index) for index in store.cases[each]]) for each in group]
                for each, answer in zip(group, predictor.predict_prepared(stacks), strict=True):
                    yield each, answer.probabilities
                group = []


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold the model in evaluation mode for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
