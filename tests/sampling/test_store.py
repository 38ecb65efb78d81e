import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fmseg.errors import BadData, BadRecord, NotReady
from fmseg.sampling.store import Store
from fmseg.sampling.store_writer import StoreWriter, encode_case

NUM_CASES = 12


def make_case(index: int, dtype: type = np.uint8, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Images (Z, C, h, w) and label maps of a size of their own."""
    rng = np.random.default_rng(index)
    depth, height, width = 1 + index % 3, 10 + index, 20 - index
    images = rng.integers(0, 200, (depth, channels, height, width)).astype(dtype)
    return images, rng.integers(0, 3, (depth, height, width)).astype(np.uint8)


def write(
    folder: Path, digest: str = "one", stop: int = NUM_CASES, *, finish: bool = True, **options: int
) -> StoreWriter:
    writer = StoreWriter(folder, digest, **options)
    for index in range(stop):
        if f"case{index}" not in writer.done_cases:
            writer.append(f"case{index}", *make_case(index))
    if finish:
        writer.finish()
    return writer


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_read_is_what_was_written(tmp_path, dtype, channels):
    writer = StoreWriter(tmp_path, "one")
    cases = {f"case{index}": make_case(index, dtype, channels) for index in range(NUM_CASES)}
    for name, (images, labels) in cases.items():
        writer.append(name, images, labels)
    writer.finish()
    store = Store.open(tmp_path)
    assert len(store) == sum(len(images) for images, _ in cases.values()) and list(store.cases) == list(cases)
    assert store.has_labels and store.digest == "one" and store.channels == channels
    for name, (images, labels) in cases.items():
        for z, index in enumerate(store.cases[name]):
            np.testing.assert_array_equal(store.image(index), images[z])
            np.testing.assert_array_equal(store.label(index), labels[z])
            assert store.image(index).dtype == dtype and store.image(index).flags.writeable
            assert tuple(store.sizes[index]) == images.shape[2:]


def test_label_maps_may_be_missing_or_wide(tmp_path):
    images, labels = make_case(2)
    writer = StoreWriter(tmp_path, "one")
    writer.append("without", images, None)
    writer.append("wide", images, labels.astype(np.int16) * 300)
    writer.finish()
    store = Store.open(tmp_path)
    assert store.label(0) is None and not store.has_labels
    np.testing.assert_array_equal(store.label(len(images)), labels[0].astype(np.int16) * 300)


def test_reading_is_the_same_after_pickling_forking_and_in_threads(tmp_path):
    write(tmp_path, shard_bytes=2000)
    store = Store.open(tmp_path)
    wanted = [store.image(index).sum() for index in range(len(store))]
    again = pickle.loads(pickle.dumps(store))
    assert [again.image(index).sum() for index in range(len(store))] == wanted
    with ThreadPoolExecutor(4) as threads:
        assert (
            list(threads.map(lambda index: store.image(index % len(store)).sum(), range(len(store) * 4))) == wanted * 4
        )
    child = os.fork()
    if child == 0:
        os._exit(0 if [store.image(index).sum() for index in range(len(store))] == wanted else 1)
    assert [store.image(index).sum() for index in range(len(store))] == wanted
    assert os.waitpid(child, 0)[1] == 0


def test_shards_are_cut_at_their_size(tmp_path):
    write(tmp_path, shard_bytes=1000)
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("images-*.bin"))]
    assert len(sizes) > 3 and all(size >= 1000 for size in sizes[:-1])


@pytest.mark.parametrize("stop", range(0, NUM_CASES + 1, 3))
def test_an_interrupted_writer_goes_on_and_ends_in_the_same_bytes(tmp_path, stop):
    write(tmp_path / "whole", shard_bytes=1500)
    writer = write(tmp_path / "parts", stop=stop, finish=False, shard_bytes=1500)
    writer._flush()
    for index in range(stop, min(stop + 2, NUM_CASES)):  # on the disk, but not in the journal
        writer.append(f"case{index}", *make_case(index))
    writer._shard and writer._shard.flush()
    resumed = StoreWriter(tmp_path / "parts", "one", shard_bytes=1500)
    assert resumed.done_cases >= {f"case{index}" for index in range(stop)}
    write(tmp_path / "parts", shard_bytes=1500)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_a_torn_journal_line_is_dropped(tmp_path):
    write(tmp_path / "whole")
    write(tmp_path / "parts", stop=5, finish=False)._flush()
    with open(tmp_path / "parts" / "journal.jsonl", "ab") as file:
        file.write(b'{"case": "case5", "ki')
    assert write(tmp_path / "parts", stop=5, finish=False).num_done == 5
    write(tmp_path / "parts")
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_lost_shards_are_written_again(tmp_path):
    write(tmp_path / "whole")
    write(tmp_path / "parts", stop=5, finish=False)._flush()
    os.truncate(tmp_path / "parts" / "images-00000.bin", 10)
    assert StoreWriter(tmp_path / "parts", "one").num_done == 0
    write(tmp_path / "parts")
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_another_digest_starts_over_and_the_same_one_is_complete(tmp_path):
    write(tmp_path / "whole", "two", stop=3)
    write(tmp_path / "parts", "one", shard_bytes=1500)
    assert StoreWriter(tmp_path / "parts", "one").is_complete
    writer = StoreWriter(tmp_path / "parts", "two")
    assert not writer.is_complete and writer.done_cases == frozenset()
    with pytest.raises(NotReady):
        Store.open(tmp_path / "parts")
    write(tmp_path / "parts", "two", stop=3)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_cases_left_out_are_remembered(tmp_path):
    writer = StoreWriter(tmp_path, "one")
    writer.skip("bad", "it is broken")
    writer.append("good", *make_case(0))
    writer._flush()
    writer = StoreWriter(tmp_path, "one")
    assert writer.skipped == {"bad": "it is broken"} and writer.done_cases == {"bad", "good"}
    writer.finish()
    assert list(Store.open(tmp_path).cases) == ["good"]


def test_what_cannot_be_a_store_is_refused(tmp_path):
    with pytest.raises(BadData, match="no usable image"):
        StoreWriter(tmp_path / "empty", "one").finish()
    writer = StoreWriter(tmp_path / "mixed", "one")
    writer.append("a", *make_case(0))
    with pytest.raises(BadData, match="b: prepared as"):
        writer.append("b", *make_case(1, channels=3))


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_store_is_noticed_when_opened(tmp_path, damage):
    write(tmp_path)
    shard = tmp_path / "images-00000.bin"
    if damage == "cut":
        os.truncate(shard, 100)
    else:
        shard.unlink()
    with pytest.raises(BadRecord, match="damaged"):
        Store.open(tmp_path)


def test_encoding_does_not_depend_on_the_process(tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[1]); from test_store import *; " + (
        "import hashlib; print(hashlib.sha256(b''.join(b for i in range(5) for r in encode_case(*make_case(i)).images "
        "for b in r[:2])).hexdigest())"
    )
    import hashlib

    blobs = [blob for i in range(5) for row in encode_case(*make_case(i)).images for blob in row[:2]]
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    output = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"BLOSC_NTHREADS": "4"}
    )
    assert output.stdout.strip() == hashlib.sha256(b"".join(blobs)).hexdigest()


def test_a_killed_writer_ends_in_the_same_bytes(tmp_path):
    code = textwrap.dedent(
        """
        import sys, time
        sys.path.insert(0, sys.argv[1])
        import fmseg.sampling.store_writer as module
        from test_store import *
        module.FLUSH_SECONDS = 0.01
        writer = StoreWriter(Path(sys.argv[2]), "one", shard_bytes=1500)
        print("ready", flush=True)
        for index in range(NUM_CASES):
            if f"case{index}" not in writer.done_cases:
                writer.append(f"case{index}", *make_case(index))
                time.sleep(0.02)
        writer.finish()
        """
    )
    write(tmp_path / "whole", shard_bytes=1500)
    random.seed(0)
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "parts")]
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(random.uniform(0.02, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
