"""Models go to a hub and come back; the hub here is a folder."""

import shutil

import pytest
import tiny_run

from fmseg.cli import type_command
from fmseg.errors import BadData, EnvironmentProblem, UsageError
from fmseg.networks.vit import ViT
from fmseg.networks.weights import save_backbone
from fmseg.records.foundation import CARD, Foundation
from fmseg.stages.hub import download
from fmseg.workspace import Workspace

huggingface_hub = pytest.importorskip("huggingface_hub")


class FolderHub:
    """What fmseg uses of ``huggingface_hub.HfApi``, on a folder."""

    def __init__(self, folder):
        self.folder, self.is_private = folder, None

    def create_repo(self, name, *, private, exist_ok):
        self.is_private = private
        (self.folder / name).mkdir(parents=True, exist_ok=exist_ok)
        return f"https://hub.invalid/{name}"

    def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id):
        target = self.folder / repo_id / path_in_repo
        if isinstance(path_or_fileobj, bytes):
            target.write_bytes(path_or_fileobj)
        else:
            shutil.copy(path_or_fileobj, target)

    def list_repo_files(self, name, *, revision):
        return [str(path.relative_to(self.folder / name)) for path in (self.folder / name).rglob("*") if path.is_file()]

    def hf_hub_download(self, name, file, *, revision, local_dir):
        return shutil.copy(self.folder / name / file, local_dir)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    found = FolderHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: found)
    return found


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    workspace = Workspace.find(tmp_path / "home")
    folder = workspace.foundation("ultrasound", "one")
    tiny_run.write_foundation(folder, "one", ["0123456789abcdef" * 2])
    digest = save_backbone(ViT(tiny_run.ARCHITECTURE), folder)
    Foundation.load(folder / CARD).evolve(weights_sha256=digest, licence="CC-BY-4.0").save(folder / CARD)
    return workspace


def test_a_checkpoint_goes_to_the_hub_and_comes_back_the_same(home, hub, tmp_path):
    here, there = str(tmp_path / "home"), str(tmp_path / "away")
    assert type_command("--root", here, "push", "lab/one", "--foundation", "one") == 0
    assert hub.is_private and "license_name: 'CC-BY-4.0'" in (hub.folder / "lab" / "one" / "README.md").read_text()
    (tmp_path / "away").mkdir()
    assert type_command("--root", there, "pull", "lab/one", "--as", "theirs") == 0
    found = Workspace.find(tmp_path / "away").foundation("ultrasound", "theirs")
    ours = home.foundation("ultrasound", "one")
    assert (found / "backbone.safetensors").read_bytes() == (ours / "backbone.safetensors").read_bytes()


def test_only_one_file_at_the_top_is_taken(hub, tmp_path):
    place = hub.folder / "lab" / "one"
    (place / "deep").mkdir(parents=True)
    (place / "deep" / "x.fmseg").touch()
    with pytest.raises(BadData, match=r"no \.fmseg file"):
        download("lab/one", tmp_path)
    (place / "a.fmseg").touch()
    assert download("lab/one", tmp_path).name == "a.fmseg"
    (place / "b.fmseg").touch()
    with pytest.raises(BadData, match=r"a\.fmseg, b\.fmseg"):
        download("lab/one", tmp_path)


def test_without_a_network_there_is_one_line(tmp_path, monkeypatch):
    def lost(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lost)
    with pytest.raises(EnvironmentProblem, match=r"lab/one: the hub gave no answer.*no route.*fmseg export"):
        download("lab/one", tmp_path)


def test_a_name_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match="owner/name"):
        download("no such/name at/all", tmp_path)
