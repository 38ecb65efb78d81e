import unicodedata
from pathlib import Path

import pytest

from fmseg.errors import BadData
from fmseg.records.naming import match_names, near_name, plain_name

PLACE = Path("predictions")


@pytest.mark.parametrize("text", ["Patient Müller 3", "scan (1)", "a+b", "São #7", " ", "Ж/№1", "p1_a-2.5"])
def test_a_plain_name_stays_and_is_one_whichever_way_accents_are_written(text):
    name = plain_name(text)
    assert name == plain_name(name) == plain_name(unicodedata.normalize("NFD", text))
    assert name and not set(name) & set(" ()+#/")


def test_a_name_means_itself_or_what_convert_makes_of_it_in_both_directions():
    assert match_names(["scan (1)", "b", "x"], ["scan_1", "b"], PLACE) == {"scan (1)": "scan_1", "b": "b"}
    assert match_names(["scan_1"], ["scan (1)", "b"], PLACE) == {"scan_1": "scan (1)"}
    # tables often have the names of files
    assert match_names(["scan (1).JPG", "b.nii.gz"], ["scan_1", "b"], PLACE) == {
        "scan (1).JPG": "scan_1",
        "b.nii.gz": "b",
    }


def test_names_that_are_all_there_mean_themselves():
    assert match_names(["a b", "a_b"], ["a b", "a_b"], PLACE) == {"a b": "a b", "a_b": "a_b"}
    assert match_names(["a b", "a_b"], ["a b"], PLACE) == {"a b": "a b"}


def test_two_that_may_mean_one_are_both_named():
    # convert takes one image of two whose names become one, and nobody knows from the names which
    with pytest.raises(BadData, match="'a b' and 'a_b' may both be 'a_b'"):
        match_names(["a b", "a_b"], ["a_b"], PLACE)
    with pytest.raises(BadData, match=r"'a \(b' and 'a b' may both"):
        match_names(["a b", "a (b"], ["a_b"], PLACE)
    with pytest.raises(BadData, match=r"'a\.jpg' and 'a\.png' may both"):
        match_names(["a.png", "a.jpg"], ["a"], PLACE)
    with pytest.raises(BadData, match="'a_b' may be 'a b' or 'a  b'"):
        match_names(["a_b"], ["a b", "a  b"], PLACE)


def test_a_near_name_holds_the_other_in_whole_words():
    assert near_name("left_img_1", ["img_10", "IMG.1"]) == "IMG.1"
    assert near_name("img 1", ["img_10", "x"]) is None
