"""Readers of one's own: what the page on them promises."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fmseg.errors import UsageError
from fmseg.imaging.case import BadFile, Geometry
from fmseg.imaging.readers import read_case, read_label, readers, write_label
from fmseg.records import endings
from fmseg.records.cases import CaseFiles, list_images

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(monkeypatch):
    """Return the example's module, registered for the time of one test."""
    monkeypatch.setattr(readers, "_items", dict(readers._items))
    monkeypatch.setattr(endings, "_image_endings", list(endings.image_endings()))
    spec = importlib.util.spec_from_file_location("pgm_reader", ROOT / "examples" / "pgm_reader.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_of_a_new_ending_are_images_and_come_back_as_they_were_written(example, tmp_path):
    labels = np.random.default_rng(0).integers(0, 9, (1, 12, 20))
    write_label(labels, Geometry(None, is_2d=True), tmp_path / "a.pgm")
    assert list_images(tmp_path) == ["a.pgm"]
    case = read_case(CaseFiles("a", (tmp_path / "a.pgm",), None))
    assert case.voxels.shape == (1, 1, 12, 20) and case.geometry.is_2d
    np.testing.assert_array_equal(read_label(tmp_path / "a.pgm")[0], labels)
    (tmp_path / "b.pgm").write_bytes(b"no picture")
    with pytest.raises(BadFile, match=r"b\.pgm: this is no grey map"):
        read_label(tmp_path / "b.pgm")


def test_an_ending_has_one_reader(example):
    with pytest.raises(UsageError, match=r"'image' reads \.png already"):
        readers.add("mine", type("Mine", (example.GreyMapReader,), {"endings": (".png",)})())
    assert "mine" not in readers


def test_the_how_to_shows_the_example():
    shown = (ROOT / "docs" / "how-to" / "add-a-reader.md").read_text()
    assert (ROOT / "examples" / "pgm_reader.py").read_text() in shown
