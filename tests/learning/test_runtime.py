import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
import torch._dynamo  # it looks at torch.cuda when it is first imported, which is patched here

from fmseg.errors import EnvironmentProblem
from fmseg.learning.runtime import Runtime, stop_signals


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    yield
    torch.use_deterministic_algorithms(False)


def test_a_cpu_is_deterministic_by_default(on_cpu):
    runtime = Runtime.detect("float32")
    assert (runtime.device.type, runtime.rank, runtime.world, runtime.deterministic) == ("cpu", 0, 1, True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not Runtime.detect("float32", deterministic=False).deterministic
    assert not torch.are_deterministic_algorithms_enabled()


def test_autocast_computes_in_the_precision():
    products = {precision: Runtime(torch.device("cpu"), precision=precision) for precision in ("float32", "bfloat16")}
    for precision, runtime in products.items():
        with runtime.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, precision)
        assert not runtime.scaler().is_enabled()


def test_loaders_share_the_cores_of_a_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(16), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert Runtime(torch.device("cuda")).loader_processes() == 3
    assert Runtime(torch.device("cpu")).loader_processes() == 1


def test_float16_needs_cuda(on_cpu):
    with pytest.raises(EnvironmentProblem, match="bfloat16"):
        Runtime.detect("float16")
    with pytest.raises(EnvironmentProblem, match="bfloat16"):
        Runtime(torch.device("cpu")).at("float16")
    assert Runtime(torch.device("cpu"), rank=1, world=2).at("bfloat16").rank == 1


def test_more_processes_than_devices_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(EnvironmentProblem, match="nproc_per_node=2"):
        Runtime.detect("float32")


def test_the_second_ctrl_c_acts_at_once():
    # a shell lets what it starts in the background ignore interruptions
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.signal_number == signal.SIGTERM
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signal_number == signal.SIGINT
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_stop_signals_do_nothing_in_other_threads():
    seen = []

    def work():
        with stop_signals() as stop:
            seen.append(stop.signal_number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0]


REJOIN = """
import time
import torch
from fmseg.learning.runtime import Runtime
for number in range(3):
    runtime = Runtime.detect("float32")
    assert runtime.highest([10 * number + runtime.rank]) == [10 * number + 1]
    assert runtime.gathered("ä" * runtime.rank * number) == ["", "ä" * number]
    assert runtime.from_main(f"{runtime.rank}") == "0"
    model = torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(model.weight, runtime.rank + number)
    runtime.make_alike(model)
    assert model.weight.tolist() == [number, number]
    time.sleep(0.3 * runtime.rank)
    runtime.close()
"""


def test_processes_join_again_and_again_by_the_store_that_their_launcher_keeps():
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2"}
    group |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "OMP_NUM_THREADS": "1"}  # as torchrun says it
    processes = [
        subprocess.Popen([sys.executable, "-c", REJOIN], env=os.environ | group | {"RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
