"""Many files as one, and back: zip archives whose bytes depend on their content alone, and that can do no harm.

Members are stored, not compressed: weights do not shrink, and so no archive unpacks to more than it is. This is the
only place in fmseg where an archive is opened.
"""

import hashlib
import re
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fmseg.console import size as readable
from fmseg.errors import BadData, EnvironmentProblem
from fmseg.files import sha256, writable, writing

MAX_MEMBERS = 1000
MAX_DIRECTORY_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20

#: of the end record of a zip file, of its 64-bit companion, and of the pointer to that
_END, _END64, _POINTER = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
#: the earliest date that a zip file knows
_LONG_AGO = (1980, 1, 1, 0, 0, 0)

#: pattern of a member's name -> the most bytes that it may have
Allowed = Mapping[re.Pattern[str], int]


def pack(path: Path, members: Mapping[str, Path | bytes]) -> None:
    """Write files, or bytes, under their names in the archive, in the order given; atomically."""
    with writing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, source in members.items():
            info = zipfile.ZipInfo(name, _LONG_AGO)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            info.file_size = len(source) if isinstance(source, bytes) else source.stat().st_size
            with archive.open(info, "w") as target:
                if isinstance(source, bytes):
                    target.write(source)
                else:
                    with open(source, "rb") as file:
                        shutil.copyfileobj(file, target, CHUNK_BYTES)


def read_first(path: Path, name: str, allowed: Allowed) -> bytes:
    """Return the content of one member of an archive. Raises BadData as ``unpack`` does, or if it is not there."""
    with _opened(path, allowed) as archive:
        if name not in archive.namelist():
            raise BadData(f"{path}: there is no {name} in it, so fmseg has not written it. Export the model again.")
        return archive.read(name)


def unpack(
    path: Path, folder: Path, allowed: Allowed, digests: Callable[[bytes], Mapping[str, str]], first: str
) -> None:
    """Write the members of an archive into an empty folder.

    allowed: every member's name must fit a pattern whole. first: the member that ``digests`` turns into the SHA-256
    of each of the others: none may be missing, one too many, or differ. Raises BadData otherwise, and for links,
    folders, compressed, encrypted, overlapping or repeated members; EnvironmentProblem if the disk is too small.
    """
    with _opened(path, allowed) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        if first not in sizes:
            raise BadData(f"{path}: there is no {first} in it, so fmseg has not written it. Export the model again.")
        content = archive.read(first)
        expected = {first: sha256(content), **digests(content)}
        for name in sorted(sizes.keys() ^ expected.keys()):
            problem = "is missing" if name in expected else f"is not listed in its {first}"
            raise BadData(f"{path}: {name} {problem}. Copy or export it again.")
        with writable(folder):
            _need_space(folder, sum(sizes.values()))
            for name, digest in expected.items():
                with archive.open(name) as source:
                    found = _copy(source, _target(folder, name))
                if found != digest:
                    raise BadData(f"{path}: {name} has been changed since the export. Copy or export it again.")


def _target(folder: Path, name: str) -> Path:
    """Return where a member goes. Raises BadData if that is not inside the folder, whatever the patterns let pass."""
    target = folder / name
    if not target.resolve().is_relative_to(folder.resolve()):
        raise BadData(f"{name!r} leads out of its archive's folder. Do not trust whoever made it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _copy(source: IO[bytes], target: Path) -> str:
    """Write a new file; return its SHA-256."""
    digest = hashlib.sha256()
    with open(target, "xb") as file:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _need_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise EnvironmentProblem(
            f"{folder}: {readable(num_bytes)} are needed there, and {readable(free)} are free. Free some space."
        )


@contextmanager
def _opened(path: Path, allowed: Allowed) -> Iterator[zipfile.ZipFile]:
    """Yield an archive of which every member's name, type and size is in order."""
    if not path.is_file():
        raise BadData(f"{path}: there is no such file.")
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive.infolist(), allowed)
            yield archive
    except (zipfile.BadZipFile, NotImplementedError, EOFError, struct.error, ValueError, RuntimeError) as error:
        raise BadData(f"{path}: this is no whole archive of fmseg ({error}). Copy or export it again.") from error


def _check_directory(path: Path) -> None:
    """Refuse a list of members that is too long to be read, before it is read; both of its headers count."""
    length = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(4)
        file.seek(max(0, length - _END.size - _POINTER.size))
        tail = file.read()
        if start != b"PK\x03\x04" or tail[-_END.size :][:4] != b"PK\x05\x06":
            raise zipfile.BadZipFile("it does not begin and end like one")
        end = _END.unpack(tail[-_END.size :])
        counted = [(end[4], end[5])]
        if tail[:4] == b"PK\x06\x07" and len(tail) == _END.size + _POINTER.size:
            file.seek(min(_POINTER.unpack(tail[: _POINTER.size])[2], length))
            far = _END64.unpack(file.read(_END64.size))
            counted.append((far[7], far[8]))
    for members, num_bytes in counted:
        if members > MAX_MEMBERS or num_bytes > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"it claims {members:,} members")


def _check_members(path: Path, infos: list[zipfile.ZipInfo], allowed: Allowed) -> None:
    seen: set[str] = set()
    for info in infos:
        problem = _problem(info, allowed)
        if problem is None and info.filename.lower() in seen:
            problem = "is there twice"
        if problem:
            raise BadData(f"{path}: its member {info.filename[:200]!r} {problem}. Do not trust whoever made it.")
        seen.add(info.filename.lower())
    if sum(info.file_size for info in infos) > path.stat().st_size:
        raise BadData(f"{path}: its members overlap. Do not trust whoever made it.")


def _problem(info: zipfile.ZipInfo, allowed: Allowed) -> str | None:
    """Return what is wrong with a member, None if nothing is."""
    most = next((most for pattern, most in allowed.items() if pattern.fullmatch(info.filename)), None)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG) or info.is_dir():
        return "is no plain file"
    if most is None or info.orig_filename != info.filename:
        return "has a name that no model needs"
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        return "is compressed, which fmseg never does"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.file_size > most:
        return f"has {readable(info.file_size)}, more than the {readable(most)} that it may have"
    return None
