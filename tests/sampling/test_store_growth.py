"""A store of a set that has grown: what is read is what a store packed anew gives, and no old byte is touched."""

import json
from pathlib import Path

import numpy as np
import pytest

import fmseg.files as files
import fmseg.sampling.store_writer as writing
from fmseg.errors import BadData
from fmseg.records.cases import key_of
from fmseg.sampling.store import Store
from fmseg.sampling.store_growth import Wanted
from fmseg.sampling.store_writer import StoreWriter

SHARD_BYTES = 1500
#: a case is its name and a version of its content
Cases = dict[str, int]
BEFORE: Cases = {f"case{index:02d}": 0 for index in range(12)}
#: two removed, one changed, four new ones: before, between and behind the others
AFTER: Cases = dict.fromkeys(("a", *BEFORE, "case05b", "x", "y"), 0) | {"case07": 1}
AFTER = {name: AFTER[name] for name in sorted(AFTER) if name not in ("case02", "case11")}


def make_case(name: str, version: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng((key_of(name), version))
    depth, height, width = rng.integers((1, 8, 8), (4, 20, 20))
    images = rng.integers(0, 200, (depth, 1, height, width)).astype(np.uint8)
    return images, rng.integers(0, 3, (depth, height, width)).astype(np.uint8)


def write(folder: Path, cases: Cases, digest: str, *, preparation: str = "as ever", bad: str = "case04") -> list[str]:
    """Write or add to a store; return the cases that had to be prepared. One of them is always left out."""
    keys = np.array([key_of(f"{name} {version}") for name, version in cases.items()], np.uint64)
    wanted = Wanted(list(cases), keys, preparation)
    writer = StoreWriter(folder, digest, wanted=wanted, shard_bytes=SHARD_BYTES)
    if writer.is_complete:
        return []
    done, prepared = writer.done_cases, []
    for name, version in cases.items():
        if name in done:
            continue
        if name == bad:
            writer.skip(name, "it is broken")
            continue
        writer.append(name, *make_case(name, version))
        writer._flush()
        prepared.append(name)
    writer.finish()
    return prepared


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("images-*.bin"))}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_same_read(folder: Path, fresh: Path) -> None:
    one, other = Store.open(folder), Store.open(fresh)
    assert one.case_names == other.case_names and one.cases == other.cases
    np.testing.assert_array_equal(one.sizes, other.sizes)
    for index in range(len(other)):
        np.testing.assert_array_equal(one.image(index), other.image(index))
        np.testing.assert_array_equal(one.label(index), other.label(index))


def test_only_what_is_new_is_written_and_reading_cannot_tell(tmp_path):
    write(tmp_path / "grown", BEFORE, "one")
    before = shards(tmp_path / "grown")
    assert write(tmp_path / "grown", AFTER, "two") == ["a", "case05b", "case07", "x", "y"]
    write(tmp_path / "fresh", AFTER, "two")
    assert_same_read(tmp_path / "grown", tmp_path / "fresh")
    assert shards(tmp_path / "grown").items() >= before.items()
    # and back again: what was removed comes from the old bytes no more, what was kept does
    assert write(tmp_path / "grown", BEFORE, "one") == ["case02", "case07", "case11"]
    write(tmp_path / "fresh again", BEFORE, "one")
    assert_same_read(tmp_path / "grown", tmp_path / "fresh again")
    assert write(tmp_path / "grown", BEFORE, "one") == []
    generations = [path.name for path in (tmp_path / "grown").glob("index*")]
    assert generations == ["index-00002.npy"]


def test_a_store_from_which_cases_are_only_removed_writes_no_shard(tmp_path):
    write(tmp_path / "grown", BEFORE, "one")
    before = shards(tmp_path / "grown")
    fewer = {name: version for name, version in BEFORE.items() if name not in ("case00", "case08")}
    assert write(tmp_path / "grown", fewer, "two") == []
    assert shards(tmp_path / "grown") == before
    write(tmp_path / "fresh", fewer, "two")
    assert_same_read(tmp_path / "grown", tmp_path / "fresh")


@pytest.mark.parametrize("why", ["little is left", "prepared otherwise", "a shard is damaged", "it has no keys"])
def test_it_is_packed_anew_where_little_can_be_kept(tmp_path, why):
    write(tmp_path / "grown", BEFORE, "one")
    cases, preparation = AFTER, "as ever"
    if why == "little is left":
        cases = dict(list(BEFORE.items())[:4])
    elif why == "prepared otherwise":
        preparation = "smaller"
    elif why == "a shard is damaged":
        (tmp_path / "grown" / "images-00001.bin").write_bytes(b"")
    else:  # made before stores could grow
        description = json.loads((tmp_path / "grown" / "store.json").read_text())
        del description["preparation"], description["generation"]
        (tmp_path / "grown" / "store.json").write_text(json.dumps(description))
        (tmp_path / "grown" / "keys.npy").unlink()
        assert len(Store.open(tmp_path / "grown").cases) == len(BEFORE) - 1
    write(tmp_path / "grown", cases, "two", preparation=preparation)
    write(tmp_path / "fresh", cases, "two", preparation=preparation)
    assert content(tmp_path / "grown") == content(tmp_path / "fresh")


class Killed(BaseException):
    pass


def test_killed_anywhere_it_goes_on_to_the_same_bytes_and_the_old_store_stays_whole(tmp_path, monkeypatch):
    write(tmp_path / "whole", BEFORE, "one")
    write(tmp_path / "whole", AFTER, "two")
    step = 0
    while True:
        folder = tmp_path / f"killed{step}"
        write(folder, BEFORE, "one")
        before = shards(folder)
        left = iter(range(step))

        def dying(call, left=left):
            def run(*args, **options):
                if next(left, None) is None:
                    raise Killed
                return call(*args, **options)

            return run

        with monkeypatch.context() as patched:
            patched.setattr(files.os, "replace", dying(files.os.replace))
            patched.setattr(writing, "append_lines", dying(writing.append_lines))
            patched.setattr(Path, "unlink", dying(Path.unlink))
            patched.setattr(writing.json, "dumps", dying(json.dumps))
            try:
                write(folder, AFTER, "two")
                break
            except Killed:
                pass
        store = Store.open(folder)
        assert store.digest in ("one", "two")
        assert len(store.cases) == (len(BEFORE) if store.digest == "one" else len(AFTER)) - 1
        assert [store.image(index).size for index in range(len(store))]
        write(folder, AFTER, "two")
        assert {name: data for name, data in content(folder).items() if not name.startswith(".")} == content(
            tmp_path / "whole"
        )
        assert shards(folder).items() >= before.items()
        step += 1
    assert step > 20


def test_another_set_while_one_grows_begins_from_the_finished_store_again(tmp_path, monkeypatch):
    write(tmp_path / "grown", BEFORE, "one")
    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "finish", lambda writer: None)
        write(tmp_path / "grown", AFTER, "two")
    third = AFTER | {"z": 0}
    assert "z" in write(tmp_path / "grown", third, "three")
    write(tmp_path / "fresh", third, "three")
    assert_same_read(tmp_path / "grown", tmp_path / "fresh")
    with pytest.raises(BadData, match="prepared as"):
        writer = StoreWriter(
            tmp_path / "grown", "four", wanted=Wanted(["case00"], np.array([key_of("case00 0")], np.uint64), "as ever")
        )
        writer.append("b", np.zeros((1, 1, 8, 8), np.uint8), None)
        writer.append("c", np.zeros((1, 3, 8, 8), np.uint8), None)
