import pytest

from fmseg.errors import UsageError
from fmseg.inference.inputs import find_inputs, output_name


def fill(folder, *names):
    for name in names:
        (folder / name).touch()
    return find_inputs(folder)


def test_channels_are_grouped_and_the_name_is_kept(tmp_path):
    found = fill(tmp_path, "b_0000.nii.gz", "b_0001.nii.gz", "a_0000.png", "c.png")
    assert [(case.name, len(case.images)) for case in found.cases] == [("a", 1), ("b", 2), ("c", 1)]
    assert [output_name(case) for case in found.cases] == ["a.png", "b.nii.gz", "c.png"]


def test_endings_may_be_mixed_and_lossy_ones_become_png(tmp_path):
    found = fill(tmp_path, "a.JPG", "b.PNG", "c.tif", "d.mha", ".DS_Store", "notes.txt")
    assert [output_name(case) for case in found.cases] == ["a.png", "b.PNG", "c.tif", "d.mha"]
    assert found.refused == ()


def test_numbers_that_are_no_channels_stay_in_the_name(tmp_path):
    found = fill(tmp_path, "scan_2023.png", "scan_2024.png", "x_0001.png", "y_0000.png", "y_0002.png")
    names = [case.name for case in found.cases]
    assert names == ["scan_2023", "scan_2024", "x_0001", "y_0000", "y_0002"]
    assert all(len(case.images) == 1 for case in found.cases)


def test_cases_that_would_be_written_to_one_file_are_refused_by_name(tmp_path):
    found = fill(tmp_path, "a.png", "a.jpg", "b.png", "c.png", "c_0000.png")
    assert [case.name for case in found.cases] == ["b"]
    assert {name for name, _ in found.refused} == {"a.png", "a.jpg", "c.png", "c_0000.png"}


def test_every_image_is_either_a_case_or_refused(tmp_path):
    names = ["a_0000.png", "a.png", "a_0001.png", "a.bmp", "1999.png", "b_12345.png", "q_0000.jpeg", "q.jpg"]
    found = fill(tmp_path, *names)
    seen = [path.name for case in found.cases for path in case.images] + [name for name, _ in found.refused]
    assert sorted(seen) == sorted(names)


def test_a_single_file_will_do_and_nothing_will_not(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        find_inputs(tmp_path / "nowhere")
    (tmp_path / "sub").mkdir()
    with pytest.raises(UsageError, match="no image in it"):
        find_inputs(tmp_path)
    (tmp_path / "a.png").touch()
    assert [case.name for case in find_inputs(tmp_path / "a.png").cases] == ["a"]
