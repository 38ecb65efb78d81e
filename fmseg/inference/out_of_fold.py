"""Predictions of cases that a network was not trained on: during training, and at the end of a fold."""

import json
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
#: names of cases that are predicted together
Group = list[str]


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
    for name, probabilities in _predicted(model, config, store, _groups(config, store, names), mirror=False):
        labels = labels_from_probabilities(probabilities, scheme)
        references = [label for index in store.cases[name] if (label := store.label(index)) is not None]
        rows.append(dice_of_case(labels, np.stack(references), scheme))
    return mean_dice(np.array(rows))


class Ranks(Protocol):
    """The processes that share the work of a fold: ``learning.runtime`` has them."""

    @property
    def rank(self) -> int:
        """The number of this one."""

    @property
    def world(self) -> int:
        """How many there are."""

    def from_main(self, text: str) -> str:
        """Return rank 0's text on all ranks, which must all call this."""

    def gathered(self, text: str) -> list[str]:
        """Return the text of each rank on all ranks, which must all call this."""


def predict_fold(
    model: nn.Module,
    config: RunConfig,
    store: PreparedCases,
    cases: Sequence[CaseFiles],
    folder: Path,
    *,
    patients: Mapping[str, str],
    ranks: Ranks,
) -> Scores:
    """Predict the fold's validation cases as ``predict`` would, and score them on their own grid.

    Each rank does a share, so all must call this. A case whose prediction lies in the folder, from before a run was
    stopped, is scored only. cases: of the raw dataset, for their label maps. folder: the run's ``validation``, which
    gets one .prob file per case, scores.json and summary.json. Raises BadData naming a label map that does not fit.
    """
    scheme = scheme_of(config)
    labelled = {case.name: case for case in cases if case.label is not None}
    names = sorted(config.cases.val, key=natural_key)
    missing = [name for name in names if name not in labelled]
    if missing:
        raise BadData(f"{missing[0]} and {len(missing) - 1} more cases of the fold have no label map any more.")
    files = {name: (labelled[name].label or Path(), folder / f"{name}{ENDING}") for name in names}
    own, kept = _shares(_groups(config, store, names), lambda name: files[name][1].exists(), ranks)
    for name, probabilities in track(_predicted(model, config, store, own), "validate", sum(map(len, own))):
        save_probabilities(files[name][1], probabilities)
    shared = [labelled[name] for group in (*own, *kept) for name in group]
    unit = "px" if "px" in ranks.gathered(distance_unit(shared)) else "mm"
    scored = case_scores(
        shared,
        # what was stored is what is scored, so that find_best sees the same figures
        lambda case, shape: restored_labels(load_probabilities(files[case.name][1]), shape, config),
        scheme,
        unit,
        patients=patients,
    )
    texts = ranks.gathered(json.dumps([row.model_dump(mode="json") for row in scored]))
    rows = [CaseScore.parse(row, "scores of a rank") for text in texts for row in json.loads(text)]
    scores = score(sorted(rows, key=lambda row: natural_key(row.case)), distance_unit=unit)
    if ranks.rank == 0:
        save_scores(scores, folder, scheme, files)
    return scores


def _shares(groups: Sequence[Group], is_done: Callable[[str], bool], ranks: Ranks) -> tuple[list[Group], list[Group]]:
    """Return which groups of cases this rank predicts, and which it scores only, as they are done.

    What a rank predicts it scores itself: on a network disk others may see the file late. So rank 0 looks for all.
    """
    found = json.loads(ranks.from_main(json.dumps([all(map(is_done, group)) for group in groups])))
    sides = ([group for group, there in zip(groups, found, strict=True) if there is side] for side in (False, True))
    lacking, done = (side[ranks.rank :: ranks.world] for side in sides)
    return lacking, done


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
    return score(case_scores(cases, predict, scheme, unit, patients=patients), distance_unit=unit)


def case_scores(
    cases: Sequence[CaseFiles],
    predict: Callable[[CaseFiles, Shape], np.ndarray],
    scheme: LabelScheme,
    unit: str,
    *,
    patients: Mapping[str, str],
) -> list[CaseScore]:
    """Return the scores of each case, as ``score_cases`` does. unit: of the distances, "mm" or "px"."""

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
        return list(track(rows, "score", len(cases)))


def distance_unit(cases: Iterable[CaseFiles]) -> str:
    """Return "mm" if the pixel size of every labelled case is known, else "px": one set is measured in one unit."""
    return "mm" if all(case.spacing_mm or read_reference(case)[1] for case in cases) else "px"


def save_scores(scores: Scores, folder: Path, scheme: LabelScheme, files: Mapping[str, tuple[Path, Path]]) -> None:
    """Write scores.json, and summary.json as nnU-Net does. files: case -> its label map and its prediction."""
    scores.save(folder / "scores.json")
    write_json(folder / "summary.json", scores.summary(scheme, files))


def _groups(config: RunConfig, store: PreparedCases, names: Sequence[str]) -> list[Group]:
    """Return the cases in groups of a batch of images; always the same ones, since a batch may change the last bits."""
    groups: list[Group] = []
    for name in names:
        if not groups or sum(len(store.cases[each]) for each in groups[-1]) >= config.recipe.batch_size:
            groups.append([])
        groups[-1].append(name)
    return groups


def _predicted(
    model: nn.Module, config: RunConfig, store: PreparedCases, groups: Sequence[Group], *, mirror: bool = True
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each case with its probabilities (K, Z, h, w), a group of them at a time."""
    with evaluating(model):
        predictor = Predictor([Member(model, config)], mirror=mirror)
        for group in groups:
            stacks = [np.stack([store.image(index) for index in store.cases[each]]) for each in group]
            for each, answer in zip(group, predictor.predict_prepared(stacks), strict=True):
                yield each, answer.probabilities


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold the model in evaluation mode for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
