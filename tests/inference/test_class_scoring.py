import numpy as np
import pytest
from sklearn import metrics

from fmseg.inference.class_scoring import macro_f1, rankings, score_classes, share_of_draws_better
from fmseg.records.labels import ClassScheme

EXCLUSIVE = ClassScheme(names=("a", "b", "c"), is_exclusive=True)
SEVERAL = ClassScheme(names=("a", "b", "c"), is_exclusive=False)


def made(scheme, num=90, seed=0):
    """Noisy probabilities, some of them equal, of cases of 30 patients."""
    rng = np.random.default_rng(seed)
    if scheme.is_exclusive:
        targets = np.eye(3)[rng.choice(3, num, p=[0.6, 0.3, 0.1])]
        logits = 1.5 * targets + rng.normal(0, 1, (num, 3))
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    else:
        targets = rng.integers(0, 2, (num, 3)).astype(float)
        probabilities = 1 / (1 + np.exp(-(2 * targets - 1 + rng.normal(0, 1, (num, 3)))))
    cases = [f"c{index}" for index in range(num)]
    return cases, np.round(probabilities, 2), targets, {case: f"p{index // 3}" for index, case in enumerate(cases)}


def scored(scheme, **options):
    cases, probabilities, targets, patients = made(scheme, **options)
    return score_classes(cases, probabilities, targets, scheme, patients=patients), probabilities, targets


def test_figures_of_exclusive_classes_are_those_of_scikit_learn():
    scores, probabilities, targets = scored(EXCLUSIVE)
    truth, said = targets.argmax(1), probabilities.argmax(1)
    assert scores.macro_f1.mean == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    assert scores.balanced_accuracy.mean == pytest.approx(metrics.balanced_accuracy_score(truth, said))
    assert scores.accuracy.mean == pytest.approx(metrics.accuracy_score(truth, said))
    assert scores.auroc.mean == pytest.approx(metrics.roc_auc_score(targets, probabilities, average="macro"))
    assert scores.auprc.mean == pytest.approx(metrics.average_precision_score(targets, probabilities, average="macro"))
    assert np.array_equal(scores.confusion, metrics.confusion_matrix(truth, said))
    for figure in (scores.macro_f1, scores.auroc, scores.auprc, scores.accuracy, scores.balanced_accuracy):
        assert figure.low < figure.mean < figure.high


def test_figures_of_several_classes_are_those_of_scikit_learn():
    scores, probabilities, targets = scored(SEVERAL)
    said = probabilities > 0.5
    assert scores.macro_f1.mean == pytest.approx(metrics.f1_score(targets, said, average="macro"))
    assert scores.accuracy.mean == pytest.approx(metrics.accuracy_score(targets, said))
    columns = [metrics.balanced_accuracy_score(targets[:, k], said[:, k]) for k in range(3)]
    assert scores.balanced_accuracy.mean == pytest.approx(np.mean(columns))
    assert scores.confusion == ()
    assert {len(case.label.split(";")) for case in scores.cases} >= {1, 2, 3}


def test_weights_rank_as_repeated_cases_would():
    rng = np.random.default_rng(1)
    found, truth = np.round(rng.random(40), 1), rng.random(40) < 0.4
    weights = rng.integers(0, 4, (5, 40))
    auroc, auprc = rankings(found, truth, weights)
    for row, area, precision in zip(weights, auroc, auprc, strict=True):
        scores, wanted = found.repeat(row), truth.repeat(row)
        assert area == pytest.approx(metrics.roc_auc_score(wanted, scores))
        assert precision == pytest.approx(metrics.average_precision_score(wanted, scores))


def test_a_class_without_a_case_counts_in_no_mean():
    cases, probabilities, targets, patients = made(EXCLUSIVE)
    rows = targets[:, 2] == 0
    kept = [case for case, is_kept in zip(cases, rows, strict=True) if is_kept]
    scores = score_classes(kept, probabilities[rows], targets[rows], EXCLUSIVE, patients=patients)
    truth, said = targets[rows].argmax(1), probabilities[rows].argmax(1)
    assert (said == 2).any(), "some are taken for it"
    expected = metrics.f1_score(truth, said, average="macro", labels=[0, 1])
    assert scores.macro_f1.mean == pytest.approx(expected)
    assert scores.macro_f1.mean == pytest.approx(macro_f1(probabilities[rows], targets[rows], EXCLUSIVE))
    absent = scores.per_class["c"]
    assert (absent.support, absent.recall, absent.f1, absent.auroc) == (0, None, None, None)
    assert absent.precision == 0.0


def test_perfect_predictions_of_one_class_alone_have_no_auroc():
    targets = np.eye(3)[[1, 1]]
    scores = score_classes(["x", "y"], targets, targets, EXCLUSIVE, patients={})
    assert scores.macro_f1.mean == scores.accuracy.mean == 1.0
    assert scores.auroc is None


def test_more_images_of_a_patient_do_not_narrow_the_interval():
    cases, probabilities, targets, _ = made(EXCLUSIVE, num=40)
    own = {case: case for case in cases}
    once = score_classes(cases, probabilities, targets, EXCLUSIVE, patients=own)
    names = [f"{case} {copy}" for case in cases for copy in range(4)]
    again = score_classes(
        names,
        probabilities.repeat(4, axis=0),
        targets.repeat(4, axis=0),
        EXCLUSIVE,
        patients={name: name.split()[0] for name in names},
    )
    for one, four in ((once.macro_f1, again.macro_f1), (once.auroc, again.auroc)):
        assert (one.mean, one.low, one.high) == pytest.approx((four.mean, four.low, four.high))


def test_which_of_two_is_better_in_how_many_resamplings():
    cases, probabilities, targets, patients = made(EXCLUSIVE)
    owners = [patients[case] for case in cases]
    better = probabilities + 0.8 * targets
    assert share_of_draws_better(better, probabilities, targets, EXCLUSIVE, owners) > 0.99
    assert share_of_draws_better(probabilities, probabilities, targets, EXCLUSIVE, owners) == 0


def test_draws_in_which_no_class_occurs_count_for_neither():
    # a class of two patients among twelve, in any number of classes a case
    targets = np.zeros((12, 1))
    targets[:2] = 1
    scheme, owners = ClassScheme(names=("a",), is_exclusive=False), [f"p{index}" for index in range(12)]
    assert share_of_draws_better(targets, np.zeros((12, 1)), targets, scheme, owners) == 1.0
