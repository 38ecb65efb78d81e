import functools
import os
import signal
import socket
from collections.abc import Iterator

import pytest

import fmseg.sampling.cluster as module
from fmseg.errors import EnvironmentProblem, UsageError
from fmseg.sampling.cluster import Cluster
from fmseg.sampling.workers import Workers

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The scheduler of two worker processes, which gives a case up when it has killed one of them."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
    ):
        yield cluster.scheduler_address


def square(number: int, *, deadly: frozenset[int] = frozenset()) -> str:
    if number in deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{number * number}"


def dead(number: int) -> str:
    return f"{number} died"


def test_results_come_in_order_and_deadly_cases_cost_themselves_alone(address):
    workers = Workers(square, dead, 0, "fmseg.errors", chunk_size=2, cluster=Cluster(address))
    assert list(workers.map(range(200))) == [str(number**2) for number in range(200)]
    deadly = frozenset({4})
    workers = Workers(functools.partial(square, deadly=deadly), dead, 0, "fmseg.errors", (), 1, Cluster(address))
    assert list(workers.map(range(9))) == ["4 died" if number in deadly else str(number**2) for number in range(9)]


def test_a_worker_that_does_not_see_the_images_or_has_other_versions_is_refused(address, tmp_path, monkeypatch):
    missing = tmp_path / "images"
    with pytest.raises(EnvironmentProblem, match=f"does not see {missing}. Mount it"):
        list(Cluster(address, (missing,)).map(square, dead, range(3), chunk_size=2))
    here = module.versions()
    monkeypatch.setattr(module, "versions", lambda: here | {"blosc2": "99.0"})
    with pytest.raises(EnvironmentProblem, match=rf"blosc2 {here['blosc2']}, not 99\.0. Install"):
        list(Cluster(address).map(square, dead, range(3), chunk_size=2))


def test_a_cluster_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 0.3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(EnvironmentProblem, match="no Dask scheduler answers"):
        list(Cluster(address).map(square, dead, range(3), chunk_size=2))
    with pytest.raises(UsageError, match="no address"):
        list(Cluster("nonsense://x").map(square, dead, range(3), chunk_size=2))


def test_a_cluster_without_workers_is_told(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    monkeypatch.setattr(module, "LOOK_S", 0.1)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        pytest.raises(EnvironmentProblem, match="no worker came"),
    ):
        list(Cluster(cluster.scheduler_address).map(square, dead, range(3), chunk_size=2))
