"""How well a label map agrees with the reference: overlap from one table of counts, distances between contours.

Empty masks: see ``EMPTY_RULE``. Pixels whose reference value is the scheme's ``ignore`` count nowhere.
"""

from typing import NamedTuple

import numpy as np

from fmseg.errors import BadData
from fmseg.imaging.case import Spacing
from fmseg.records.labels import LabelScheme
from fmseg.records.scores import ClassScore

EMPTY_RULE = (
    "A class that is empty in both masks of a case has no score there and does not count in the means. If only one "
    "of the masks is empty, Dice, IoU and NSD are 0, and HD95 and ASSD are undefined. A set in which no class is ever "
    "present or predicted scores 1; draws of the patients like that say nothing, and count in no interval."
)


def confusion(prediction: np.ndarray, reference: np.ndarray, scheme: LabelScheme) -> np.ndarray:
    """Return how many pixels have each pair of values: (V, V) int64, rows reference, columns prediction.

    Both are integer arrays of one shape. Raises BadData for another shape or an undeclared value.
    """
    if prediction.shape != reference.shape:
        raise BadData(
            f"the prediction has the shape {prediction.shape}, its label map {reference.shape} (z, y, x). "
            "Both must lie on the image's grid."
        )
    size = scheme.declared[-1] + 1
    mends = ("Predict with models of this dataset.", "'fmseg convert masks' makes label maps of other masks.")
    for name, labels, mend in zip(("prediction", "label map"), (prediction, reference), mends, strict=True):
        lowest, highest = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
        if lowest < 0 or highest >= size:
            wrong = lowest if lowest < 0 else highest
            raise BadData(f"the {name} holds the value {wrong}; declared are {list(scheme.declared)}. {mend}")
    pairs = reference.astype(np.int64).ravel() * size + prediction.ravel()
    table = np.bincount(pairs, minlength=size * size).reshape(size, size)
    if scheme.ignore is not None:
        table[scheme.ignore] = 0
    return table


def count_outputs(table: np.ndarray, scheme: LabelScheme) -> np.ndarray:
    """Return tp, fp, fn, tn per class or region, and for the background last: (N + 1, 4) int64.

    table: of ``confusion``. The background is what lies in no class or region.
    """
    counts = np.zeros((len(scheme.names) + 1, 4), dtype=np.int64)
    foreground = sorted({value for group in scheme.values for value in group})
    background = [value for value in range(len(table)) if value not in foreground]
    for row, values in enumerate((*scheme.values, background)):
        inside = np.isin(np.arange(len(table)), values)
        tp = table[np.ix_(inside, inside)].sum()
        fp = table[np.ix_(~inside, inside)].sum()
        fn = table[np.ix_(inside, ~inside)].sum()
        counts[row] = tp, fp, fn, table.sum() - tp - fp - fn
    return counts


def dice_of_counts(counts: np.ndarray) -> np.ndarray:
    """Return Dice of tp, fp, fn, tn along the last axis; NaN where both masks are empty."""
    tp, fp, fn = (counts[..., index].astype(float) for index in range(3))
    size = 2 * tp + fp + fn
    return np.divide(2 * tp, size, out=np.full(size.shape, np.nan), where=size > 0)


def score_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    scheme: LabelScheme,
    spacing_mm: Spacing,
    nsd_tolerance: float | None,
) -> dict[str, ClassScore]:
    """Score each class or region of one case.

    prediction, reference: (Z, Y, X) integers. spacing_mm: (z, y, x), or None to measure distances in pixels.
    nsd_tolerance: in the same unit; None leaves out HD95, ASSD and NSD.
    """
    counts = count_outputs(confusion(prediction, reference, scheme), scheme)
    counted = reference != scheme.ignore if scheme.ignore is not None else np.True_
    scores = {}
    for name, values, row in zip(scheme.names, scheme.values, counts[:-1].tolist(), strict=True):
        tp, fp, fn, tn = row
        hd95, assd, nsd = None, None, None
        if nsd_tolerance is not None and tp + fp and tp + fn:
            masks = np.isin(prediction, values) & counted, np.isin(reference, values) & counted
            hd95, assd, nsd = contour_distances(*masks, spacing_mm, nsd_tolerance)
        elif nsd_tolerance is not None and tp + fp + fn:
            nsd = 0.0
        dice = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None
        iou = tp / (tp + fp + fn) if tp + fp + fn else None
        scores[name] = ClassScore(dice=dice, iou=iou, hd95=hd95, assd=assd, nsd=nsd, tp=tp, fp=fp, fn=fn, tn=tn)
    return scores


def background_counts(prediction: np.ndarray, reference: np.ndarray, scheme: LabelScheme) -> tuple[int, int, int]:
    """Return tp, fp, fn of the pixels that lie in no class or region."""
    tp, fp, fn, _ = count_outputs(confusion(prediction, reference, scheme), scheme)[-1].tolist()
    return tp, fp, fn


class ContourDistances(NamedTuple):
    """How far two contours are apart, in mm or pixels; ``nsd`` is a share."""

    hd95: float
    assd: float
    nsd: float


def contour_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Spacing, tolerance: float
) -> ContourDistances:
    """Return HD95, ASSD and the surface Dice at ``tolerance`` (NSD) of two masks that are not empty.

    ASSD is the mean distance of the points of both contours to the other one, each by the length (or area) that it
    stands for.

    prediction, reference: (Z, Y, X) bool; Z = 1 is measured as 2D contours, weighted by their length.
    """
    from surface_distance import metrics as surface

    spacing: tuple[float, ...] = spacing_mm or (1.0, 1.0, 1.0)
    box = _bounding_box(prediction | reference)
    one, other = prediction[box], reference[box]
    if prediction.shape[0] == 1:
        one, other, spacing = one[0], other[0], spacing[1:]
    distances = surface.compute_surface_distances(other, one, spacing)
    hd95 = surface.compute_robust_hausdorff(distances, 95)
    nsd = surface.compute_surface_dice_at_tolerance(distances, tolerance)
    sides = [
        (distances[f"distances_{name}"], distances[f"surfel_areas_{other}"])
        for name, other in (("gt_to_pred", "gt"), ("pred_to_gt", "pred"))
    ]
    assd = sum((lengths * areas).sum() for lengths, areas in sides) / sum(areas.sum() for _, areas in sides)
    return ContourDistances(float(hd95), float(assd), float(nsd))


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)
