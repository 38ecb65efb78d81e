import errno
import json
import multiprocessing
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmseg import files
from fmseg.errors import BadRecord, Busy, EnvironmentProblem


def test_a_failed_write_leaves_the_old_file_and_no_leftover(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    with pytest.raises(RuntimeError), files.writing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert files.read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_becomes_one_line(tmp_path):
    with pytest.raises(EnvironmentProblem, match=r"disk is full.*Free some space"), files.writing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_becomes_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(EnvironmentProblem, match="cannot write there"):
        files.write_bytes(tmp_path / "b" / "a", b"")


def test_a_file_where_a_folder_must_be_becomes_one_line(tmp_path):
    (tmp_path / "b").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot write there"):
        files.write_bytes(tmp_path / "b" / "a", b"")


def test_duplicate_json_keys_are_refused(tmp_path):
    path = tmp_path / "d.json"
    path.write_text('{"labels": {"a": 1, "a": 2}}')
    with pytest.raises(BadRecord, match="'a' is there twice"):
        files.read_json(path)


@given(st.dictionaries(st.text(), st.floats(allow_nan=False) | st.text() | st.none()))
def test_json_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "v.json"
    files.write_json(path, value)
    assert files.read_json(path) == value == json.loads(path.read_text())


def test_natural_order():
    names = ["c10", "c2", "C1", "c1_b", "c1"]
    assert sorted(names, key=files.natural_key) == ["C1", "c1", "c1_b", "c2", "c10"]


def _hold(folder, ready, release):
    with files.locked(folder, "the store"):
        ready.set()
        release.wait(10)


def test_a_lock_names_its_holder_and_is_freed_by_death(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready, release))
    process.start()
    assert ready.wait(10)
    with pytest.raises(EnvironmentProblem, match=f"process {process.pid}"), files.locked(tmp_path, "the store"):
        pass
    process.kill()
    process.join()
    with files.locked(tmp_path, "the store"):
        pass


def refuse_locks(monkeypatch, number):
    def lockf(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.fcntl, "lockf", lockf)
    monkeypatch.setattr(files, "_told_disks", set())


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_file_locks_is_told_of_once_and_used(tmp_path, monkeypatch, caplog, number):
    refuse_locks(monkeypatch, number)
    for name in ("one", "two"):
        with files.locked(tmp_path / name, "the store"):
            files.write_bytes(tmp_path / name / "a", b"")
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path / 'one'}: this disk has no file locks ({os.strerror(number)})")


@pytest.mark.parametrize(("number", "kind"), [(errno.EACCES, Busy), (errno.EAGAIN, Busy), (errno.EIO, OSError)])
def test_only_a_lock_that_is_held_is_another_process(tmp_path, monkeypatch, number, kind):
    refuse_locks(monkeypatch, number)
    with pytest.raises(kind), files.locked(tmp_path, "the store"):
        pass


def test_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "journal"
    files.append_lines(path, ["one", "two"])
    with open(path, "ab") as file:
        file.write(b"thr")
    assert files.read_lines(path) == ["one", "two"]


def test_a_file_gets_the_usual_rights_whoever_writes_it(tmp_path):
    (tmp_path / "usual").touch()
    with files.writing(tmp_path / "a") as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("whole", ["", "one\n", "one\ntwo\n"])
def test_a_line_torn_by_a_power_cut_is_not_joined_to_the_next(tmp_path, whole):
    path = tmp_path / "journal.jsonl"
    path.write_text(whole + '{"torn": 1')
    files.append_lines(path, ["next"])
    assert path.read_text() == f"{whole}next\n"
