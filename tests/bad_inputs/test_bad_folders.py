"""``predict`` names what it cannot do, does the rest, and writes nowhere else."""

import shutil
import sys
from pathlib import Path

import pytest
from bad_folders import FOLDERS, BadFolder, write_good
from sound import NAME
from test_bad_datasets import content, no_hang, quiet_afterwards, squeezed, typed

sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
import tiny_run

__all__ = ["no_hang", "quiet_afterwards"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """Write a workspace with one trained network."""
    root = tmp_path_factory.mktemp("trained")
    tiny_run.write_run(root / "fmseg_results" / NAME / "linear__plans" / "fold_0", tiny_run.config())
    return root


@pytest.mark.parametrize("bad", FOLDERS, ids=lambda bad: bad.name)
def test_a_bad_folder_is_told_and_the_rest_done(bad: BadFolder, trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    write_good(tmp_path)
    bad.spoil(tmp_path)
    before = {name: kept for name, kept in content(tmp_path).items() if not name.startswith("out/")}
    source, target = tmp_path / "in", tmp_path / "out"
    code, out, err = typed(capsys, tmp_path, "predict", "-i", str(source), "-o", str(target), "--overlays")
    assert code == bad.code, out + err
    assert all(word in squeezed(err) for word in bad.words), err
    maps = {path.name for path in target.iterdir() if not path.is_dir()} if target.is_dir() else set()
    assert maps - {"predict.json", "report.csv", ".lock"} == set(bad.done)
    after = {name: kept for name, kept in content(tmp_path).items() if not name.startswith("out/")}
    after.pop("out", None)
    before.pop("out", None)
    assert after == before, "inputs, links and models are as they were"


def test_there_are_enough():
    assert len(FOLDERS) >= 20
