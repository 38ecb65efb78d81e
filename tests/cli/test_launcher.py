"""``--gpus``: one command, several processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.distributed.launcher import api

from fmseg.cli.launcher import SAVING_TIME, launch, must_launch, without_gpus
from fmseg.errors import EnvironmentProblem, UsageError

PLUGIN = """
import json, os, signal, sys, time
from pathlib import Path

def note(number, frame):
    Path(os.environ["NOTES"], "signal_" + os.environ["RANK"]).write_text(str(number))
    sys.exit(143)

if "RANK" in os.environ:
    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGUSR1, note)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS")
    values = json.dumps([os.environ.get(name) for name in names])
    Path(os.environ["NOTES"], "rank_" + os.environ["RANK"]).write_text(values)
    if os.environ.get("WAIT"):
        time.sleep(60)
"""


def start(folder, *arguments, **variables):
    (folder / "note_ranks.py").write_text(PLUGIN)
    environment = os.environ | {"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{folder}", "NOTES": str(folder)}
    command = [sys.executable, "-m", "fmseg", "--root", str(folder), "pretrain", *arguments]
    # a root without datasets: what the processes do is to note who they are, and to complain
    return subprocess.Popen(command, env=environment | variables, stderr=subprocess.PIPE, text=True)


def test_the_command_runs_once_in_each_process_and_its_exit_code_comes_back(tmp_path):
    process = start(tmp_path, "--gpus", "2", "--plugin", "note_ranks", OMP_NUM_THREADS="1")
    error = process.communicate(timeout=100)[1]
    assert process.returncode == 2, error
    assert "which is for tests only" in error
    assert "Traceback" not in error
    ranks = [json.loads((tmp_path / f"rank_{rank}").read_text()) for rank in range(2)]
    assert ranks == [[str(rank), str(rank), "2", "1"] for rank in range(2)]
    assert not (tmp_path / "rank_2").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_all_processes(tmp_path, number):
    process = start(tmp_path, "--gpus=2", "--plugin", "note_ranks", WAIT="1")
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("rank_*"))) < 2:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 143, error
    assert len(list(tmp_path.glob("signal_*"))) == 2
    assert re.search(r"Stopped by SIG\w+\. Run the same command again", error)


def test_more_gpus_than_there_are_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("RANK", raising=False)
    assert must_launch(2)
    assert not must_launch(1)
    assert not must_launch(None)
    with pytest.raises(EnvironmentProblem, match="--gpus 8: this machine has 2"):
        must_launch(8)
    with pytest.raises(UsageError, match="--gpus 0"):
        must_launch(0)


def test_a_process_that_was_launched_launches_no_more(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert not must_launch(8)


def test_processes_do_not_see_the_option():
    typed = ["pretrain", "--gpus", "8", "-d", "501", "--gpus=4", "--budget", "2h"]
    assert without_gpus(typed) == ["pretrain", "-d", "501", "--budget", "2h"]


def test_processes_have_an_hour_to_save_unless_the_user_says_otherwise(monkeypatch):
    configs = []
    monkeypatch.setattr(api, "elastic_launch", lambda config, _: configs.append(config) or (lambda *_typed: {}))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(SAVING_TIME, "7")
    assert launch(2, ["list"]) == 0
    monkeypatch.delenv(SAVING_TIME)
    assert launch(2, ["list"]) == 0
    assert [config.shutdown_timeout for config in configs] == [7, 3600]
