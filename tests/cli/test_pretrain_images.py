"""``fmseg pretrain --images``: from files that lie anywhere to a checkpoint, in one command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fmseg.cli import main

FEW = ("--set", "iterations=2", "--set", "batch_size=4", "--num-workers", "0", "-np", "0")


def fmseg(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fmseg", "--root", str(root), *arguments]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture
def archive(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "archive"
    for name in ("P1/a", "P1/b", "P2/a", "P3/a", "P4/a", "P5/a"):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 255, (6, 8), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, (80, 64), interpolation=cv2.INTER_CUBIC))
    (folder / "P5" / "broken.png").write_bytes(b"no picture")
    return folder


def backbone(root: Path) -> bytes:
    (path,) = root.glob("fmseg_results/foundation/*/*/backbone.safetensors")
    return path.read_bytes()


@pytest.mark.slow
def test_one_command_prepares_and_pretrains_and_a_store_changes_nothing(archive, tmp_path):
    with_store, without = tmp_path / "one", tmp_path / "two"
    for root in (with_store, without):
        root.mkdir()
    made = fmseg(with_store, "pretrain", "--images", str(archive), *FEW, "--json")
    assert made.returncode == 5, made.stderr  # a broken file was left out
    (card,) = json.loads(made.stdout)
    assert (card["datasets"], card["num_images"]) == (["Dataset901_archive"], 6)
    (skipped,) = with_store.glob("fmseg_preprocessed/*/skipped.jsonl")
    assert [json.loads(line)["case"] for line in skipped.read_text().splitlines()] == ["P5/broken"]
    made = fmseg(without, "pretrain", "--images", str(archive), "--no-store", *FEW)
    assert made.returncode == 0, made.stderr
    assert not list(without.glob("fmseg_preprocessed/*/*_images"))
    assert backbone(without) == backbone(with_store)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return left.value.code, *capsys.readouterr()


def test_images_are_prepared_once_and_found_again(archive, tmp_path, capsys):
    command = ("plan_and_preprocess", "--root", str(tmp_path), "--images", str(archive), "-np", "0")
    code, out, err = run(capsys, *command)
    assert code == 5
    assert "Dataset901_archive" in out
    assert "taken for ultrasound" in err
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("fmseg_preprocessed/*/*_images/*")}
    assert files
    code, out, err = run(capsys, *command, "--modality", "us")
    assert code == 5
    assert "are prepared already" in err
    assert {path: path.stat().st_mtime_ns for path in files} == files
    code, _, err = run(capsys, *command, "--modality", "ct")
    assert code == 2
    assert "of ultrasound already" in err


def test_several_processes_pretrain_on_what_one_has_prepared(archive, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = run(capsys, "pretrain", "--root", str(tmp_path), "--images", str(archive))
    assert code == 2
    assert "fmseg plan_and_preprocess --images" in err
