import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmseg.errors import BadData, BadRecord
from fmseg.planning.folds import (
    adopt_folds,
    fold_balance,
    load_folds,
    make_centre_folds,
    make_folds,
    save_folds,
)
from fmseg.records.plans import Fold

SOURCE = Path("splits_final.json")


@st.composite
def cases(draw, min_patients=2):
    """Patients and strata of some cases."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=min_patients, max_size=25))
    names = [(f"case_{p}_{i}", f"patient {p}") for p, size in enumerate(sizes) for i in range(size)]
    kinds = draw(st.lists(st.sampled_from("abc"), min_size=len(names), max_size=len(names)))
    return dict(names), {name: kind for (name, _), kind in zip(names, kinds, strict=True)}


def assert_folds_are_sound(folds, patients):
    assert Counter(case for fold in folds for case in fold.val) == Counter(patients.keys())
    for fold in folds:
        assert fold.train
        assert fold.val
        assert sorted([*fold.train, *fold.val]) == sorted(patients)
        assert not {patients[case] for case in fold.train} & {patients[case] for case in fold.val}


@settings(max_examples=40)
@given(cases())
def test_every_case_is_validated_once_and_no_patient_is_on_both_sides(drawn):
    patients, strata = drawn
    folds = make_folds(patients, strata, source="test")
    assert_folds_are_sound(folds, patients)
    assert len(folds) == min(5, len(set(patients.values())))
    assert folds == make_folds(dict(reversed(patients.items())), strata, source="test")


@settings(max_examples=40)
@given(cases(), st.data())
def test_new_cases_join_without_moving_old_ones(drawn, data):
    patients, strata = drawn
    people = sorted(set(patients.values()))
    old_people = data.draw(st.sets(st.sampled_from(people), min_size=2))
    # of the old patients, some images were there from the start
    old = {c: p for c, p in patients.items() if p in old_people and (c.endswith("_0") or data.draw(st.booleans()))}
    before = make_folds(old, strata, source="test")
    after = adopt_folds(before, patients, strata, known=patients, source=SOURCE)
    assert_folds_are_sound(after, patients)
    for fold, extended in zip(before, after, strict=True):
        assert set(fold.train) <= set(extended.train)
        assert set(fold.val) <= set(extended.val)


def test_classes_are_spread_evenly():
    patients = {f"case_{i}": f"patient {i}" for i in range(50)}
    strata = {case: "rare" if i % 10 == 0 else "usual" for i, case in enumerate(patients)}
    folds = make_folds(patients, strata, source="test")
    columns, rows = fold_balance(folds, patients, strata)
    assert columns == ("fold", "train cases", "val cases", "val patients", "rare", "usual")
    assert rows == [(index, 40, 10, 10, 1, 9) for index in range(5)]


def test_one_patient_alone_is_refused_with_the_mend():
    with pytest.raises(BadData, match=r"(?s)Stack.*2 cases.*patients\.csv"):
        make_folds({"a": "Eve", "b": "Eve"}, {"a": "", "b": ""}, source="Stack")


def adopt(folds, patients, known=None):
    strata = dict.fromkeys(patients, "")
    return adopt_folds(
        [Fold(train=t, val=v) for t, v in folds], patients, strata, known=known or patients, source=SOURCE
    )


def test_a_patient_on_both_sides_is_refused():
    with pytest.raises(BadData, match=r"splits_final.json: fold 0: patient 'Eve' .*'a'.*'b'"):
        adopt([(("a",), ("b",))], {"a": "Eve", "b": "Eve"})


def test_an_unknown_case_is_refused_and_an_unusable_one_left_out():
    people = {"a": "1", "b": "2"}
    with pytest.raises(BadData, match="'c'"):
        adopt([(("a", "c"), ("b",))], people)
    assert adopt([(("a", "c"), ("b",))], people, known={"a", "b", "c"}) == (Fold(train=("a",), val=("b",)),)


def test_folds_that_leave_cases_out_on_purpose_stay_as_they_are():
    few_shot = [(("a",), ("b", "c"))]
    assert adopt(few_shot, {"a": "1", "b": "2", "c": "3", "d": "4"}) == (Fold(train=("a",), val=("b", "c")),)


def test_the_file_is_that_of_nnunet(tmp_path):
    folds = (Fold(train=("a", "b"), val=("c",)),)
    save_folds(folds, tmp_path / "splits_final.json")
    assert json.loads((tmp_path / "splits_final.json").read_text()) == [{"train": ["a", "b"], "val": ["c"]}]
    assert load_folds(tmp_path / "splits_final.json") == folds
    (tmp_path / "splits_final.json").write_text('{"train": []}')
    with pytest.raises(BadRecord, match="list of folds"):
        load_folds(tmp_path / "splits_final.json")


def test_each_centre_is_left_out_once():
    patients = {f"c{index}": f"p{index // 2}" for index in range(12)}
    centres = {f"c{index}": f"centre {index // 4}" for index in range(12)}
    folds = make_centre_folds(patients, centres, source=SOURCE)
    assert [{centres[case] for case in fold.val} for fold in folds] == [{f"centre {index}"} for index in range(3)]
    for fold in folds:
        assert set(fold.train) | set(fold.val) == set(patients)
        assert not {centres[case] for case in fold.train} & {centres[case] for case in fold.val}


@pytest.mark.parametrize(
    ("centres", "problem"),
    [
        ({"a": "x", "b": "x", "c": "x"}, "one centre"),
        ({"a": "x", "b": "y"}, "no centre, such as 'c'"),
        ({"a": "x", "b": "y", "c": "y"}, "patient 'p' is of the centres 'x' and 'y'"),
    ],
)
def test_centres_that_cannot_be_left_out_are_named(centres, problem):
    with pytest.raises(BadData, match=problem):
        make_centre_folds({"a": "p", "b": "p", "c": "q"}, centres, source=Path("patients.csv"))


def test_no_fold_stays_empty_where_balance_alone_would_leave_it_so():
    kinds = {"0": "bbb", "1": "a", "2": "aab", "3": "aa", "4": "aaab"}
    strata = {f"case_{p}_{index}": kind for p, each in kinds.items() for index, kind in enumerate(each)}
    patients = {case: f"patient {case[5]}" for case in strata}
    folds = make_folds(patients, strata, source="test")
    assert_folds_are_sound(folds, patients)
    assert len(folds) == 5
