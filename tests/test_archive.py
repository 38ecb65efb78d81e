"""One file out of many and back; what is not in order stays outside."""

import ast
import re
import stat
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from fmseg import archive
from fmseg.archive import MAX_MEMBERS, pack, unpack
from fmseg.errors import BadData, EnvironmentProblem
from fmseg.files import sha256

FIRST = "first.json"
ALLOWED = {re.compile(r"first\.json"): 1000, re.compile(r"[a-z]+(/[a-z]+)?\.bin"): 100_000}
CONTENT = {FIRST: b"list", "a.bin": b"a" * 5000, "folder/b.bin": b"b"}


def digests(_):
    return {name: sha256(content) for name, content in CONTENT.items() if name != FIRST}


def open_into(path, folder):
    folder.mkdir()
    unpack(path, folder, ALLOWED, digests, FIRST)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_unpack_undoes_pack_and_bytes_depend_on_the_content_alone(tmp_path):
    source = tmp_path / "b.bin"
    source.write_bytes(b"b")
    pack(tmp_path / "one.zip", CONTENT)
    source.touch()
    pack(tmp_path / "two.zip", CONTENT | {"folder/b.bin": source})
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    open_into(tmp_path / "one.zip", tmp_path / "out")
    assert files(tmp_path / "out") == CONTENT


def written(path, members, **flags):
    """Write an archive by hand. members: name, or ZipInfo -> content."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name) if isinstance(name, str) else name
            for key, value in flags.items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return path


def info(name, mode=stat.S_IFREG | 0o644):
    found = zipfile.ZipInfo(name)
    found.create_system, found.external_attr = 3, mode << 16
    return found


def hostile(path):
    """Yield name -> function that writes a hostile archive."""
    good = list(CONTENT.items())
    return {
        "outside": lambda: written(path, [*good, ("../x.bin", b"x")]),
        "absolute": lambda: written(path, [*good, ("/tmp/x.bin", b"x")]),
        "backslash": lambda: written(path, [*good, ("..\\x.bin", b"x")]),
        "drive": lambda: written(path, [*good, ("C:/x.bin", b"x")]),
        "dots in the middle": lambda: written(path, [*good, ("folder/../../x.bin", b"x")]),
        "link": lambda: written(path, [*good, (info("x.bin", stat.S_IFLNK | 0o777), b"/etc/passwd")]),
        "device": lambda: written(path, [*good, (info("x.bin", stat.S_IFCHR | 0o777), b"")]),
        "folder": lambda: written(path, [*good, ("folder/", b"")]),
        "unlisted": lambda: written(path, [*good, ("x.bin", b"x")]),
        "missing": lambda: written(path, good[:-1]),
        "changed": lambda: written(path, [*good[:-1], ("folder/b.bin", b"c")]),
        "another type": lambda: written(path, [*good, ("x.pkl", b"cos\nsystem\n")]),
        "case": lambda: written(path, [*good, ("A.bin", b"a")]),
        "twice": lambda: twice(path, good),
        "bomb": lambda: written(path, [("a.bin", bytes(90_000)), good[0], good[2]], compress_type=zipfile.ZIP_DEFLATED),
        "too large": lambda: written(path, [*good, ("x.bin", bytes(100_001))]),
        "many members": lambda: written(path, [(f"x{i}.bin", b"") for i in range(MAX_MEMBERS + 1)]),
        "claims members": lambda: patched(written(path, good), -14, struct.pack("<HH", 60000, 60000)),
        "encrypted": lambda: flagged(written(path, good)),
        "overlap": lambda: overlapping(written(path, good)),
        "no first": lambda: written(path, good[1:]),
        "trailing rubbish": lambda: appended(written(path, good), b"rubbish"),
        "leading program": lambda: led(written(path, good), b"#!/bin/sh\n"),
        "truncated": lambda: truncated(written(path, good)),
        "nul in the name": lambda: replaced(written(path, [*good, ("xNy.bin", b"x")]), b"xNy", b"x\0y"),
        "other local name": lambda: local_name(written(path, good)),
        "no archive": lambda: path.write_bytes(b"PK\x03\x04 but nothing more than that, at all") and path,
        "empty": lambda: path.touch() or path,
    }


def twice(path, good):
    with pytest.warns(UserWarning, match="Duplicate"):
        return written(path, [*good, good[1]])


def patched(path, offset, content):
    data = bytearray(path.read_bytes())
    data[len(data) + offset : len(data) + offset + len(content)] = content
    path.write_bytes(data)
    return path


def replaced(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


def flagged(path):
    data = bytearray(path.read_bytes())
    for at in [match.start() for match in re.finditer(b"PK\x01\x02", data)]:
        data[at + 8] |= 1
    path.write_bytes(data)
    return path


def overlapping(path):
    """Let every member of the list be the largest one's bytes."""
    data = bytearray(path.read_bytes())
    starts = [match.start() for match in re.finditer(b"PK\x01\x02", data)]
    where = data[starts[1] + 42 : starts[1] + 46]
    for at in starts:
        data[at + 42 : at + 46] = where
        data[at + 16 : at + 28] = data[starts[1] + 16 : starts[1] + 28]
    path.write_bytes(data)
    return path


def local_name(path):
    data = path.read_bytes()
    first = data.index(b"a.bin")
    path.write_bytes(data[:first] + b"z.bin" + data[first + 5 :])
    return path


def appended(path, rubbish):
    path.write_bytes(path.read_bytes() + rubbish)
    return path


def led(path, program):
    path.write_bytes(program + path.read_bytes())
    return path


def truncated(path):
    path.write_bytes(path.read_bytes()[:-400])
    return path


@pytest.mark.parametrize("kind", hostile(None))
def test_hostile_archives_are_refused_and_nothing_is_written_outside(kind, tmp_path):
    (tmp_path / "deep").mkdir()
    path = hostile(tmp_path / "bad.zip")[kind]()
    before = files(tmp_path)
    with pytest.raises(BadData, match=r"bad\.zip"):
        open_into(path, tmp_path / "deep" / "out")
    after = {name: content for name, content in files(tmp_path).items() if not name.startswith("deep/out/")}
    assert after == before
    inside = tmp_path / "deep" / "out"
    assert not any(each.is_symlink() for each in inside.rglob("*"))


def test_far_too_many_members_are_refused_before_they_are_listed(tmp_path, monkeypatch):
    path = tmp_path / "bad.zip"
    patched(written(path, CONTENT.items()), -10, struct.pack("<L", 1 << 30))
    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", lambda self: pytest.fail("it was listed"))
    with pytest.raises(BadData, match="claims"):
        open_into(path, tmp_path / "out")


def test_no_other_file_opens_archives():
    package = Path(archive.__file__).parent
    writes = package / "stages" / "embed.py"  # .npz files, and reads none
    for path in set(package.rglob("*.py")) - {Path(archive.__file__), writes}:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {"zipfile", "tarfile"} & {alias.name for alias in node.names}, path
            elif isinstance(node, ast.ImportFrom) and node.module in ("zipfile", "tarfile"):
                assert {alias.name for alias in node.names} <= {"BadZipFile", "is_zipfile"}, path
            elif isinstance(node, ast.Attribute):
                assert node.attr not in ("unpack_archive", "extractall"), path


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    pack(tmp_path / "one.zip", CONTENT)
    usage = SimpleNamespace(free=0)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(EnvironmentProblem, match="are needed"):
        open_into(tmp_path / "one.zip", tmp_path / "out")
    assert files(tmp_path / "out") == {}
