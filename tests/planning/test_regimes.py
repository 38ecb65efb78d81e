"""Samples of a training set: nested, the same again, by patient, every class once."""

from itertools import pairwise

import pytest

from fmseg.errors import BadData, UsageError
from fmseg.files import natural_key
from fmseg.planning.classification import PAPERS_MIXING, class_weights_of
from fmseg.planning.regimes import check_apart, fit_to_regime, held_out, parse_regime, sample_cases
from fmseg.records.labels import ClassScheme, LabelScheme
from fmseg.records.plans import Fold

#: 30 patients of 1 to 6 images; every tenth shows the rare class
PATIENTS = {f"P{p:02d}_{i}": f"P{p:02d}" for p in range(30) for i in range(1 + p % 6)}
CLASSES = {case: ("rare",) if case.startswith("P20") else ("common", "other") for case in PATIENTS}
ALL = sorted(PATIENTS, key=natural_key)

HEAD = LabelScheme(names=("head",), values=((1,),), painted=(1,), has_regions=False, ignore=None)
PLANES = ClassScheme(names=("head", "femur"), is_exclusive=True)
SHOWN = [("head",)] * 16 + [("femur",)] * 4


def sample(text: str, seed: int = 0) -> tuple[str, ...]:
    return sample_cases(parse_regime(text), ALL, PATIENTS, CLASSES, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_smaller_sample_lies_within_each_larger_one(seed):
    chain = [set(sample(text, seed)) for text in ("n=5", "n=10", "10%", "n=20", "25%", "n=30", "50%", "full")]
    chain.sort(key=len)
    assert [len(each) for each in chain] == [5, 10, 11, 20, 27, 30, 53, 105]
    assert all(small < large for small, large in pairwise(chain))


def test_more_patients_and_more_images_each_hold_the_fewer():
    few, more, deeper = (set(sample(text)) for text in ("p=4x2", "p=8x2", "p=4x4"))
    assert few < more and few < deeper
    assert len({PATIENTS[case] for case in few}) == 4 == len({PATIENTS[case] for case in deeper})
    assert max(sum(PATIENTS[case] == name for case in few) for name in set(PATIENTS.values())) == 2


def test_a_sample_is_a_function_of_its_seed_alone():
    for text in ("n=10", "p=4x10", "25%"):
        regime = parse_regime(text)
        again = sample_cases(regime, ALL[::-1], PATIENTS, CLASSES, seed=1)
        assert again == sample(text, 1) != sample(text, 2)
    assert sample("full", 1) == sample("full", 2) == tuple(ALL)


def test_few_images_show_every_class_and_are_of_as_many_patients():
    for seed in range(5):
        found = sample("n=12", seed)
        assert {name for case in found for name in CLASSES[case]} == {"common", "other", "rare"}
        assert len({PATIENTS[case] for case in found}) == 12


def test_held_out_patients_are_whole_and_about_the_share():
    fold = held_out(ALL, PATIENTS, 0.2)
    assert not {PATIENTS[case] for case in fold.train} & {PATIENTS[case] for case in fold.val}
    assert set(fold.train) | set(fold.val) == set(ALL)
    assert abs(len(fold.val) / len(ALL) - 0.2) < 0.05
    assert held_out(ALL, PATIENTS, 0.2) == fold
    with pytest.raises(BadData, match="1 patients cannot be parted"):
        held_out(["a", "b"], {"a": "one", "b": "one"}, 0.5)


def test_a_patient_on_both_sides_is_told():
    with pytest.raises(BadData, match=r"patient 'P05' is trained on .* and tested on"):
        check_apart(Fold(train=("P05_0",), val=("P05_1",)), PATIENTS, "Dataset501_Heads, split 0")


@pytest.mark.parametrize("text", ["20", "n=0", "n=2.5", "p=4", "p=4x0", "0%", "110%", ""])
def test_what_is_no_regime_is_refused(text):
    with pytest.raises(UsageError, match="is no regime"):
        parse_regime(text)


def test_how_a_regime_is_typed():
    assert [parse_regime(text).name for text in ("Full", "100%", "n = 20", "p=4x10", "12.5%")] == [
        "full",
        "full",
        "n=20",
        "p=4x10",
        "12.5%",
    ]
    assert parse_regime("p=4x10").folder == "p4x10" and parse_regime("25%").folder == "25percent"


@pytest.mark.parametrize("text", ["n=1000", "p=40x1"])
def test_more_than_there_is_is_refused(text):
    with pytest.raises(BadData, match="wants more than the"):
        sample(text)


def test_few_images_get_a_smaller_batch_and_no_more_passes(make_plans):
    planned = make_plans().finetuning.evolve(batch_size=16, iterations=2000, warmup_iterations=200)
    fitted = fit_to_regime(planned, PLANES, 10, SHOWN[:10])
    assert fitted.batch_size == 8
    assert fitted.iterations == 200 * 10 // 8 and fitted.warmup_iterations == 25
    assert fitted.learning_rate == 1e-3 and fitted.ema_decay == 0.96
    assert fit_to_regime(planned, PLANES, 10_000, SHOWN).iterations == 2000
    # label maps need as many steps for few images
    assert fit_to_regime(planned, HEAD, 10, SHOWN[:10]).iterations == 2000
    assert fit_to_regime(planned, HEAD, 10_000, SHOWN) == planned


@pytest.mark.parametrize(("num_images", "is_mixed", "dropout"), [(20, True, 0.2), (2000, False, 0.0)])
def test_what_classes_need_follows_from_the_training_cases_alone(make_plans, num_images, is_mixed, dropout):
    # a plan that knows of other cases
    planned = make_plans().finetuning.evolve(
        batch_size=16, iterations=2000, class_weights=(0.6, 1.8), head_dropout=0.1, mixup=0.5, cutmix=0.5
    )
    fitted = fit_to_regime(planned, PLANES, num_images, SHOWN)
    assert ((fitted.mixup, fitted.cutmix) == PAPERS_MIXING) == is_mixed and fitted.head_dropout == dropout
    assert fitted.class_weights == class_weights_of({"head": 0.8, "femur": 0.2}, 20, PLANES)[0]
    assert fit_to_regime(planned, PLANES, 2, [("head",), ("femur",)]).class_weights == ()
    # no class need be there
    assert len(fit_to_regime(planned, PLANES, 2, [("head",), ("head",)]).class_weights) == 2
