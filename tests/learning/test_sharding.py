"""Parameters shared out among the ranks learn what whole ones do, and checkpoints go from one to the other."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fmseg.records.run import RunFolder

SCRIPT = Path(__file__).with_name("shard_run.py")


def start(folder, sharding, num_ranks, iterations=4, *flags):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_ranks)}
    return [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), sharding, str(folder), str(iterations), *flags],
            env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_ranks)
    ]


def run(folder, sharding, num_ranks, iterations=4, *flags):
    processes = start(folder, sharding, num_ranks, iterations, *flags)
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * num_ranks, errors
    return folder


def assert_same(one, other, also=frozenset()):
    first, second = RunFolder(one).history(), RunFolder(other).history()
    second = [line for line in second if not also & line.keys()]
    assert [line["step"] for line in first] == [line["step"] for line in second]
    for mine, theirs in zip(first, second, strict=True):
        assert mine.keys() == theirs.keys()
        for name in ("loss", "dino_local", "dino_global", "ibot", "grad_norm"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-5), name
    weights = [torch.load(folder / "task_0.pt", weights_only=True) for folder in (one, other)]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of one rank."""
    return run(tmp_path_factory.mktemp("whole"), "ddp", 1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A run of two ranks, each of which holds a half of the parameters, clipped as one."""
    return run(tmp_path_factory.mktemp("shared"), "fsdp", 2)


def test_two_sharded_ranks_learn_what_one_does(whole, shared):
    assert_same(whole, shared)
    assert max(line["grad_norm"] for line in RunFolder(whole).history()) > 0.05, "nothing was clipped"


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["fsdp", "ddp"])
def test_compiled_layers_and_looks_change_nothing(tmp_path, whole, sharding):
    assert_same(whole, run(tmp_path / "compiled", sharding, 2, 4, "compiled", "looks"), also={"seen"})
    one = run(tmp_path / "one", "ddp", 1, 4, "looks")
    for mine, theirs in zip(looks(one), looks(tmp_path / "compiled"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def looks(folder):
    return [line["seen"] for line in RunFolder(folder).history() if "seen" in line]


@pytest.mark.slow
def test_sharded_ranks_without_memory_are_told_what_to_do_and_do_not_hang(tmp_path):
    processes = start(tmp_path, "fsdp", 2, 4, "little")
    for process in processes:
        assert "too little memory for 4 images" in process.communicate(timeout=300)[1]
        assert process.returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["fsdp", "ddp"])
@pytest.mark.parametrize("moment", ["forward", "backward"])
def test_when_one_rank_is_full_all_take_fewer_images_at_a_time(tmp_path, sharding, moment):
    roomy = run(tmp_path / "roomy", "ddp", 1, 3, "eight")
    tight = run(tmp_path / "tight", sharding, 2, 3, "eight", "full", moment)
    told = [line for line in RunFolder(tight).history() if "images_at_a_time" in line]
    assert told == [{"step": 0, "images_at_a_time": 2}]
    assert_same(roomy, tight, also={"images_at_a_time"})


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["fsdp", "ddp"])
def test_when_one_rank_is_full_later_the_next_job_takes_fewer_images_at_a_time(tmp_path, sharding):
    roomy = run(tmp_path / "roomy", "ddp", 1, 4, "eight")
    typed = (tmp_path / "tight", sharding, 2, 4, "eight", "full", "late", "forward")
    processes = start(*typed)
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert all(process.returncode for process in processes)
    assert "out of memory in step 3. Run the same command again" in errors[1]
    run(*typed)
    told = [line for line in RunFolder(tmp_path / "tight").history() if "images_at_a_time" in line]
    assert told == [{"step": 2, "images_at_a_time": 2}]
    assert_same(roomy, tmp_path / "tight", also={"images_at_a_time"})


def half_way(folder, target):
    """A copy of a run as it was after two of its four steps."""
    shutil.copytree(folder, target)
    for path in target.glob("checkpoints/step_00000004*"):
        path.unlink()
    return target


@pytest.mark.slow
def test_what_two_wrote_one_goes_on_with(tmp_path, whole, shared):
    assert_same(whole, run(half_way(shared, tmp_path / "run"), "ddp", 1))


@pytest.mark.slow
def test_what_one_wrote_two_go_on_with(tmp_path, whole):
    assert_same(whole, run(half_way(whole, tmp_path / "run"), "fsdp", 2))
