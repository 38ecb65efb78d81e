"""Sources become datasets once, under a number of their own."""

import json
import shutil

import pytest

from fmseg.errors import NotReady, UsageError
from fmseg.records.dataset import Dataset
from fmseg.stages.register import need_registered, register
from fmseg.workspace import Workspace


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    (tmp_path / "here").mkdir()
    return Workspace.find(tmp_path / "here")


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "my archive"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.png").touch()
    return folder


def test_a_source_is_registered_once_and_found_again(workspace, archive, tmp_path, monkeypatch):
    assert register(workspace, archive) == ["Dataset901_my_archive"]
    assert register(workspace, archive, "US") == ["Dataset901_my_archive"]
    monkeypatch.chdir(archive.parent)
    assert register(workspace, archive.relative_to(tmp_path)) == ["Dataset901_my_archive"]
    dataset = Dataset.load(workspace.raw_dataset("Dataset901_my_archive"))
    assert (dataset.task, dataset.modality, len(dataset.training_cases())) == ("unlabelled", "ultrasound", 2)
    assert [path.name for path in dataset.folder.iterdir()] == ["dataset.json"]
    other = shutil.copytree(archive, tmp_path / "other")
    assert register(workspace, other, "X-ray") == ["Dataset902_other"]
    assert need_registered(workspace, archive) == ["Dataset901_my_archive"]


def test_a_table_of_several_modalities_becomes_a_dataset_each(workspace, tmp_path):
    table = tmp_path / "all.csv"
    table.write_text("path,modality,patient\na.png,US,1\nb.png,MR,1\nc.png,us,2\n")
    names = register(workspace, table)
    assert names == ["Dataset901_all_mri", "Dataset902_all_ultrasound"] == register(workspace, table)
    mri, ultrasound = (Dataset.load(workspace.raw_dataset(name)) for name in names)
    assert [case.name for case in mri.training_cases()] == ["b"]
    assert [case.name for case in ultrasound.training_cases()] == ["a", "c"]
    assert ultrasound.patients_of_cases()["c"] == "2"
    with pytest.raises(UsageError, match="Drop --modality"):
        register(workspace, table, "ct")
    table.write_text("path,modality\na.png,US\nd.png,CT\n")
    assert register(workspace, table) == ["Dataset903_all_ct", "Dataset902_all_ultrasound"]


def test_mistakes_are_named(workspace, archive, tmp_path):
    with pytest.raises(UsageError, match="there is no such folder"):
        register(workspace, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="holds the workspace"):
        register(workspace, tmp_path)
    tests = tmp_path / "Dataset501_Heads" / "imagesTs"
    tests.mkdir(parents=True)
    with pytest.raises(UsageError, match="never pretrained on"):
        register(workspace, tests)
    with pytest.raises(NotReady, match="plan_and_preprocess --images"):
        need_registered(workspace, archive)
    register(workspace, archive)
    with pytest.raises(UsageError, match="of ultrasound already"):
        register(workspace, archive, "mri")
    assert json.loads((workspace.raw_dataset("Dataset901_my_archive") / "dataset.json").read_text())["modality"]
