"""Weights and records from elsewhere: refused with one message, nothing run, nothing written outside."""

import json
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hostile import ARCHIVES, CANARY, WEIGHTS
from sound import NAME
from test_bad_datasets import content, no_hang, quiet_afterwards, typed

from fmseg.errors import BadData, BadRecord
from fmseg.files import sha256_file
from fmseg.learning.checkpoints import load_checkpoint, save_checkpoint
from fmseg.networks.foreign_files import read_foreign
from fmseg.networks.tensors import read_tensors
from fmseg.networks.vit import ViT
from fmseg.networks.weights import load_backbone
from fmseg.records.foundation import Foundation

sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
import tiny_run
from bad_folders import write_good

__all__ = ["no_hang", "quiet_afterwards"]

#: whole files that only say other things than their records
NOT_DAMAGED = ("a tensor missing", "a tensor too many", "a tensor of another shape")


@pytest.fixture(autouse=True)
def no_code_runs(tmp_path, monkeypatch):
    """Work in a folder of its own, and look whether anything was run there."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob(CANARY))
    assert not list(tmp_path.parent.glob(CANARY))


def test_the_canary_would_sing(tmp_path):
    """The payloads work where they are unpickled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        WEIGHTS["a file of torch"](tmp_path / "x.pth", {})
        torch.load(tmp_path / "x.pth", weights_only=False)
    (tmp_path / CANARY).unlink()


def run_of(root: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = root / "fmseg_results" / NAME / "linear__plans" / "fold_0"
    model = tiny_run.write_run(folder, tiny_run.config())
    (folder / "model.safetensors").unlink()
    write_good(root)
    return folder, model.state_dict()


@pytest.mark.parametrize("name", WEIGHTS)
def test_predict_refuses(name, tmp_path, capsys):
    folder, tensors = run_of(tmp_path)
    WEIGHTS[name](folder / "model.safetensors", tensors)
    code, out, err = typed(capsys, tmp_path, "predict", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"))
    assert code == 3, out + err
    assert "fold_0/model.safetensors" in err.replace("\n", "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name not in NOT_DAMAGED])
def test_a_file_of_tensors_is_refused_and_named(name, tmp_path):
    WEIGHTS[name](tmp_path / "x.safetensors", {"a": torch.ones(4, 4), "b": torch.ones(2, 3)})
    with pytest.raises(BadRecord, match=r"x\.safetensors"):
        read_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["a pickle", "a name twice", "a weight that is no number", "a tensor too many"])
def test_a_foundation_checkpoint_with_a_right_checksum_is_refused(name, tmp_path):
    folder = tmp_path / "fmseg_results" / "foundation" / "ultrasound" / "evil"
    tiny_run.write_foundation(folder, "evil", [])
    tensors = ViT(tiny_run.ARCHITECTURE).state_dict()
    WEIGHTS[name](folder / "backbone.safetensors", tensors)
    card = Foundation.load(folder / "foundation.json")
    card.evolve(weights_sha256=sha256_file(folder / "backbone.safetensors")).save(folder / "foundation.json")
    with pytest.raises(BadRecord, match=r"backbone\.safetensors"):
        load_backbone(folder)


@pytest.mark.parametrize("name", ["a pickle", "a name twice", "a folder", "nothing"])
def test_a_checkpoint_is_refused(name, tmp_path):
    save_checkpoint(tmp_path, 3, {"a": torch.ones(3)}, {})
    (tmp_path / "step_00000003.safetensors").unlink()
    WEIGHTS[name](tmp_path / "step_00000003.safetensors", {"a": torch.ones(3)})
    with pytest.raises((BadData, OSError), match="step_00000003"):
        load_checkpoint(tmp_path, "step_00000003")


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", [name for name in WEIGHTS if name not in NOT_DAMAGED])
def test_weights_from_elsewhere_are_refused(name, ending, tmp_path):
    """A file of torch may hold anything; what is not a tensor never comes to life, whatever it is called."""
    WEIGHTS[name](tmp_path / f"x{ending}", {"a": torch.ones(4, 4), "b": torch.ones(2, 3)})
    with pytest.raises(BadData, match=r"x(\.pth|\.safetensors)?|none of"):
        read_foreign(tmp_path / f"x{ending}")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    torch.save({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "x.pth")
    with pytest.raises(BadData, match="no numbers"):
        read_foreign(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_refused_and_nothing_is_unpacked(name, tmp_path, capsys):
    path = tmp_path / "in" / "x.fmseg"
    path.parent.mkdir()
    ARCHIVES[name](path, {"manifest.json": b"{}", "README.md": b"a model"})
    before = content(tmp_path)
    code, out, err = typed(capsys, tmp_path, "import", str(path))
    assert code == 3, out + err
    assert "x.fmseg" in err
    made = {each for each in content(tmp_path).keys() - before.keys() if not each.startswith("fmseg_results")}
    assert not made
    results = tmp_path / "fmseg_results"
    assert not results.exists() or not [each for each in results.rglob("*") if each.is_file()]


#: what is changed in a run.json
RECORDS = {
    "an architecture of a billion blocks": {"architecture": {"depth": 10**9}},
    "an architecture wider than any": {"architecture": {"width": 10**12}},
    "an architecture larger than its weights": {"architecture": {"depth": 1000, "width": 32768, "num_heads": 8}},
    "a negative patch": {"architecture": {"patch_size": -8}},
    "another key": {"__class__": "os.system"},
    "a recipe that is code": {"recipe": {"decoder": "__import__('os').system"}},
    "a plugin that climbs": {"plugins": ["../../evil"]},
    "a version of tomorrow": {"version": 99},
    "a version that is a text": {"version": "1"},
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_refused(name, tmp_path, capsys):
    folder, _ = run_of(tmp_path)
    tiny_run.write_run(folder, tiny_run.config())
    value = json.loads((folder / "run.json").read_text())
    for key, change in RECORDS[name].items():
        value[key] = value[key] | change if isinstance(change, dict) and key in value else change
    (folder / "run.json").write_text(json.dumps(value))
    code, out, err = typed(capsys, tmp_path, "predict", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"))
    assert code in (2, 3), out + err
    assert not (tmp_path / "out").exists()


def test_a_selection_that_leaves_its_folder_is_refused(tmp_path, capsys):
    folder, _ = run_of(tmp_path)
    tiny_run.write_run(folder, tiny_run.config())
    members = [{"runs": "../../elsewhere", "folds": [0], "weight": 1}]
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6}
    value = {
        "version": 2,
        "dataset": NAME,
        "plans_digest": "0",
        "members": members,
        "clean_up": [],
        "candidates": [],
        "measure": "Dice",
        "score": interval,
        "because": "",
    }
    (tmp_path / "fmseg_results" / NAME / "selection.json").write_text(json.dumps(value))
    code, out, err = typed(capsys, tmp_path, "predict", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"))
    assert code == 3 and "members.0.runs" in err, out + err


def test_there_are_enough():
    assert len(WEIGHTS) + len(RECORDS) + len(ARCHIVES) >= 20
