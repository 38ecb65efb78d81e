import time

import numpy as np
import pytest

from fmseg.records.labels import ClassScheme
from fmseg.tasks.linear_probe import STRENGTHS, feature_sets, fit_probe

EXCLUSIVE = ClassScheme(names=("a", "b", "c"), is_exclusive=True)
SEVERAL = ClassScheme(names=("a", "b", "c"), is_exclusive=False)


LAST = slice(6, 9)


def made(informative, *, num=120, width=3, blocks=2, seed=0, scheme=EXCLUSIVE):
    """Features that tell the class in some columns only, four images a patient."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, num)
    targets = np.eye(3)[labels]
    if not scheme.is_exclusive:
        targets = rng.integers(0, 2, (num, 3)).astype(float)
    features = rng.normal(0, 1, (num, blocks * 2 * width)) * rng.uniform(0.1, 10, blocks * 2 * width)
    features[:, informative] += 60 * targets
    return features.astype(np.float32), targets, [f"p{index // 4}" for index in range(num)]


def fit(features, targets, groups, scheme=EXCLUSIVE, **options):
    return fit_probe(features, targets, groups, scheme, **({"num_blocks": 2, "class_weights": ()} | options))


def decided(probe, features):
    return features @ probe.weight.T + probe.bias


def test_feature_sets_by_hand():
    sets = feature_sets(16, 4)
    assert [list(columns) for columns in sets.values()] == [
        [12, 13],
        [12, 13, 14, 15],
        [0, 1, 4, 5, 8, 9, 12, 13],
        list(range(16)),
    ]
    assert len(feature_sets(4, 1)) == 2


@pytest.mark.parametrize(
    ("informative", "chosen"),
    [
        (slice(6, 9), "class token of last block"),
        (slice(9, 12), "class token and mean patch of last block"),
        (slice(0, 3), "class token of last 2 blocks"),
        (slice(3, 6), "class token and mean patch of last 2 blocks"),
    ],
)
def test_the_smallest_features_that_tell_the_class_are_chosen(informative, chosen):
    features, targets, groups = made(informative)
    probe = fit(features, targets, groups)
    assert probe.chosen.features == chosen
    assert (decided(probe, features).argmax(1) == targets.argmax(1)).mean() > 0.98
    assert len(probe.candidates) == 4 * len(STRENGTHS)
    unused = np.setdiff1d(np.arange(12), feature_sets(12, 2)[chosen])
    assert not probe.weight[:, unused].any()


def test_several_classes_a_case():
    features, targets, groups = made(LAST, scheme=SEVERAL)
    probe = fit(features, targets, groups, SEVERAL)
    assert ((decided(probe, features) > 0) == (targets > 0.5)).mean() > 0.97


def test_it_is_the_logistic_regression_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, targets, groups = made(LAST)
    probe = fit(features, targets, groups)
    columns = feature_sets(12, 2)[probe.chosen.features]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=probe.chosen.strength, max_iter=2000))
    model.fit(features[:, columns], targets.argmax(1))
    logits = decided(probe, features)
    expected = model.predict_proba(features[:, columns])
    found = np.exp(logits - logits.max(1, keepdims=True))
    assert np.allclose(found / found.sum(1, keepdims=True), expected, atol=2e-3)


def test_what_only_tells_the_patient_is_worth_nothing_in_the_choice():
    """Features that name the patient let a leaking cross-validation score one, and an honest one chance."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 3, 40), 4)
    features = np.zeros((160, 8))
    features[:, 4:] = np.repeat(rng.normal(0, 1, (40, 4)), 4, axis=0)
    probe = fit(features, np.eye(3)[labels], [f"p{index // 4}" for index in range(160)])
    assert max(each.macro_f1 for each in probe.candidates) < 0.55


def test_a_class_of_no_training_case_is_never_said_and_one_patient_is_enough_to_fit():
    features, targets, _ = made(LAST)
    rows = targets[:, 1] == 0
    probe = fit(features[rows], targets[rows], ["p"] * int(rows.sum()))
    logits = decided(probe, features)
    assert not (logits.argmax(1) == 1).any()
    assert (logits.argmax(1) == targets.argmax(1))[rows].mean() > 0.95
    assert probe.chosen.macro_f1 is None


def test_twice_the_same_is_the_same():
    one, other = (fit(*made(LAST)) for _ in range(2))
    assert one.chosen == other.chosen
    assert np.array_equal(one.weight, other.weight) and np.array_equal(one.bias, other.bias)


def test_rare_classes_gain_from_their_weight():
    rng = np.random.default_rng(0)
    labels = (rng.random(400) < 0.05).astype(int)
    features = rng.normal(0, 1, (400, 4)) + labels[:, None] * 0.5
    targets, groups = np.eye(3)[labels], [f"p{index}" for index in range(400)]
    recalls = [
        (decided(fit(features, targets, groups, num_blocks=1, class_weights=weights), features).argmax(1) == 1)[
            labels == 1
        ].mean()
        for weights in ((), (1.0, 10.0, 1.0))
    ]
    assert recalls[1] > recalls[0] + 0.2


@pytest.mark.slow
def test_the_whole_grid_on_700_images_takes_less_than_a_minute():
    features, targets, groups = made(LAST, num=700, width=192, blocks=4)
    start = time.process_time()
    fit(features, targets, groups, num_blocks=4)
    assert time.process_time() - start < 60


@pytest.mark.parametrize("labels", [[0, 1, 0], [0, 1], [0, 1, 2]])
def test_a_handful_of_cases_is_no_mistake(labels):
    features = np.random.default_rng(0).normal(size=(len(labels), 12)).astype(np.float32)
    probe = fit(features, np.eye(3)[labels], [f"p{index}" for index in range(len(labels))])
    assert np.isfinite(decided(probe, features)).all()
