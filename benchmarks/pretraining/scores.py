"""What frozen features are worth, in seconds, on held-out patients whom neither pretraining nor a probe has seen."""

import torch

from benchmarks.few_shot import HEADS, PLANES, held_out
from fmseg.inference.features import embed
from fmseg.inference.probes import probe_images, probe_patches
from fmseg.networks.vit import ViT
from fmseg.planning.folds import load_folds
from fmseg.records.dataset import Dataset
from fmseg.records.foundation import Foundation
from fmseg.records.plans import Fold, Plans
from fmseg.sampling.store import Store
from fmseg.tasks.dino_collapse import rankme
from fmseg.workspace import Workspace


def score_features(workspace: Workspace, vit: ViT, card: Foundation, seed: int) -> dict[str, float]:
    """Return probe and kNN of planes (macro F1), RankMe, and the Dice of a linear map from patches to heads.

    seed: which labelled heads the linear map learns from.
    """
    moments = (card.mean, card.std)
    dataset, _, store = _open(workspace, PLANES)
    rest, test, patients = held_out(dataset)
    train, val = (tuple(case for case in cases if case in store.cases) for cases in (rest, test))
    values = probe_images(vit, moments, store, Fold(train=train, val=val), dataset.classes_of_cases(), patients)
    features = embed(vit, store, [store.cases[case].start for case in val], mean=card.mean, std=card.std)
    values["rankme"] = float(rankme(torch.from_numpy(features[:, : vit.architecture.width])))
    _, plans, store = _open(workspace, HEADS)
    assert plans.labels is not None
    folds = load_folds(workspace.prepared(plans.dataset) / "splits_final.json")
    values["patch_dice"] = probe_patches(vit, moments, store, folds[seed], plans.labels)
    return values


def _open(workspace: Workspace, number: int) -> tuple[Dataset, Plans, Store]:
    name = workspace.dataset_name(str(number))
    plans = Plans.load(workspace.prepared(name) / "plans.json")
    return Dataset.load(workspace.raw_dataset(name)), plans, Store.of(workspace.prepared(name), plans)
