"""Foreign layouts become datasets; the source stays as it is."""

from pathlib import Path

import numpy as np
import pytest
from layout_sources import MAKERS, contents, make_fetal_planes, make_hc18, make_images, make_nnunet, noise, write_image

from fmseg.errors import BadData, UsageError
from fmseg.imaging.readers import read_label
from fmseg.records.dataset import Dataset
from fmseg.stages.convert import convert, layouts, recognise
from fmseg.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "work").mkdir()
    return Workspace.find(tmp_path / "work")


def test_every_layout_has_a_source_here():
    assert set(MAKERS) == set(layouts)


@pytest.mark.parametrize("layout", list(MAKERS))
def test_every_file_is_converted_or_listed_and_the_source_stays(layout, workspace, tmp_path):
    source = MAKERS[layout](tmp_path / "source")
    (source / "notes.txt").write_text("hello")
    (source / ".DS_Store").write_bytes(b"junk")
    before = contents(source)
    summary = convert(workspace, layout, source, 501)
    assert contents(source) == before
    listed = dict(summary.skipped)
    assert ".DS_Store" in listed or layout == "table"
    if layout not in ("nnunet", "table"):  # a tree that is taken as it is, and one that is not looked through
        assert "notes.txt" in listed
    dataset = Dataset.load(summary.folder)
    cases = dataset.training_cases()
    assert summary.num_cases == len(cases) > 0
    if layout != "psfhs":  # pixels are never encoded again
        assert {path.read_bytes() for case in cases for path in case.images} <= set(before.values())
    assert summary.num_tests == len(list((summary.folder / "imagesTs").glob("*_0000.*")))
    assert not list(workspace.raw.glob(".*.tmp"))


def test_hc18_outlines_become_masks_and_exams_become_patients(workspace, tmp_path):
    summary = convert(workspace, "hc18", make_hc18(tmp_path / "HC18"), 501)
    dataset = Dataset.load(summary.folder)
    assert (summary.dataset, summary.exit_code) == ("Dataset501_HC18", 0)
    assert dataset.patients_of_cases() == {"392_HC": "392", "392_2HC": "392", "007_HC": "007"}
    assert "392_2HC,0.2" in (summary.folder / "spacing.csv").read_text().splitlines()
    for index, case in enumerate(("392_HC", "392_2HC", "007_HC")):
        label, _ = read_label(summary.folder / "labelsTr" / f"{case}.png")
        area = np.pi * 18.5 * 12.5
        assert set(np.unique(label)) == {0, 1}
        assert label.sum() == pytest.approx(area, rel=0.03), index


def test_an_outline_that_cannot_be_filled_is_left_out_and_listed(workspace, tmp_path):
    source = make_hc18(tmp_path / "HC18")
    write_image(source / "training_set" / "392_HC_Annotation.png", np.zeros((40, 60), np.uint8))
    write_image(source / "training_set" / "007_HC_Annotation.png", np.ones((20, 60), np.uint8))
    write_image(source / "training_set" / "008_HC.png", noise(5))
    summary = convert(workspace, "hc18", source, 501)
    listed = dict(summary.skipped)
    assert summary.num_cases == 1 and summary.exit_code == 5
    assert "empty" in listed["training_set/392_HC.png"]
    assert "(20, 60) px, its image (40, 60)" in listed["training_set/007_HC_Annotation.png"]
    assert "008_HC_Annotation.png: there is no such file" in listed["training_set/008_HC.png"]
    assert [case.name for case in Dataset.load(summary.folder).training_cases()] == ["392_2HC"]


def test_hc18_test_images_come_along(workspace, tmp_path):
    source = make_hc18(tmp_path / "HC18")
    write_image(source / "test_set" / "001_HC.png", noise(9))
    (source / "test_set_pixel_size.csv").write_text("filename,pixel size(mm)\n001_HC.png,0.5\n")
    summary = convert(workspace, "hc18", source, 501)
    assert summary.num_cases == 3 and not summary.skipped
    assert (summary.folder / "imagesTs" / "001_HC_0000.png").exists()
    assert "001_HC,0.5" in (summary.folder / "spacing.csv").read_text()


def test_fetal_planes_are_classified_by_their_names(workspace, tmp_path):
    summary = convert(workspace, "fetal_planes", make_fetal_planes(tmp_path / "planes"), 502)
    dataset = Dataset.load(summary.folder)
    assert dataset.task == "classification"
    assert list(dataset.classes_of_cases().values()) == ["abdomen", "brain", "maternal cervix", "Plane9"]
    assert list(dataset.patients_of_cases().values()) == [f"Patient{n:05d}" for n in (1, 1, 2, 3)]
    assert set(dataset.classes_of_cases()) == {case.name for case in dataset.training_cases()}


def test_unlabelled_images_stay_where_they_lie(workspace, tmp_path):
    source = make_images(tmp_path / "clinic images")
    summary = convert(workspace, "images", source, 503, modality="X-ray")
    assert (summary.dataset, summary.task, summary.modality) == ("Dataset503_clinic_images", "unlabelled", "xray")
    assert [path.name for path in summary.folder.iterdir()] == ["dataset.json"]
    cases = Dataset.load(summary.folder).training_cases()
    assert [case.images[0].parent.parent for case in cases] == [source, source]
    assert [case.name for case in cases] == ["monday/a", "tuesday/a"]


def test_an_nnunet_dataset_is_taken_as_it_is_links_to_folders_too(workspace, tmp_path):
    source = make_nnunet(tmp_path / "Dataset123_Liver")
    (source / "imagesTr").rename(tmp_path / "elsewhere")
    (source / "imagesTr").symlink_to(tmp_path / "elsewhere")
    summary = convert(workspace, "nnunet", source, 504)
    assert summary.dataset == "Dataset504_Liver"
    assert contents(summary.folder) == contents(source) | {
        "imagesTr/one_0000.png": (tmp_path / "elsewhere" / "one_0000.png").read_bytes()
    }


def test_a_modality_never_reaches_the_source_through_a_link(workspace, tmp_path):
    source = make_nnunet(tmp_path / "Dataset123_Liver")
    before = contents(source)
    assert convert(workspace, "nnunet", source, 504, modality="pet").modality == "pet"
    assert contents(source) == before


def test_a_number_or_folder_that_is_taken_is_refused_and_left_alone(workspace, tmp_path):
    source = make_images(tmp_path / "images")
    first = convert(workspace, "images", source, 501, "First")
    before = contents(first.folder)
    with pytest.raises(UsageError, match="is there already"):
        convert(workspace, "images", source, 501, "First")
    with pytest.raises(UsageError, match="belongs to Dataset501_First"):
        convert(workspace, "images", source, 501, "Second")
    assert contents(first.folder) == before


@pytest.mark.parametrize("name", ["a/b", "../x", "a b"])
def test_a_name_that_is_no_folder_name_is_refused(workspace, tmp_path, name):
    with pytest.raises(UsageError, match="cannot be a dataset's name"):
        convert(workspace, "images", make_images(tmp_path / "images"), 501, name)


def test_a_source_that_holds_the_workspace_is_refused(workspace, tmp_path):
    make_images(tmp_path)
    with pytest.raises(UsageError, match="holds the workspace"):
        convert(workspace, "images", tmp_path, 501)


@pytest.mark.parametrize("layout", sorted(set(MAKERS) - {"images"}))
def test_a_layout_is_recognised_and_another_one_is_told(layout, workspace, tmp_path):
    source = MAKERS[layout](tmp_path / "source")
    assert recognise(source) == layout
    assert convert(workspace, "auto", source, 501).layout == layout
    other = "hc18" if layout != "hc18" else "camus"
    with pytest.raises(BadData, match=f"It looks like '{layout}'"):
        convert(workspace, other, source, 502)


def test_any_folder_of_images_must_be_asked_for(workspace, tmp_path):
    with pytest.raises(BadData, match="no known layout"):
        convert(workspace, "auto", make_images(tmp_path / "source"), 501)


@pytest.mark.parametrize("layout", list(MAKERS))
def test_another_layout_is_refused_and_nothing_appears(layout, workspace, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "letter.txt").write_text("hello")
    with pytest.raises(BadData, match=str(source)):
        convert(workspace, layout, source, 501)
    assert workspace.dataset_names() == []


def test_what_a_killed_conversion_left_is_no_dataset_and_is_cleared(workspace, tmp_path):
    left = workspace.raw / ".Dataset501_HC18.tmp" / "imagesTr"
    left.mkdir(parents=True)
    (left / "999_HC_0000.png").write_bytes(b"half")
    assert workspace.dataset_names() == []
    summary = convert(workspace, "hc18", make_hc18(tmp_path / "HC18"), 501)
    assert summary.num_cases == 3


def test_files_are_copied_where_they_cannot_be_linked(workspace, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("another disk")

    monkeypatch.setattr("os.link", refuse)
    source = make_nnunet(tmp_path / "Dataset123_Liver")
    assert contents(convert(workspace, "nnunet", source, 504).folder) == contents(source)
