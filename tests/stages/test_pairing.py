import logging
from pathlib import Path

import pytest

from fmseg.errors import BadData
from fmseg.stages.evaluate.pairing import predictions_of_cases

PLACE = Path("predictions")


def paired(cases, predictions):
    return predictions_of_cases(cases, predictions, PLACE, mend="take their label maps out")


def test_equal_names_are_pairs_and_need_no_word(caplog):
    caplog.set_level(logging.INFO)
    assert paired(["a", "b"], ["b", "a", "c"]) == {"a": "a", "b": "b"}
    assert not caplog.records


def test_names_of_original_files_are_told(caplog):
    caplog.set_level(logging.INFO)
    assert paired(["scan_1", "b"], ["scan 1", "b"]) == {"scan_1": "scan 1", "b": "b"}
    assert "1 predictions have the names of their original files, such as 'scan 1' of scan_1" in caplog.text


def test_what_is_missing_is_listed_with_a_near_name_and_the_mend():
    with pytest.raises(BadData, match=r"predictions: 1 of 2 .*: b\. 'site_b' is there .* take their label maps out"):
        paired(["a", "b"], ["a", "site_b"])


def test_two_predictions_of_one_case_are_both_named():
    with pytest.raises(BadData, match=r"'scan 1' and 'scan\+1' may both be 'scan_1'"):
        paired(["scan_1"], ["scan 1", "scan+1"])
