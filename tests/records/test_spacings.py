"""Pixel sizes from a table beside the images."""

import cv2
import numpy as np
import pytest

from fmseg.errors import BadData
from fmseg.imaging.readers import read_case
from fmseg.inference.inputs import find_inputs
from fmseg.records.dataset import Dataset
from fmseg.stages.fingerprint import fingerprint


def test_a_table_gives_sizes_and_a_change_is_measured_again(raw_dataset):
    workspace = raw_dataset()
    folder = workspace.raw_dataset("Dataset501_Discs")
    cases = [case.name for case in Dataset.load(folder).training_cases()]
    assert fingerprint(workspace, "Dataset501_Discs", num_processes=0).median_spacing_mm is None
    (folder / "spacings.csv").write_text("case,spacing_mm\n" + "".join(f"{case},0.25\n" for case in cases))
    case = read_case(Dataset.load(folder).training_cases()[0])
    assert case.geometry.spacing_mm == (1.0, 0.25, 0.25)
    before = fingerprint(workspace, "Dataset501_Discs", num_processes=0)
    assert before.median_spacing_mm == (1.0, 0.25, 0.25)
    (folder / "spacings.csv").write_text("case,y_mm,x_mm\n" + "".join(f"{case},0.5,0.3\n" for case in cases))
    after = fingerprint(workspace, "Dataset501_Discs", num_processes=0)
    assert after.median_spacing_mm == (1.0, 0.5, 0.3) and after.content_hash != before.content_hash


@pytest.mark.parametrize("line", ["a,0", "a,-1", "a,wide", "a,nan", "a,"])
def test_sizes_that_are_none_are_named(raw_dataset, line):
    folder = raw_dataset().raw_dataset("Dataset501_Discs")
    (folder / "spacings.csv").write_text(f"case,spacing_mm\n{line}\n")
    with pytest.raises(BadData, match=r"spacings.csv, line 2, case 'a'"):
        Dataset.load(folder).training_cases()


def test_new_images_have_their_own_table(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 9), np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((8, 9), np.uint8))
    (tmp_path / "spacings.csv").write_text("case,spacing_mm\na,0.2\n")
    assert [case.spacing_mm for case in find_inputs(tmp_path).cases] == [(0.2, 0.2), None]
