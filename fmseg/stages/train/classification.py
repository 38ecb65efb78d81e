"""What classification brings to training: whole images with classes, macro F1, probabilities of the validation cases.

A recipe either learns in the loop, as segmentation does, or is solved: the best of a grid of linear heads on the
features of a frozen backbone.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from fmseg.errors import UsageError
from fmseg.files import write_json
from fmseg.imaging.decode import targets_from_classes
from fmseg.imaging.measure import read_facts
from fmseg.inference.feature_cache import cached_features
from fmseg.inference.members import classes_of
from fmseg.inference.out_of_fold_classes import predict_classes, validate_classes
from fmseg.networks.classifier import ClassHead, Classifier
from fmseg.networks.classifier import classifiers as networks
from fmseg.networks.classifier import heads as decoders
from fmseg.records.dataset import Dataset
from fmseg.records.plans import spread
from fmseg.records.scores import ClassificationScores
from fmseg.sampling.whole_images import WholeImageDataset
from fmseg.stages.train.fold import FoldRun, build_model, fit_task
from fmseg.tasks.classification import ClassificationTask
from fmseg.tasks.linear_probe import STRENGTHS, WIDE_STRENGTHS, Candidate, fit_probe
from fmseg.tasks.neighbours import fit_neighbours

__all__ = ["decoders", "learn", "load_scores", "networks", "score"]

logger = logging.getLogger(__name__)

GRID = "grid.json"


def learn(fold: FoldRun) -> nn.Module:
    """Train the network of a fold and return the average of its weights; or solve its head."""
    model = build_model(fold.config, fold.weights).to(fold.runtime.device)
    if fold.config.recipe.learned_by == "steps":
        return _train(fold, model)
    return _solve(fold, cast(Classifier, model))


def score(fold: FoldRun, model: nn.Module) -> ClassificationScores | None:
    """Predict the fold's validation cases and score them. Rank 0 does, since it alone has the head that was solved."""
    if not fold.runtime.is_main:
        return None
    targets = _targets(fold, fold.config.cases.val)
    patients = _patients(fold)
    return predict_classes(model, fold.config, fold.store, targets, fold.run.validation, patients=patients)


def load_scores(path: Path) -> ClassificationScores:
    """Read scores.json."""
    return ClassificationScores.load(path)


def _train(fold: FoldRun, model: nn.Module) -> nn.Module:
    config, recipe = fold.config, fold.config.recipe
    task = ClassificationTask(
        model,
        classes_of(config),
        class_weights=recipe.class_weights,
        label_smoothing=recipe.label_smoothing,
        ema_decay=recipe.ema_decay,
    )
    cases = fold.material.train
    targets = dict(zip(cases, _targets(fold, cases), strict=True))
    samples = WholeImageDataset(fold.store, targets, recipe, mean=config.mean, std=config.std, seed=recipe.seed)
    seen = spread(fold.material.val, recipe.validation_cases)
    wanted = _targets(fold, seen)
    fit_task(fold, task, samples, len(samples), lambda net: validate_classes(net, config, fold.store, seen, wanted))
    return task.averaged


def _solve(fold: FoldRun, model: Classifier) -> nn.Module:
    """Give a network the best head of a grid. Only rank 0 works; the others wait."""
    config, recipe = fold.config, fold.config.recipe
    needed = "nearest_head" if recipe.learned_by == "neighbours" else "class_head"
    if recipe.decoder != needed or recipe.network != "vit":
        raise UsageError(f"The recipe {recipe.name} solves the head '{needed}' of a ViT only. Take that one.")
    if not fold.runtime.is_main:
        return model
    place = fold.workspace.prepared(config.plans.dataset) / f"{config.plans.name}_features"
    features = cached_features(model.eval(), config, fold.store, place)
    cases, patients = config.cases.train, _patients(fold)
    counts = [len(fold.store.cases[case]) for case in cases]
    rows = features[np.concatenate([np.array(fold.store.cases[case]) for case in cases])]
    targets = np.repeat(_targets(fold, cases), counts, axis=0)
    groups = np.repeat([patients.get(case, case) for case in cases], counts).tolist()
    scheme = classes_of(config)
    if recipe.learned_by == "neighbours":
        nearest = fit_neighbours(rows, targets, groups, scheme, num_blocks=recipe.head_blocks)
        model.head = nearest.head.to(fold.runtime.device)
        _note(fold, nearest.chosen, nearest.candidates)
        return model
    is_alone = recipe.learned_by == "logreg"
    found = fit_probe(
        rows,
        targets,
        groups,
        scheme,
        num_blocks=recipe.head_blocks,
        class_weights=recipe.class_weights,
        strengths=WIDE_STRENGTHS if is_alone else STRENGTHS,
        class_token_alone=is_alone,
    )
    _note(fold, found.chosen, found.candidates)
    head = cast(ClassHead, model.head)
    with torch.no_grad():
        head.classify.weight.copy_(torch.from_numpy(found.weight))
        head.classify.bias.copy_(torch.from_numpy(found.bias))
    return model


def _note(fold: FoldRun, chosen: Candidate, candidates: Sequence[Candidate]) -> None:
    """Say which head was chosen, and keep the whole grid beside it."""
    score = "" if chosen.macro_f1 is None else f", macro F1 {chosen.macro_f1:.3f} within the training cases"
    of = "neighbours" if fold.config.recipe.learned_by == "neighbours" else "C"
    logger.info("the best of %d heads: %s, %s = %g%s", len(candidates), chosen.features, of, chosen.strength, score)
    columns = ("features", "strength", "macro_f1")
    grid = [{name: getattr(each, name) for name in columns} for each in candidates]
    write_json(fold.run.path / GRID, {"chosen": {name: getattr(chosen, name) for name in columns}, "grid": grid})


def _targets(fold: FoldRun, cases: tuple[str, ...]) -> np.ndarray:
    dataset = Dataset.load(fold.workspace.raw_dataset(fold.config.plans.dataset))
    source = dataset.folder / "labelsTr.csv"
    return targets_from_classes(dataset.classes_of_cases(), cases, classes_of(fold.config), source)


def _patients(fold: FoldRun) -> dict[str, str]:
    facts = read_facts(fold.workspace.prepared(fold.config.plans.dataset) / "cases.jsonl")
    return {each.case: each.patient for each in facts}
