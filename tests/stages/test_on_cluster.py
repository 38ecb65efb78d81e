"""A corpus measured and prepared by two Dask workers: the same bytes as without, wherever it was interrupted."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fmseg.cli import main
from fmseg.sampling.store_writer import StoreWriter

distributed = pytest.importorskip("distributed")
NAME = "Dataset501_Discs"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


def prepare(root: Path, *options: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(("plan_and_preprocess", "--root", str(root), "-d", "501", *options))
    return left.value.code


def content(root: Path) -> dict[str, bytes]:
    files = (path for path in (root / "fmseg_preprocessed" / NAME).rglob("*") if path.is_file())
    return {path.name: path.read_bytes() for path in files if not path.name.startswith(".")}


@pytest.mark.parametrize(
    "options", [{"task": "unlabelled"}, pytest.param({"ending": ".nii.gz"}, marks=pytest.mark.slow)], ids=str
)
def test_a_cluster_prepares_the_same_bytes_after_an_interruption_too(
    raw_dataset, tmp_path, address, options, monkeypatch
):
    workspace = raw_dataset(num_patients=12, **options)
    bad = workspace.raw_dataset(NAME) / "imagesTr" / "P03_1_0000.png"
    if bad.exists():
        bad.write_bytes(b"no picture")
    assert prepare(tmp_path, "-np", "0") == (5 if bad.exists() else 0)
    wanted = content(tmp_path)
    workspace.preprocessed.rename(tmp_path / "alone")

    append, count = StoreWriter.append_encoded, iter(range(100))

    def stopped(writer, case, encoded):
        if next(count) == 7:
            raise KeyboardInterrupt
        append(writer, case, encoded)
        writer._flush()

    monkeypatch.setattr(StoreWriter, "append_encoded", stopped)
    assert prepare(tmp_path, "--cluster", address) == 130
    assert not list(workspace.preprocessed.rglob("store.json"))
    monkeypatch.undo()
    # what was done by then is not done again
    left = []
    monkeypatch.setattr(StoreWriter, "append_encoded", lambda *args: (left.append(args[1]), append(*args)))
    assert prepare(tmp_path, "--cluster", address) == (5 if bad.exists() else 0)
    assert len(left) == 24 - 7 - bad.exists()
    assert content(tmp_path) == wanted
