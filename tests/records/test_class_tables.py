import json

import pytest
from pydantic import TypeAdapter

from fmseg.errors import BadData
from fmseg.records.labels import ClassScheme, LabelScheme, OutputScheme, is_labelled, split_classes
from fmseg.records.selection import Selection
from fmseg.records.tables import read_classes, scheme_of_classes


def table(tmp_path, *lines):
    path = tmp_path / "labelsTr.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_one_class_a_case(tmp_path):
    labels = read_classes(table(tmp_path, "case,label", "a,femur", "b, brain "))
    assert labels == {"a": "femur", "b": "brain"}
    assert scheme_of_classes(labels) == ClassScheme(names=("brain", "femur"), is_exclusive=True)


def test_several_classes_are_the_same_with_semicolons_and_in_columns(tmp_path):
    written = read_classes(table(tmp_path, "case,label", "a,mass;effusion", "b,effusion", "c,"))
    columns = read_classes(table(tmp_path, "case,mass,effusion", "a,1,1", "b,0,1", "c,0,0"))
    for labels in (written, columns):
        scheme = scheme_of_classes(labels)
        assert scheme == ClassScheme(names=("effusion", "mass"), is_exclusive=False)
        assert [set(split_classes(labels[case])) for case in "abc"] == [{"mass", "effusion"}, {"effusion"}, set()]
        assert all(is_labelled(label, scheme) for label in labels.values())


def test_an_empty_label_of_exclusive_classes_is_no_label():
    scheme = scheme_of_classes({"a": "femur", "b": ""})
    assert scheme.is_exclusive
    assert not is_labelled("", scheme) and is_labelled("femur", scheme)


@pytest.mark.parametrize("cell", ["2", "yes", ""])
def test_a_wrong_cell_is_named(tmp_path, cell):
    with pytest.raises(BadData, match=rf"case 'a': '{cell}' of mass"):
        read_classes(table(tmp_path, "case,mass", f"a,{cell}"))


def test_both_kinds_of_outputs_come_back_from_json():
    for scheme in (
        ClassScheme(names=("a", "b"), is_exclusive=True),
        LabelScheme(names=("a",), values=((1,),), painted=(1,), has_regions=False, ignore=None),
    ):
        read = TypeAdapter(OutputScheme).validate_json(scheme.model_dump_json())
        assert read == scheme and type(read) is type(scheme)


def test_a_selection_of_before_still_says_its_dice(tmp_path):
    dice = {"mean": 0.9, "low": 0.8, "high": 0.95}
    before = {
        "version": 1,
        "dataset": "Dataset501_Heads",
        "plans_digest": "0",
        "members": [{"runs": "upernet__fmsegPlans", "folds": [0, 1], "weight": 1}],
        "clean_up": [],
        "candidates": [{"name": "upernet__fmsegPlans", "dice": dice}],
        "dice": dice,
        "because": "it is the only one",
    }
    path = tmp_path / "selection.json"
    path.write_text(json.dumps(before))
    selection = Selection.load(path)
    assert (selection.measure, selection.score.mean, selection.temperature) == ("Dice", 0.9, 1.0)
    assert selection.candidates[0].score == selection.score
