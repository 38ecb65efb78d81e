"""Labels that speak of left or right, in whatever spelling."""

import itertools

import pytest

from fmseg.planning.sides import sided_names, words_of

#: how people write the sides of an organ
SPELLINGS = [
    ("left {}", "right {}"),
    ("{}_left", "{}_right"),
    ("Left{}", "Right{}"),
    ("{}Left", "{}Right"),
    ("left{}", "right{}"),
    ("{}left", "{}right"),
    ("upperleft{}", "upperright{}"),
    ("LEFT-{}", "RIGHT-{}"),
    ("{} (left)", "{} (right)"),
    ("{}.lt", "{}.rt"),
    ("{}_L", "{}_R"),
    ("L_{}", "R_{}"),
    ("{}-l", "{}-r"),
    ("{}L", "{}R"),
    ("l{}", "r{}"),
    ("L {}", "{} R"),
    ("lh.{}", "rh.{}"),
    ("{} links", "{} rechts"),
    ("{} gauche", "{} droite"),
]


@pytest.mark.parametrize("organ", ["kidney", "lung", "Limb", "upper lobe", "disc2"])
@pytest.mark.parametrize("spelling", SPELLINGS, ids=str)
def test_the_spelling_of_a_side_changes_nothing(spelling, organ):
    left, right = (side.format(organ) for side in spelling)
    assert sided_names(("bladder", right, "cleft", left)) == (right, left)


@pytest.mark.parametrize("name", ["left ventricle", "LV_left", "LeftKidney", "kidneyLeft", "kidney-Right", "leftmost"])
def test_one_name_that_says_it_in_words_is_enough(name):
    assert sided_names((name, "head")) == (name,)


@pytest.mark.parametrize(
    "names",
    [
        ("head",),
        ("cleft", "bright", "upright", "brightness", "clefts"),
        ("Bright", "Cleft Lip", "UPRIGHT", "hyperbright", "leftover", "Wright stain"),
        ("liver", "rib", "lens", "rectum", "tumor", "vessel"),
        ("kidney_L", "liver"),
        ("L1", "L2", "L3"),
        ("LV", "LA", "myocardium"),
        ("lobe_1_L", "lobe_2_R"),
        (),
    ],
    ids=str,
)
def test_what_only_looks_like_a_side_is_none(names):
    assert sided_names(names) == ()


def test_abbreviations_speak_of_sides_where_both_are_there():
    assert sided_names(("RV", "MYO", "LV")) == ("RV", "LV")
    assert sided_names(("RUL", "RML", "RLL", "LUL", "LLL")) == ("RUL", "RLL", "LUL", "LLL")
    assert sided_names(("L", "R")) == ("L", "R")


def test_the_order_of_the_names_is_of_no_matter():
    names = ("kidney_L", "liver", "kidney_R", "leftAtrium")
    for order in itertools.permutations(names):
        assert set(sided_names(order)) == set(names) - {"liver"}


def test_words_by_hand():
    assert words_of("LungLower_2") == ["lung", "lower", "2"]
    assert words_of("LKidney (MRT)") == ["l", "kidney", "mrt"]
    assert words_of("Niere_rechts größer") == ["niere", "rechts", "größer"]
