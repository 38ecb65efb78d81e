"""Several processes do one job: as torchrun starts them, and as ``--gpus`` does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from test_pipeline import DATASET, PRETRAIN, TRAIN, command, done, environment, fmseg, raw

from fmseg.files import locked, read_lines

__all__ = ["raw"]
LAUNCHERS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "fmseg"],
    "gpus": [sys.executable, "-m", "fmseg"],
}
#: a run that goes on until it is told to stop, and saves only then
LONG = ("pretrain", "--set", "iterations=4000", "--set", "batch_size=8", "--checkpoint-minutes", "100")
#: seconds that a scheduler gives
NOTICE_S = 30
QUIET = {"stderr": subprocess.PIPE, "text": True}
#: the second process is on another machine, whose network disk shows it late what the first one writes
BLIND = """
import os
from pathlib import Path

if os.environ.get("RANK") == "1":
    exists, read = Path.exists, Path.read_bytes
    late = ("run.json", "finished.json", "memory.json")

    def read_bytes(path):
        if path.name in late:
            raise FileNotFoundError(path)
        return read(path)

    Path.exists = lambda path, **options: path.name not in late and exists(path, **options)
    Path.read_bytes = read_bytes
"""


@pytest.mark.slow
def test_two_processes_train_all_folds_and_one_of_them_chooses(raw):
    done(fmseg(raw, "plan_and_preprocess", "-d", "501"))
    result = fmseg(raw, *TRAIN, "--gpus", "2", "--num-workers", "0")
    done(result)
    results = raw / "fmseg_results" / DATASET
    assert len(list(results.glob("*__*/fold_*/finished.json"))) == 3
    assert (results / "selection.json").exists()
    assert result.stdout.count("Out-of-fold Dice of all candidates") == 1


@pytest.mark.slow
def test_what_one_process_has_written_need_not_be_seen_by_the_others(raw, monkeypatch):
    (raw / "blind.py").write_text(BLIND)
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}:{raw}")
    done(fmseg(raw, "plan_and_preprocess", "-d", "501"))
    flags = ("--gpus", "2", "--num-workers", "0", "--plugin", "blind")
    for typed in (PRETRAIN, TRAIN):
        for _ in "12":  # at the second time it is finished
            done(fmseg(raw, *typed, *flags))


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAUNCHERS)
def test_a_scheduler_that_ends_the_job_finds_a_checkpoint_in_time(raw, kind):
    done(fmseg(raw, "plan_and_preprocess", "-d", "501"))
    flags = ["--gpus", "2"] if kind == "gpus" else []
    typed = [*LAUNCHERS[kind], *command(raw, *LONG)[3:], *flags, "--num-workers", "0"]
    saved = [0]
    for _ in "12":  # the second time it was put into the queue again
        process = subprocess.Popen(typed, env=environment(), stderr=subprocess.PIPE, text=True)
        while process.poll() is None and logged_step(raw) <= saved[-1]:
            time.sleep(0.2)
        told = time.time()
        process.send_signal(signal.SIGTERM)
        error = process.communicate(timeout=10 * NOTICE_S)[1]
        assert process.returncode == 143 if kind == "gpus" else process.returncode != 0
        assert "Stopped by SIGTERM" in error
        newest = max(raw.glob("fmseg_results/foundation/*/*/checkpoints/step_*.json"))
        assert newest.stat().st_mtime - told < NOTICE_S
        saved.append(int(newest.stem.removeprefix("step_")))
    assert 0 < saved[1] < saved[2]
    assert f"Going on after step {saved[1]} of" in error


@pytest.mark.slow
def test_when_one_process_refuses_the_others_name_no_fault(raw):
    done(fmseg(raw, "plan_and_preprocess", "-d", "501"))
    done(fmseg(raw, *PRETRAIN, "--name", "taken"))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1]), "WORLD_SIZE": "2"}
    typed = command(raw, *PRETRAIN, "--name", "taken", "--num-workers", "0")
    (run,) = raw.glob("fmseg_results/foundation/*/taken")
    with locked(run, "this pretraining"):  # which the first process alone finds out
        ranks = [
            subprocess.Popen(typed, env=environment() | group | {"RANK": rank, "LOCAL_RANK": rank}, **QUIET)
            for rank in "01"
        ]
        first, second = (process.communicate(timeout=100)[1] for process in ranks)
    assert "Another process of this job has ended" in second and "fault of fmseg" not in first + second
    assert str(run) in first
    assert [process.returncode for process in ranks] == [4, 4]


def logged_step(root):
    """Return the last step in the log of the only pretraining, 0 if there is none."""
    lines = [line for path in root.glob("fmseg_results/foundation/*/*/metrics.jsonl") for line in read_lines(path)]
    return json.loads(lines[-1])["step"] if lines else 0
