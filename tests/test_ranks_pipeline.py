"""Several processes do one job: as torchrun starts them, and as ``--gpus`` does."""

import json
import signal
import subprocess
import sys
import time

import pytest
from test_pipeline import DATASET, TRAIN, command, done, environment, fmseg, raw

from fmseg.files import read_lines

__all__ = ["raw"]
LAUNCHERS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "fmseg"],
    "gpus": [sys.executable, "-m", "fmseg"],
}
#: a run that goes on until it is told to stop, and saves only then
LONG = ("pretrain", "--set", "iterations=4000", "--set", "batch_size=8", "--checkpoint-minutes", "100")
#: seconds that a scheduler gives
NOTICE_S = 30


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


def logged_step(root):
    """Return the last step in the log of the only pretraining, 0 if there is none."""
    lines = [line for path in root.glob("fmseg_results/foundation/*/*/metrics.jsonl") for line in read_lines(path)]
    return json.loads(lines[-1])["step"] if lines else 0
