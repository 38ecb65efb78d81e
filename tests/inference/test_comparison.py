import numpy as np
import pytest
from sklearn.metrics import f1_score

from fmseg.errors import BadData
from fmseg.inference.class_scoring import score_classes
from fmseg.inference.comparison import compare
from fmseg.inference.scoring import score
from fmseg.records.labels import ClassScheme
from fmseg.records.scores import CaseScore, ClassScore

SCHEME = ClassScheme(names=("a", "b", "c"), is_exclusive=True)


def dice_scores(values, patients=None):
    patients = patients or [f"p{index}" for index in range(len(values))]

    def one(value):
        tp = round(1000 * value)
        return ClassScore(dice=value, iou=None, hd95=None, nsd=None, tp=tp, fp=1000 - tp, fn=1000 - tp, tn=0)

    cases = [
        CaseScore(case=f"c{index}", patient=patient, classes={"head": one(value)}, background=(1, 0, 0))
        for index, (value, patient) in enumerate(zip(values, patients, strict=True))
    ]
    return score(cases, distance_unit="px")


def class_scores(labels, decided):
    targets, probabilities = np.eye(3)[labels], np.full((len(labels), 3), 0.1)
    probabilities[np.arange(len(labels)), decided] = 0.8
    cases = [f"c{index}" for index in range(len(labels))]
    return score_classes(cases, probabilities, targets, SCHEME, patients={})


def test_a_run_beside_itself_differs_in_nothing():
    values = np.random.default_rng(0).uniform(0.5, 1, 40).tolist()
    found = compare(dice_scores(values), dice_scores(values))
    assert (found.difference.mean, found.difference.low, found.difference.high) == (0, 0, 0)
    assert found.is_noise and found.p_value == 1 and "within the noise" in found.verdict("x", "y")


def test_pairs_show_a_small_difference_that_intervals_hide():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.3, 0.95, 60)
    first, second = dice_scores(hard.tolist()), dice_scores((hard + 0.01 + rng.normal(0, 0.01, 60)).tolist())
    assert second.foreground_dice.low < first.foreground_dice.high  # the intervals overlap by far
    found = compare(first, second)
    assert not found.is_noise and found.p_value < 0.01
    assert found.verdict("unet", "upernet").startswith("upernet is better than unet")
    assert compare(second, first).verdict("upernet", "unet").startswith("upernet is better than unet")


def test_images_of_one_patient_count_as_one_observation():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.3, 0.9, 60)
    # one patient of many images is better told, all others are the same
    better = hard + 0.05 * (np.arange(60) < 30)
    patients = ["p"] * 30 + [f"q{index}" for index in range(30)]
    assert compare(dice_scores(hard.tolist(), patients), dice_scores(better.tolist(), patients)).difference.low == 0
    assert not compare(dice_scores(hard.tolist()), dice_scores(better.tolist())).is_noise


def test_under_the_null_few_comparisons_are_found_significant():
    rng = np.random.default_rng(0)
    significant = 0
    for _ in range(60):
        hard = rng.uniform(0.4, 0.9, 40)
        values = (np.clip(hard + rng.normal(0, 0.05, 40), 0, 1).tolist() for _ in "ab")
        significant += not compare(*(dice_scores(each) for each in values)).is_noise
    assert significant <= 9  # 3 expected


def test_the_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 80)
    decided = [np.where(rng.random(80) < share, labels, rng.integers(0, 3, 80)) for share in (0.5, 0.95)]
    found = compare(*(class_scores(labels, each) for each in decided))
    expected = [f1_score(labels, each, average="macro") for each in decided]
    assert (found.first, found.second) == pytest.approx(expected, abs=1e-9)
    assert found.difference.mean == pytest.approx(expected[1] - expected[0], abs=1e-9)
    assert found.measure == "macro F1" and not found.is_noise


def test_other_cases_and_other_tasks_are_refused():
    with pytest.raises(BadData, match="different cases"):
        compare(dice_scores([0.5, 0.6]), dice_scores([0.5, 0.6, 0.7]))
    with pytest.raises(BadData, match="no measure in common"):
        compare(dice_scores([0.5, 0.6, 0.7]), class_scores([0, 1, 2], [0, 1, 2]))


def test_draws_in_which_no_class_occurs_do_not_make_a_difference_noise():
    def rare(dice):
        empty = ClassScore(dice=None, iou=None, hd95=None, nsd=None, tp=0, fp=0, fn=0, tn=9)
        told = dice_scores(dice).cases
        rest = [told[0].evolve(case=f"n{i}", patient=f"n{i}", classes={"head": empty}) for i in range(10)]
        return score([*told, *rest], distance_unit="px")

    found = compare(rare([0.4, 0.3]), rare([0.6, 0.5]))
    assert found.difference.low == pytest.approx(0.2) and not found.is_noise
    nothing = score(rare([0.4]).cases[1:], distance_unit="px")
    same = compare(nothing, nothing)
    assert (same.first, same.difference.low, same.difference.high, same.p_value) == (1.0, 0.0, 0.0, 1.0)
