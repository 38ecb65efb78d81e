import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy_run import die, toy_fit

from fmseg.errors import BadData, Interrupted
from fmseg.learning.loop import Hook
from fmseg.records.run import RunFolder


def equal(one, other):
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def files(folder):
    """Everything that a run leaves, but for the times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timing.jsonl"
    }


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return folder, toy_fit(folder)


@pytest.mark.parametrize("step", [1, 4, 7])
def test_a_run_interrupted_and_resumed_ends_in_the_same_bytes(tmp_path, straight, step):
    with pytest.raises(Interrupted, match=f"after step {step + 1} of 10"):
        toy_fit(tmp_path, before_step=die(step, signal.SIGTERM), checkpoint_every=None)
    task = toy_fit(tmp_path)
    assert equal(task, straight[1])
    assert (tmp_path / "metrics.jsonl").read_bytes() == (straight[0] / "metrics.jsonl").read_bytes()


def test_a_killed_run_ends_in_the_same_bytes(tmp_path, straight):
    script = Path(__file__).with_name("toy_run.py")
    command = [sys.executable, str(script), str(tmp_path), "SIGKILL", "5"]
    assert subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode == -signal.SIGKILL
    assert not (tmp_path / "checkpoints/step_00000010.json").exists()
    task = toy_fit(tmp_path)
    assert equal(task, straight[1])
    assert files(tmp_path) == files(straight[0])


@pytest.mark.slow
def test_sixty_kills_at_random_moments_change_no_byte(tmp_path):
    """Each kill hits a fresh process, anywhere in a step or in the writing of a checkpoint."""
    length = {"iterations": 4000, "log_every": 7, "checkpoint_every": 5}
    toy_fit(tmp_path / "straight", **length)
    rng, kills = random.Random(0), 0
    while True:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                toy_fit(tmp_path / "killed", **length)
                code = 0
            finally:
                os._exit(code)
        if kills < 60:
            time.sleep(rng.uniform(0.0, 0.15))
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            break
        assert status == -signal.SIGKILL
        kills += 1
    assert kills == 60, "the run ended before it was killed so often"
    assert files(tmp_path / "killed") == files(tmp_path / "straight")


def test_signals_give_their_exit_codes(tmp_path):
    codes = {signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGINT: 130}
    for number, code in codes.items():
        handler = signal.getsignal(number)
        with pytest.raises(Interrupted) as caught:
            toy_fit(tmp_path / str(number), before_step=die(2, number))
        assert caught.value.exit_code == code
        assert signal.getsignal(number) == handler


def test_workers_that_die_of_the_same_ctrl_c_do_not_lose_the_run(tmp_path, straight):
    def interrupted_loader(step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            raise RuntimeError("a worker exited unexpectedly")

    with pytest.raises(Interrupted, match="after step 5"):
        toy_fit(tmp_path, before_step=interrupted_loader)
    assert equal(toy_fit(tmp_path), straight[1])


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(tmp_path, straight, caplog):
    toy_fit(tmp_path)
    newest = tmp_path / "checkpoints/step_00000010.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(data)
    task = toy_fit(tmp_path)
    assert "step_00000010" in caplog.text and newest.with_name(newest.name + ".damaged").exists()
    assert equal(task, straight[1])
    assert files(tmp_path).keys() - files(straight[0]).keys() == {
        "checkpoints/step_00000010.json.damaged",
        "checkpoints/step_00000010.safetensors.damaged",
    }


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew(tmp_path):
    toy_fit(tmp_path)
    for path in (tmp_path / "checkpoints").glob("*.json"):
        path.write_text(path.read_text().replace("journal", "jornal"))
    for _ in range(2):
        with pytest.raises(BadData, match=r"step_00000009.json.damaged, step_00000010.json.damaged"):
            toy_fit(tmp_path)


def test_a_finished_run_does_nothing_more(tmp_path, straight):
    toy_fit(tmp_path)
    before = files(tmp_path)
    task = toy_fit(tmp_path)
    assert equal(task, straight[1]) and files(tmp_path) == before


def test_hooks_are_called_and_logged_after_a_resume_too(tmp_path):
    def hook(seen):
        return (Hook(4, lambda step: seen.append(step) or {"val_dice": step / 10}),)

    seen, again = [], []
    with pytest.raises(Interrupted):
        toy_fit(tmp_path, before_step=die(4, signal.SIGTERM), hooks=hook(seen))
    toy_fit(tmp_path, hooks=hook(again))
    assert (seen, again) == ([4], [8, 10])
    logged = [line for line in RunFolder(tmp_path).history() if "val_dice" in line]
    assert logged == [{"step": 4, "val_dice": 0.4}, {"step": 8, "val_dice": 0.8}, {"step": 10, "val_dice": 1.0}]


def test_what_a_kill_left_beside_the_last_checkpoint_goes(tmp_path):
    """After the last step is saved nothing else is, so what that would have removed is removed at the next start."""
    toy_fit(tmp_path, 6, checkpoint_every=2)
    run = RunFolder(tmp_path)
    whole = sorted(path.name for path in run.checkpoints.iterdir())
    for ending in ("json", "safetensors"):
        shutil.copy(run.checkpoints / f"step_00000006.{ending}", run.checkpoints / f"step_00000001.{ending}")
    run.validation.mkdir()
    for folder in (run.path, run.validation, run.checkpoints):
        (folder / ".scores.json.1.tmp").write_text("{")
    toy_fit(tmp_path, 6, checkpoint_every=2)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == whole
    assert not [*tmp_path.rglob(".*.tmp")]
