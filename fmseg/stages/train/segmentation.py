"""What segmentation brings to training: patches with label maps, Dice, whole label maps of the validation cases."""

from pathlib import Path

from torch import nn

from fmseg.imaging.case import Array
from fmseg.imaging.measure import read_facts
from fmseg.inference.members import scheme_of
from fmseg.inference.out_of_fold import predict_fold, validate
from fmseg.networks.decoders import decoders
from fmseg.networks.segmenter import segmenters as networks
from fmseg.records.dataset import Dataset
from fmseg.records.plans import spread
from fmseg.records.scores import Scores
from fmseg.sampling.patches import PatchDataset
from fmseg.sampling.presence import images_by_class, values_shown
from fmseg.stages.train.fold import FoldRun, build_model, fit_task
from fmseg.tasks.segmentation import SegmentationTask

__all__ = ["decoders", "learn", "load_scores", "networks", "score"]


def learn(fold: FoldRun) -> nn.Module:
    """Train the network of a fold and return the average of its weights."""
    config, recipe = fold.config, fold.config.recipe
    scheme = scheme_of(config)
    model = build_model(config, fold.weights)
    task = SegmentationTask(model, scheme, loss_name=recipe.loss, ema_decay=recipe.ema_decay)
    images = fold.store.cases
    indices = [index for case in fold.material.train for index in images[case]]
    samples = PatchDataset(
        fold.store,
        indices,
        recipe,
        mean=config.mean,
        std=config.std,
        seed=recipe.seed,
        ignore=scheme.ignore,
        showing=_images_of_classes(fold, indices),
    )
    seen = spread(fold.material.val, recipe.validation_cases)
    fit_task(
        fold, task, samples, len(indices), lambda averaged: {"val_dice": validate(averaged, config, fold.store, seen)}
    )
    return task.averaged


def _images_of_classes(fold: FoldRun, indices: list[int]) -> list[Array]:
    """Return the images that show each class; none where nothing is drawn by class."""
    if not fold.config.recipe.foreground_share:
        return []
    scheme = scheme_of(fold.config)
    classes = [values for _, values in sorted(zip(scheme.names, scheme.values, strict=True))]
    return images_by_class(values_shown(fold.store), indices, classes)


def score(fold: FoldRun, model: nn.Module) -> Scores:
    """Predict the fold's validation cases whole and score them on their own grids; the ranks share them."""
    dataset = Dataset.load(fold.workspace.raw_dataset(fold.config.plans.dataset))
    facts = read_facts(fold.workspace.prepared(dataset.name) / "cases.jsonl")
    patients = {each.case: each.patient for each in facts}
    cases = dataset.training_cases()
    fold.runtime.make_alike(model)  # the best weights, chosen by rank 0, or the last ones
    folder = fold.run.validation
    return predict_fold(model, fold.config, fold.store, cases, folder, patients=patients, ranks=fold.runtime)


def load_scores(path: Path) -> Scores:
    """Read scores.json."""
    return Scores.load(path)
