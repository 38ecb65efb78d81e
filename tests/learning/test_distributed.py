import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_run import ToyTask, toy_fit

from fmseg.records.run import RunFolder

SCRIPT = Path(__file__).with_name("toy_run.py")


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module", params=["enough memory", "little memory"])
def two_ranks(request, tmp_path_factory):
    """The folder of a run of two processes, as torchrun starts them, one told to stop in the middle.

    With little memory one of them can only take a part of its images at once.
    """
    folder = tmp_path_factory.mktemp("two")
    few = ["1"] if request.param == "little memory" else []
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), "SIGTERM", "5", *few],
            env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=100) for process in processes] == [0, 0]
    return folder


def test_all_ranks_stop_and_save_when_one_is_told_to(two_ranks):
    for rank in range(2):
        assert (two_ranks / f"stopped_{rank}").read_text() == "143 step_00000006"


def test_two_processes_learn_what_one_does(tmp_path, two_ranks):
    one = toy_fit(tmp_path, dropout=0.0)
    ranks = []
    for rank in range(2):
        ranks.append(ToyTask(0.0))
        ranks[-1].load_state_dict(torch.load(two_ranks / f"task_{rank}.pt", weights_only=True))
    torch.testing.assert_close(ranks[0].model.state_dict(), one.model.state_dict(), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(*(task.parameters() for task in ranks), strict=True))


def test_metrics_are_means_over_the_ranks(tmp_path, two_ranks):
    toy_fit(tmp_path, dropout=0.0)
    one, two = RunFolder(tmp_path).history(), RunFolder(two_ranks).history()
    told = [line for line in two if "images_at_a_time" in line]
    assert told in ([], [{"step": 0, "images_at_a_time": 1.0}])
    two = [line for line in two if line not in told]
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for first, second in zip(one, two, strict=True):
        assert second == pytest.approx(first, rel=1e-4)
