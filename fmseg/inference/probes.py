"""What frozen features are worth on labelled images, in seconds: linear maps, beside those of random weights.

A probe learns on a fold's training cases and is scored on its validation cases. It says whether a pretraining has
learned anything before hours are spent on finetuning from it.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch

from fmseg.errors import BadData
from fmseg.imaging.decode import labels_from_probabilities, targets_from_labels
from fmseg.imaging.prepare import to_network
from fmseg.inference.ensemble import dice_of_case, mean_dice
from fmseg.inference.features import embed
from fmseg.inference.out_of_fold import PreparedCases
from fmseg.networks.vit import ViT
from fmseg.records.labels import LabelScheme
from fmseg.records.plans import Fold, spread

Moments = tuple[Sequence[float], Sequence[float]]

#: task of a dataset -> what is measured there
MEASURES = {"segmentation": "linear map of patches, Dice", "classification": "linear probe, macro F1"}
STRENGTHS = np.logspace(-4, 1, 6)
RIDGES = np.logspace(0, 5, 6)
NEIGHBOURS = 20
#: folds within the training cases that choose the strength
INNER_FOLDS = 3
#: cases that a probe learns on, and is scored on, at most: it shall take a minute, not an hour
MOST_CASES = 300


def thinned(fold: Fold, store: PreparedCases, most: int = MOST_CASES) -> Fold:
    """Return evenly spaced cases of a fold, those in the store: at most ``most`` to learn from and to score."""
    there = ([case for case in cases if case in store.cases] for cases in (fold.train, fold.val))
    train, val = (spread(cases, most) for cases in there)
    return Fold(train=train, val=val)


def probe(
    vit: ViT,
    moments: Moments,
    store: PreparedCases,
    fold: Fold,
    labels: LabelScheme | Mapping[str, str],
    patients: Mapping[str, str],
) -> dict[str, float]:
    """Return what a backbone is worth: ``dice`` of patches for label maps; for classes by case see ``probe_images``.

    The first value is the one that counts (``MEASURES``).
    """
    if isinstance(labels, LabelScheme):
        return {"dice": probe_patches(vit, moments, store, fold, labels)}
    return probe_images(vit, moments, store, fold, labels, patients)


def probe_patches(vit: ViT, moments: Moments, store: PreparedCases, fold: Fold, scheme: LabelScheme) -> float:
    """Fit a linear map from a patch's token to the share of each output in it; return the mean foreground Dice.

    moments: mean and std of the checkpoint, of images in [0, 1]. Of a volume only the middle slice is used.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    patch = vit.architecture.patch_size
    features = [_patch_tokens(vit, moments, store, case) for case in fold.train]
    shares = [_shares(_label(store, case), scheme, patch) for case in fold.train]
    model = make_pipeline(StandardScaler(), RidgeCV(RIDGES))
    model.fit(*(np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts]) for parts in (features, shares)))
    rows = []
    for case in fold.val:
        tokens, label = _patch_tokens(vit, moments, store, case), _label(store, case)
        found = model.predict(tokens.reshape(-1, tokens.shape[-1])).reshape(*tokens.shape[:2], -1)
        size = (tokens.shape[1] * patch, tokens.shape[0] * patch)
        maps = [cv2.resize(found[..., k].astype(np.float32), size) for k in range(found.shape[-1])]
        cut = np.stack(maps)[:, : label.shape[0], : label.shape[1]]
        rows.append(dice_of_case(labels_from_probabilities(cut, scheme), label, scheme))
    return mean_dice(np.array(rows))


def probe_images(
    vit: ViT,
    moments: Moments,
    store: PreparedCases,
    fold: Fold,
    classes: Mapping[str, str],
    patients: Mapping[str, str],
) -> dict[str, float]:
    """Fit a logistic regression and kNN on whole images; return ``linear_f1`` and ``knn_f1``, macro F1 of both.

    The strength of the regression is chosen on folds of the training patients. Raises BadData for a single class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    mean, std = moments
    x, x_test = (
        embed(vit, store, [_middle(store, case) for case in cases], mean=mean, std=std)
        for cases in (fold.train, fold.val)
    )
    y, y_test = ([classes[case] for case in cases] for cases in (fold.train, fold.val))
    if len(set(y)) < 2:
        raise BadData("the training cases show one class alone, so there is nothing to tell apart")
    groups = [patients[case] for case in fold.train]
    inner = list(GroupKFold(min(INNER_FOLDS, len(set(groups)))).split(x, y, groups))
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    search = GridSearchCV(linear, {"logisticregression__C": STRENGTHS}, cv=inner, scoring="f1_macro").fit(x, y)
    knn = KNeighborsClassifier(min(NEIGHBOURS, len(y)), weights="distance", metric="cosine").fit(x, y)
    return {
        name: float(f1_score(y_test, model.predict(x_test), average="macro"))
        for name, model in (("linear_f1", search), ("knn_f1", knn))
    }


@torch.no_grad()
def _patch_tokens(vit: ViT, moments: Moments, store: PreparedCases, case: str) -> np.ndarray:
    """Return (rows, columns, D) of a case's middle image, filled up to whole patches."""
    mean, std = moments
    image = to_network(store.image(_middle(store, case)), tuple(mean), tuple(std))
    patch, (height, width) = vit.architecture.patch_size, image.shape[1:]
    image = np.pad(image, ((0, 0), (0, -height % patch), (0, -width % patch)))
    device = next(vit.parameters()).device
    tokens = vit.eval()(torch.from_numpy(image)[None].to(device))[0, vit.num_prefix_tokens :]
    grid: np.ndarray = tokens.unflatten(0, (image.shape[1] // patch, -1)).float().cpu().numpy()
    return grid


def _middle(store: PreparedCases, case: str) -> int:
    images = store.cases[case]
    return images[len(images) // 2]


def _label(store: PreparedCases, case: str) -> np.ndarray:
    label = store.label(_middle(store, case))
    assert label is not None, f"{case} has no label map"
    return label


def _shares(label: np.ndarray, scheme: LabelScheme, patch: int) -> np.ndarray:
    """Return the share of each output in each patch: (rows, columns, K)."""
    height, width = label.shape
    label = np.pad(label, ((0, -height % patch), (0, -width % patch)), mode="edge")
    targets = targets_from_labels(label, scheme).astype(np.float32)
    cells = targets.reshape(len(targets), label.shape[0] // patch, patch, -1, patch)
    shares: np.ndarray = cells.mean((2, 4)).transpose(1, 2, 0)
    return shares
