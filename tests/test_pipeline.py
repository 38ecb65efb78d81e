"""The whole job, command by command, on a made dataset: it runs, and always ends in the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmseg.records.foundation import Foundation
from fmseg.records.scores import Scores
from fmseg.records.selection import Selection

PRETRAIN = ("pretrain", "--set", "iterations=8", "--set", "batch_size=8")
TRAIN = (
    "train",
    "501",
    "-r",
    "upernet",
    "--set",
    "iterations=12",
    "--set",
    "validation_interval=6",
    "--set",
    "batch_size=4",
)
DATASET = "Dataset501_Discs"


def fmseg(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Type a command in a process of its own, on one thread, and return what it said."""
    return subprocess.run(command(root, *arguments), env=environment(), capture_output=True, text=True, check=False)


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "fmseg", "--root", str(root), *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def fingerprint_of(root: Path, pattern: str) -> dict[str, bytes]:
    """Return the bytes of the files that a run is judged by."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.glob(pattern))}


RESULTS = (
    "fmseg_preprocessed/*/*_images/*.bin",
    "fmseg_preprocessed/*/*_images/store.json",
    "fmseg_preprocessed/*/splits_final.json",
    "fmseg_results/foundation/*/*/backbone.safetensors",
    "fmseg_results/foundation/*/*/metrics.jsonl",
    "fmseg_results/*/*/fold_*/model.safetensors",
    "fmseg_results/*/*/fold_*/metrics.jsonl",
    "fmseg_results/*/*/fold_*/validation/*",
    "fmseg_results/*/selection.json",
    "predictions/*.png",
)


def all_results(root: Path) -> dict[str, bytes]:
    found = {}
    for pattern in RESULTS:
        matched = fingerprint_of(root, pattern)
        assert matched, f"nothing fits {pattern}"
        found |= matched
    return found


def run_job(root: Path, workers: str) -> None:
    """Type the four commands."""
    done(fmseg(root, "plan_and_preprocess", "-d", "501", "-np", workers))
    done(fmseg(root, *PRETRAIN, "--num-workers", workers))
    done(fmseg(root, *TRAIN, "--num-workers", workers))
    done(fmseg(root, "predict", "-i", str(root / "new"), "-o", str(root / "predictions"), "--overlays"))


@pytest.fixture
def raw(raw_dataset, tmp_path):
    """A raw dataset of three patients, and a folder of new images, one of them of another size and one broken."""
    workspace = raw_dataset(DATASET)
    new = tmp_path / "new"
    shutil.copytree(workspace.raw_dataset(DATASET) / "imagesTr", new)
    return tmp_path


@pytest.fixture
def job(raw):
    run_job(raw, "0")
    return raw


def test_the_four_commands_end_to_end(job):
    (card,) = [Foundation.load(path) for path in job.glob("fmseg_results/foundation/*/*/foundation.json")]
    assert card.samples_seen == 64
    assert card.seen_count == card.num_images == 6
    assert [probe.dataset for probe in card.probes] == [DATASET]
    assert (card.provenance.device, card.provenance.num_devices) == ("cpu", 1) and card.seconds > 0
    results = job / "fmseg_results" / DATASET
    selection = Selection.load(results / "selection.json")
    assert selection.members[0].folds == (0, 1, 2)
    for fold in range(3):
        folder = results / "upernet__fmsegPlans" / f"fold_{fold}"
        run = json.loads((folder / "run.json").read_text())
        assert run["provenance"]["deterministic"] is True
        assert (run["provenance"]["device"], run["provenance"]["num_devices"]) == ("cpu", 1)
        assert run["init"]["name"] == (card.name if card.has_learned else "scratch")
        assert json.loads((folder / "finished.json").read_text())["seen_in_pretraining"] == 2
        assert Scores.load(folder / "validation" / "scores.json").cases
        assert run["ranges"]["num_patients"] == 3 and run["ranges"]["colours"] == ["grey"]
    assert selection.seen is not None and selection.seen.pretraining == 6
    assert json.loads((job / "predictions" / "predict.json").read_text())["seen"]["training"] == 6
    assert "unlike" not in (job / "predictions" / "report.csv").read_text()
    listing = done(fmseg(job, "list", "--json"))
    assert json.loads(listing)[0]["next"] == "fmseg predict -i in -o out"


def test_two_workers_give_the_same_bytes_as_none(job, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for name in ("fmseg_raw", "new"):
        shutil.copytree(job / name, other / name)
    run_job(other, "2")
    first, second = all_results(job), all_results(other)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ((*PRETRAIN, "--set", "iterations=60"), "fmseg_results/foundation/*/*/checkpoints/*.json"),
        ((*TRAIN, "--set", "iterations=60", "--init", "scratch"), "fmseg_results/*/*/fold_0/checkpoints/*.json"),
    ],
)
def test_a_killed_run_typed_again_ends_in_the_same_bytes(raw, tmp_path_factory, arguments, pattern):
    done(fmseg(raw, "plan_and_preprocess", "-d", "501"))
    other = tmp_path_factory.mktemp("killed")
    shutil.copytree(raw, other, dirs_exist_ok=True)
    done(fmseg(raw, *arguments))
    arguments = (*arguments, "--checkpoint-minutes", "0.001")
    for kills in range(2):
        process = subprocess.Popen(
            command(other, *arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_checkpoint(process, other, pattern, before=time.time())
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"it had ended before kill {kills}"
    done(fmseg(other, *arguments))
    for kind in ("**/backbone.safetensors", "**/model.safetensors", "**/metrics.jsonl", "**/validation/*"):
        first, second = fingerprint_of(raw / "fmseg_results", kind), fingerprint_of(other / "fmseg_results", kind)
        assert first == second


def wait_for_checkpoint(process, root, pattern, before):
    """Wait until the run has written a checkpoint of its own."""
    while process.poll() is None:
        if any(path.stat().st_mtime > before for path in root.glob(pattern)):
            return
        time.sleep(0.02)
    pytest.fail("the run ended before it could be killed")


def test_all_folds_start_alike_though_another_checkpoint_came_between(job):
    done(fmseg(job, *PRETRAIN, "--set", "iterations=9", "--name", "longer"))
    results = job / "fmseg_results" / DATASET / "upernet__fmsegPlans"
    shutil.rmtree(results / "fold_2")
    done(fmseg(job, *TRAIN[:2], "fold2", *TRAIN[2:]))
    starts = {json.loads(path.read_text())["init"]["name"] for path in results.glob("fold_*/run.json")}
    assert starts == {"d501"}
    # a finished fold is only read, though the checkpoint that auto would choose is another one now
    done(fmseg(job, *TRAIN[:2], "fold0", *TRAIN[2:]))


@pytest.mark.slow
def test_two_ranks_pretrain_as_one(raw, tmp_path_factory):
    """Started by torchrun, with gloo: the same losses to float tolerance, and one set of files."""
    done(fmseg(raw, "plan_and_preprocess", "-d", "501"))
    other = tmp_path_factory.mktemp("ranks")
    shutil.copytree(raw, other, dirs_exist_ok=True)
    # KoLeo looks for neighbours among the images of a rank, bfloat16 rounds otherwise in other batches, and Adam
    # turns the rounding of gradients that are almost nothing into whole steps: so those are small here
    # And the plan, which knows the number of devices, must not be another one.
    alike = ("koleo_weight=0.0", "precision=float32", "drop_path=0.0", "learning_rate=1e-4", "warmup_iterations=2")
    arguments = (*PRETRAIN, *(part for setting in alike for part in ("--set", setting)))
    done(fmseg(raw, *arguments))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "fmseg"]
    result = subprocess.run(
        [*launcher, "--root", str(other), *arguments], env=environment(), capture_output=True, text=True, check=False
    )
    assert result.stdout.count("Foundation checkpoints") == 1, "one rank speaks"
    done(result)
    one, two = (
        [json.loads(line) for line in next(root.glob("fmseg_results/**/metrics.jsonl")).read_text().splitlines()]
        for root in (raw, other)
    )
    assert [line["step"] for line in one] == [line["step"] for line in two]
    assert any("probe_d501_dice" in line for line in one), "rank 0 looks while the other waits"
    one, two = ([line for line in lines if "loss" in line] for lines in (one, two))
    for name in ("loss", "dino_local", "dino_global", "ibot"):
        assert [line[name] for line in one] == pytest.approx([line[name] for line in two], rel=1e-5)


@pytest.mark.slow
def test_two_processes_measure_the_step_that_a_budget_is_planned_from(raw):
    done(fmseg(raw, "plan_and_preprocess", "-d", "501"))
    result = fmseg(raw, "pretrain", "--gpus", "2", "--budget", "30s", "--num-workers", "0")
    done(result)
    assert result.stderr.count("a step of") == 1
    assert result.stdout.count("Foundation checkpoints") == 1
    assert len(list(raw.glob("fmseg_results/foundation/*/*/foundation.json"))) == 1
