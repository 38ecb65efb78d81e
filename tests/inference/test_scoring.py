import numpy as np
import pytest

from fmseg.inference.scoring import (
    column_means,
    draw_patients,
    mean_over_classes,
    score,
    share_of_draws_better,
)
from fmseg.records.scores import CaseScore, ClassScore


def class_score(tp, fp, fn, tn=100):
    total = tp + fp + fn
    return ClassScore(
        dice=2 * tp / (total + tp) if total else None,
        iou=tp / total if total else None,
        hd95=1.0 if tp else None,
        nsd=None,
        tp=tp,
        fp=fp,
        fn=fn,
        tn=tn,
    )


def case(name, patient, **classes):
    return CaseScore(case=name, patient=patient, classes=classes, background=(90, 5, 5))


def random_cases(seed, quality=0.0, patients=30, images=4):
    rng = np.random.default_rng(seed)
    dice = np.clip(rng.normal(0.7 + quality, 0.05, patients)[:, None] + rng.normal(0, 0.01, (patients, images)), 0, 1)
    counts = np.rint(1000 * dice).astype(int)
    return [
        case(f"{p}_{i}", f"p{p}", a=class_score(int(counts[p, i]), 1000 - int(counts[p, i]), 1000 - int(counts[p, i])))
        for p in range(patients)
        for i in range(images)
    ]


def test_means_by_hand():
    scores = score(
        [
            case("x", "1", a=class_score(1, 1, 1), b=class_score(0, 0, 0)),
            case("y", "2", a=class_score(2, 0, 0), b=class_score(0, 3, 0)),
        ],
        distance_unit="px",
    )
    assert scores.mean["a"]["dice"].mean == pytest.approx((0.5 + 1) / 2)
    assert scores.mean["b"]["dice"].mean == 0.0
    assert "hd95" not in scores.mean["b"]
    assert scores.foreground_dice.mean == pytest.approx(0.375)
    assert scores.pooled_foreground_dice == pytest.approx((6 / 8 + 0) / 2)
    assert scores.pooled_dice_with_background == pytest.approx((6 / 8 + 0 + 360 / 380) / 3)


def test_scores_survive_the_disk(tmp_path):
    scores = score(random_cases(0), distance_unit="mm")
    scores.save(tmp_path / "scores.json")
    assert type(scores).load(tmp_path / "scores.json") == scores


def test_the_interval_is_that_of_the_patients_not_of_the_images():
    few = score(random_cases(0, images=1), distance_unit="px").foreground_dice
    many = score(random_cases(0, images=20), distance_unit="px").foreground_dice
    # twenty images of the same patients tell hardly more than one of each
    assert many.high - many.low > 0.8 * (few.high - few.low)
    expected = 2 * 1.96 * 0.05 / 30**0.5
    assert many.high - many.low == pytest.approx(expected, rel=0.3)
    assert many.low < many.mean < many.high


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(60):
        found = score(random_cases(seed, images=2), distance_unit="px").foreground_dice
        hits += found.low <= 0.7 <= found.high
    assert 50 <= hits <= 60


def test_equal_cases_give_an_interval_of_no_width_and_a_fixed_one():
    same = [case(str(i), str(i), a=class_score(5, 5, 0)) for i in range(5)]
    found = score(same, distance_unit="px").foreground_dice
    assert found.low == pytest.approx(found.mean) and found.high == pytest.approx(found.mean)
    assert score(random_cases(3), distance_unit="px") == score(random_cases(3), distance_unit="px")


def test_a_set_without_any_class_scores_one():
    scores = score([case("x", "1", a=class_score(0, 0, 0))], distance_unit="px")
    assert scores.foreground_dice.mean == 1.0
    assert scores.mean == {}


def test_a_better_model_wins_most_draws_and_itself_none():
    worse, better = random_cases(0), random_cases(0, quality=0.02)
    assert share_of_draws_better(better, worse) == 1.0
    assert share_of_draws_better(worse, better) == 0.0
    assert share_of_draws_better(worse, worse) == 0.0


def test_draws_take_as_many_patients_as_there_are():
    draws = draw_patients(["a", "b", "b", "c"], 50)
    assert draws.shape == (50, 3)
    assert (draws.sum(axis=1) == 3).all()


def test_column_means_leave_out_what_is_undefined():
    values = np.array([[1.0, np.nan], [0.0, np.nan], [0.5, np.nan]])
    means = column_means(values, ["a", "a", "b"])
    assert means[0] == 0.5 and np.isnan(means[1])
    assert mean_over_classes(means) == 0.5
    drawn = column_means(values, ["a", "a", "b"], np.array([[2, 0], [0, 2], [1, 1]]))
    assert drawn[:, 0].tolist() == [0.5, 0.5, 0.5]


def test_pooled_dice_of_each_class_is_the_f1_of_all_pixels():
    from sklearn.metrics import f1_score

    from fmseg.imaging.metrics import background_counts, score_case
    from fmseg.records.labels import LabelScheme

    scheme = LabelScheme(names=("a", "b"), values=((1,), (2,)), painted=(1, 2), has_regions=False, ignore=None)
    rng = np.random.default_rng(0)
    pairs = [rng.integers(0, 3, (2, 1, 12, 20)) * rng.integers(0, 2, (2, 1, 12, 20)) for _ in range(5)]
    cases = [
        CaseScore(
            case=str(number),
            patient=str(number),
            classes=score_case(prediction, reference, scheme, None, None),
            background=background_counts(prediction, reference, scheme),
        )
        for number, (prediction, reference) in enumerate(pairs)
    ]
    scores = score(cases, distance_unit="px")
    predicted, wanted = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    each = f1_score(wanted, predicted, average=None)
    assert list(scores.pooled_dice.values()) == pytest.approx([each[1], each[2], each[0]], abs=1e-6)
    assert scores.pooled_foreground_dice == pytest.approx(each[1:].mean(), abs=1e-6)
    assert scores.pooled_dice_with_background == pytest.approx(each.mean(), abs=1e-6)
    assert list(scores.intervals) == ["Dice", "Dice of a", "Dice of b"]
    columns, rows = scores.table()
    assert all(len(row) == len(columns) for row in rows)


def rare(tp):
    """Two patients with a lesion among twelve: most of the others are drawn alone in every ninth draw."""
    lesions = [case(name, name, a=class_score(tp, 40, wrong)) for name, wrong in (("p1", 40), ("p2", 50))]
    return [*lesions, *(case(f"n{i}", f"n{i}", a=class_score(0, 0, 0)) for i in range(10))]


def test_draws_without_any_class_say_nothing_of_the_set():
    scores = score(rare(30), distance_unit="px")
    assert scores.foreground_dice == scores.mean["a"]["dice"]
    assert share_of_draws_better(rare(60), rare(30)) == 1.0
    # of nothing at all neither is better, and the whole set scores one by the rule
    nothing = [case("x", "1", a=class_score(0, 0, 0))]
    assert share_of_draws_better(nothing, nothing) == 0.0
    found = score(nothing, distance_unit="px").foreground_dice
    assert (found.low, found.mean, found.high) == (1.0, 1.0, 1.0)
