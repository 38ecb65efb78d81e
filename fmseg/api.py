"""fmseg in Python: the four commands as functions, one image at a time, and checkpoints as timm models.

All of it is at hand as ``fmseg.train``, ``fmseg.Predictor`` ...; torch is imported where it is needed, not before. A
script that starts processes (``num_processes``, ``num_workers``) must stand under ``if __name__ == "__main__":``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmseg.cli.arguments import parse_duration, parse_fold
from fmseg.cli.frame import Session
from fmseg.cli.preparation import Preparation, image_datasets, prepare_dataset
from fmseg.errors import UsageError
from fmseg.predictor import Classification, DatasetName, File, Predictor, Segmentation
from fmseg.workspace import Workspace

if TYPE_CHECKING:
    from torch import nn

    from fmseg.records.foundation import Foundation
    from fmseg.records.scores import ClassificationScores, Scores
    from fmseg.records.selection import Selection
    from fmseg.stages.predict import Report

__all__ = [
    "Classification",
    "Predictor",
    "Prepared",
    "Segmentation",
    "TrainedFold",
    "Training",
    "load_foundation",
    "plan_and_preprocess",
    "predict",
    "pretrain",
    "train",
]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A dataset that is planned and prepared."""

    dataset: str
    num_cases: int
    num_patients: int
    num_warnings: int
    #: files of an unlabelled dataset that could not be read
    num_skipped: int


@dataclass(frozen=True, slots=True)
class TrainedFold:
    """One fold of one recipe."""

    recipe: str
    fold: int
    #: of its validation cases; None for the fold of all cases
    scores: "Scores | ClassificationScores | None"


@dataclass(frozen=True, slots=True)
class Training:
    """What ``train`` has made."""

    folds: tuple[TrainedFold, ...]
    #: which of all that is trained predicts; None where a single fold was asked for
    selection: "Selection | None"


def plan_and_preprocess(
    datasets: DatasetName | Sequence[DatasetName] = (),
    *,
    images: File | None = None,
    modality: str | None = None,
    budget: str | None = None,
    num_processes: int = 0,
    root: File | None = None,
) -> list[Prepared]:
    """Check, measure, plan and prepare datasets, or unlabelled images that lie anywhere.

    datasets: numbers, names or parts of names. budget: time of a pretraining, as "2h". root: folder of the workspace;
    None for the current one. Raises FmsegError with one message that names file, problem and mend.
    """
    session = _session(root)
    names = [session.workspace.dataset_name(str(each)) for each in _several(datasets)]
    names += image_datasets(session, [Path(images)] if images else None, modality)
    if not names:
        raise UsageError("Which dataset? Give its number, as in plan_and_preprocess(501), or a folder of images.")
    how = Preparation(num_processes, budget_s=parse_duration(budget))
    rows = [prepare_dataset(session, name, how) for name in names]
    return [Prepared(name, cases, patients, *counts) for name, cases, patients, _, *counts in rows]


def pretrain(
    datasets: DatasetName | Sequence[DatasetName] = (),
    *,
    name: str | None = None,
    init: str | None = None,
    budget: str | None = None,
    settings: Mapping[str, Any] | None = None,
    num_workers: int | None = 0,
    root: File | None = None,
) -> list["Foundation"]:
    """Pretrain one foundation checkpoint per modality; goes on where it was stopped.

    datasets: without any, all that are prepared. settings: numbers of the plan to change, as {"iterations": 500}.
    """
    from fmseg.stages.pretrain import PretrainOptions
    from fmseg.stages.pretrain import pretrain as learn

    session = _session(root)
    workspace = session.workspace
    names = [workspace.dataset_name(str(each)) for each in _several(datasets)] or workspace.dataset_names()
    options = PretrainOptions(
        name=name, init=init, budget_s=parse_duration(budget), settings=_texts(settings), num_workers=num_workers
    )
    return learn(workspace, names, options)


def train(
    dataset: DatasetName,
    fold: int | str | None = None,
    *,
    recipe: str | None = None,
    init: str = "auto",
    settings: Mapping[str, Any] | None = None,
    num_workers: int | None = 0,
    root: File | None = None,
) -> Training:
    """Train one fold (a number, or "all"), or every fold of every planned recipe, and choose what predicts.

    settings: numbers of the recipe to change, as {"iterations": 500}. Goes on where it was stopped.
    """
    from fmseg.stages.find_best import find_best
    from fmseg.stages.train import TrainOptions, num_folds, planned_recipes
    from fmseg.stages.train import train as learn

    workspace = _session(root).workspace
    name = workspace.dataset_name(str(dataset))
    planned = planned_recipes(workspace, name, "fmsegPlans", init)[: 1 if fold is not None else None]
    folds = [parse_fold(str(fold))] if fold is not None else list(range(num_folds(workspace, name)))
    done = []
    for each in [recipe] if recipe else planned:
        options = TrainOptions(recipe=each, init=init, settings=_texts(settings), num_workers=num_workers)
        done += [TrainedFold(each, number, _scores(learn(workspace, name, number, options))) for number in folds]
    return Training(tuple(done), find_best(workspace, name) if fold is None else None)


def predict(
    input: File,
    output: File,
    *,
    dataset: DatasetName | None = None,
    model: File | None = None,
    overlays: bool = False,
    mirror: bool = True,
    overwrite: bool = False,
    root: File | None = None,
) -> "Report":
    """Predict a folder of images with what ``train`` chose, or with a .fmseg file (``model``)."""
    from fmseg.stages.predict import predict as infer

    session = _session(root)
    return infer(
        *(session.workspace, Path(input), Path(output)),
        dataset=None if dataset is None else str(dataset),
        model=None if model is None else Path(model),
        overlays=overlays,
        mirror=mirror,
        overwrite=overwrite,
        plugins=session.plugins,
    )


def load_foundation(name_or_path: File, *, root: File | None = None) -> "nn.Module":
    """Return a foundation checkpoint as a timm VisionTransformer: forward_features, num_features, pretrained_cfg ...

    name_or_path: of a checkpoint of the workspace, its folder, or a .fmseg file. It takes images (B, C, H, W) of any
    size, normalised by ``pretrained_cfg["mean"]`` and ``["std"]``. Raises UnknownName, BadData.

    >>> import fmseg, torch
    >>> vit = fmseg.load_foundation("abdomen")
    >>> vit.num_features, vit.forward_features(torch.zeros(1, 1, 32, 32)).shape
    (16, torch.Size([1, 17, 16]))
    """
    from fmseg.inference.bundles import opened
    from fmseg.networks.timm_form import as_timm
    from fmseg.networks.weights import load_backbone
    from fmseg.records.bundle import ENDING
    from fmseg.records.foundation import find_foundations, named_foundation

    path = Path(name_or_path)
    if path.name.endswith(ENDING):
        with opened(path, kind="foundation") as folder:
            vit, card = load_backbone(folder)
    elif path.is_dir():
        vit, card = load_backbone(path)
    else:
        found = find_foundations(_session(root).workspace.foundations())
        vit, card = load_backbone(named_foundation(found, str(name_or_path))[0])
    return as_timm(vit, card.mean, card.std)


def _session(root: File | None) -> Session:
    workspace = Workspace.find(None if root is None else Path(root))
    return Session(workspace, dry_run=False, plugins=workspace.plugins)


def _several(datasets: DatasetName | Sequence[DatasetName]) -> Sequence[DatasetName]:
    return [datasets] if isinstance(datasets, int | str) else datasets


def _texts(settings: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in (settings or {}).items()}


def _scores(found: Any) -> "Scores | ClassificationScores | None":
    return found
