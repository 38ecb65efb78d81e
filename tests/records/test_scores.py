"""summary.json is what a parser written for nnU-Net expects."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fmseg.imaging.metrics import background_counts, score_case
from fmseg.inference.scoring import score
from fmseg.records.labels import LabelScheme
from fmseg.records.scores import CaseScore

REFERENCES = {
    "a": [[0, 1, 1, 2], [0, 1, 2, 2], [3, 3, 0, 0]],
    "b": [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]],
    "c": [[0] * 4] * 3,
}
PREDICTIONS = {
    "a": [[0, 1, 2, 2], [1, 1, 2, 0], [0, 2, 0, 0]],
    "b": [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]],
    "c": [[0] * 4] * 3,
}
MEASURES = ("Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref")
NONE = (math.nan, 0, 0, math.nan, 12, 0, 0, 0)
CLASSES = LabelScheme(
    names=("one", "two", "three"), values=((1,), (2,), (3,)), painted=(1, 2, 3), has_regions=False, ignore=None
)
REGIONS = LabelScheme(names=("both", "two"), values=((1, 2), (2,)), painted=(1, 2), has_regions=True, ignore=3)

# what compute_metrics_on_folder of nnU-Net 2.8.1 writes for these masks as PNG: of labels 1, 2 and 3, and of the
# regions (1, 2) and 2 where 3 is to be ignored
OF_CLASSES = {
    "foreground_mean": (25 / 63, 2 / 3, 4 / 9, 17 / 60, 92 / 9, 2 / 3, 10 / 9, 4 / 3),
    "mean": {
        "1": (13 / 21, 1, 2 / 3, 0.45, 9, 4 / 3, 2, 7 / 3),
        "2": (4 / 7, 1 / 3, 2 / 3, 0.4, 31 / 3, 2 / 3, 4 / 3, 1),
        "3": (0, 2 / 3, 0, 0, 34 / 3, 0, 0, 2 / 3),
    },
    "metric_per_case": [
        {"1": (2 / 3, 1, 1, 0.5, 8, 2, 3, 3), "2": (4 / 7, 1, 2, 0.4, 7, 2, 4, 3), "3": (0, 2, 0, 0, 10, 0, 0, 2)},
        {"1": (4 / 7, 2, 1, 0.4, 7, 2, 3, 4), "2": NONE, "3": NONE},
        {"1": NONE, "2": NONE, "3": NONE},
    ],
}
OF_REGIONS = {
    "foreground_mean": (115 / 168, 2 / 3, 0.5, 37 / 70, 26 / 3, 1.5, 2, 13 / 6),
    "mean": {
        "(1, 2)": (59 / 84, 1, 2 / 3, 39 / 70, 22 / 3, 7 / 3, 3, 10 / 3),
        "2": (2 / 3, 1 / 3, 1 / 3, 0.5, 10, 2 / 3, 1, 1),
    },
    "metric_per_case": [
        {"(1, 2)": (5 / 6, 1, 1, 5 / 7, 3, 5, 6, 6), "2": (2 / 3, 1, 1, 0.5, 6, 2, 3, 3)},
        {"(1, 2)": (4 / 7, 2, 1, 0.4, 7, 2, 3, 4), "2": NONE},
        {"(1, 2)": NONE, "2": NONE},
    ],
}


def summary_of(references, predictions, scheme):
    cases = []
    for name in references:
        pair = [np.array([maps[name]]) for maps in (predictions, references)]
        found = score_case(*pair, scheme, None, None)
        background = background_counts(*pair, scheme)
        cases.append(CaseScore(case=name, patient=name, classes=found, background=background))
    scores = score(cases, distance_unit="px")
    files = {name: (Path("labels") / f"{name}.png", Path("found") / f"{name}.tif") for name in references}
    return scores, json.loads(json.dumps(scores.summary(scheme, files)))


def matches(found, expected):
    assert tuple(sorted(found)) == MEASURES
    assert [found[name] for name in MEASURES] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("scheme", "expected"), [(CLASSES, OF_CLASSES), (REGIONS, OF_REGIONS)])
def test_the_summary_is_that_of_nnunet(scheme, expected):
    scores, found = summary_of(REFERENCES, PREDICTIONS, scheme)
    matches(found["foreground_mean"], expected["foreground_mean"])
    assert found["foreground_mean"]["Dice"] == scores.foreground_dice.mean
    assert list(found["mean"]) == list(expected["mean"])
    for key, values in expected["mean"].items():
        matches(found["mean"][key], values)
    for case, name, metrics in zip(found["metric_per_case"], REFERENCES, expected["metric_per_case"], strict=True):
        assert (case["reference_file"], case["prediction_file"]) == (f"{name}.png", f"{name}.tif")
        assert list(case["metrics"]) == list(metrics)
        for key, values in metrics.items():
            matches(case["metrics"][key], values)


def test_a_class_that_is_nowhere_counts_in_no_foreground_mean_and_none_at_all_is_one():
    _, found = summary_of({"b": REFERENCES["b"]}, {"b": PREDICTIONS["b"]}, CLASSES)
    assert math.isnan(found["mean"]["2"]["Dice"]) and found["mean"]["2"]["TN"] == 12
    assert found["foreground_mean"]["Dice"] == found["mean"]["1"]["Dice"]
    _, found = summary_of({"c": REFERENCES["c"]}, {"c": PREDICTIONS["c"]}, CLASSES)
    assert found["foreground_mean"]["Dice"] == found["foreground_mean"]["IoU"] == 1.0
