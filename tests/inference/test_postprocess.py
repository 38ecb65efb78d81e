import numpy as np
import pytest
from tiny_run import NESTED, SCHEME, TWO

from fmseg.inference.postprocess import apply_clean_up, candidate_rules, choose_clean_up
from fmseg.records.selection import CleanUp


def rule(output, kind, share=0.0):
    return CleanUp(output=output, rule=kind, min_share=share)


@pytest.fixture
def labels():
    """A disc-like block with a hole, and a speck."""
    found = np.zeros((1, 20, 20), np.uint8)
    found[0, 3:11, 3:11] = 1
    found[0, 6, 6] = 0
    found[0, 15, 15] = 1
    return found


def test_only_the_largest_component_stays(labels):
    cleaned = apply_clean_up(labels, [rule("disc", "largest_component")], SCHEME)
    assert cleaned[0, 15, 15] == 0 and cleaned[0, 3:11, 3:11].sum() == 63


def test_holes_are_filled(labels):
    cleaned = apply_clean_up(labels, [rule("disc", "fill_holes")], SCHEME)
    assert cleaned[0, 6, 6] == 1 and cleaned.sum() == labels.sum() + 1


def test_small_components_go_and_others_stay(labels):
    assert apply_clean_up(labels, [rule("disc", "remove_small", 2 / 400)], SCHEME).sum() == 63
    assert apply_clean_up(labels, [rule("disc", "remove_small", 1 / 400)], SCHEME).sum() == 64
    assert apply_clean_up(labels, [rule("disc", "remove_small", 0.5)], SCHEME).sum() == 0


def test_a_hole_filled_with_another_class_is_left(labels):
    labels[0, 6, 6] = 2
    assert apply_clean_up(labels, [rule("a", "fill_holes")], TWO)[0, 6, 6] == 2


def test_what_a_region_loses_falls_to_the_one_below():
    labels = np.ones((1, 12, 12), np.uint8)
    labels[0, 2:5, 2:5] = 2
    labels[0, 9, 9] = 2
    cleaned = apply_clean_up(labels, [rule("core", "largest_component")], NESTED)
    assert cleaned[0, 9, 9] == 1 and cleaned[0, 3, 3] == 2
    labels[0, 8:, :] = 0
    labels[0, 10, 10] = 2
    assert apply_clean_up(labels, [rule("whole", "largest_component")], NESTED)[0, 10, 10] == 0


def test_rules_change_nothing_twice_and_never_the_input(labels):
    rules = candidate_rules(SCHEME, {"x": labels})
    before = labels.copy()
    for each in rules:
        once = apply_clean_up(labels, [each], SCHEME)
        assert np.array_equal(apply_clean_up(once, [each], SCHEME), once)
    assert np.array_equal(labels, before)
    assert np.array_equal(apply_clean_up(np.zeros_like(labels), rules, SCHEME), np.zeros_like(labels))


def test_volumes_are_cleaned_in_three_dimensions():
    volume = np.zeros((3, 9, 9), np.uint8)
    volume[:, 2:7, 2:7] = 1
    volume[1, 4, 4] = 0
    assert apply_clean_up(volume, [rule("disc", "fill_holes")], SCHEME)[1, 4, 4] == 1
    volume[0, 4, 4] = 0  # now it is open to the outside
    assert apply_clean_up(volume, [rule("disc", "fill_holes")], SCHEME)[1, 4, 4] == 0


def test_rules_that_help_are_chosen_and_rules_that_hurt_are_not(labels):
    truth = labels.copy()
    truth[0, 15, 15], truth[0, 6, 6] = 0, 1
    predictions = {str(i): np.roll(labels, i, axis=2) for i in range(4)}
    references = {str(i): np.roll(truth, i, axis=2) for i in range(4)}
    assert {each.rule for each in choose_clean_up(predictions, references, SCHEME)} == {
        "largest_component",
        "fill_holes",
    }
    assert choose_clean_up(predictions, predictions, SCHEME) == []


def test_a_rule_that_costs_another_class_is_not_chosen():
    prediction = np.zeros((1, 20, 20), np.uint8)
    prediction[0, 2:10, 2:10] = 1
    prediction[0, 14:18, 14:18] = 1  # a false second component of the whole ...
    reference = prediction.copy()
    reference[0, 14:18, 14:18] = 0
    prediction[0, 15, 15] = reference[0, 15, 15] = 2  # ... that holds the true core
    rules = choose_clean_up({"x": prediction}, {"x": reference}, NESTED)
    assert all(each.rule == "fill_holes" for each in rules)
