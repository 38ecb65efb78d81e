"""Files that appear whole or not at all, JSON that is read strictly, and locks.

A file is written under a temporary name in the same folder, flushed to the disk and renamed; so no reader
ever sees half a file, and a kill leaves at most a stray ``.tmp``.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fmseg.errors import BadRecord, Busy, EnvironmentProblem


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it becomes ``path``, on failure it is removed.

    Raises EnvironmentProblem for a full disk or a folder that cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writable(path.parent):
        try:
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            # some libraries make files that only their owner may read
            temporary.chmod(mode)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make ``folder`` and turn the operating system's refusals inside the block into one line each."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentProblem(
                f"{folder}: the disk is full. Free some space there, then run the same command again."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise EnvironmentProblem(
                f"{folder}: cannot write there ({error.strerror}). Choose another folder, or mend its rights."
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` atomically."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return the parsed file. Raises BadRecord if it is absent, no JSON, or says a key twice."""

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise BadRecord(f"{path}: the key '{key}' is there twice. Remove one of them.")
        return dict(pairs)

    try:
        return json.loads(path.read_bytes(), object_pairs_hook=no_duplicates)
    except FileNotFoundError as error:
        raise BadRecord(f"{path}: there is no such file.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadRecord(f"{path}: this is not valid JSON ({error}). Mend the file at that place.") from error


def sha256(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key under which ``case_2`` comes before ``case_10``, the same on every machine."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold ``folder`` for this process alone; the kernel frees it when the process dies.

    Raises Busy if another process holds it, naming host and process.
    """
    with writable(folder):
        (folder / ".lock").touch()
    with open(folder / ".lock", "r+", encoding="utf-8") as handle:
        try:
            # of the process, unlike flock's: a loader process that outlives a killed parent does not keep it
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = handle.read().strip() or "another process"
            raise Busy(
                f"{folder}: {holder} is working on {what}. Wait for it to end, or stop it, then try again."
            ) from error
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield


def append_lines(path: Path, lines: list[str]) -> None:
    """Append whole lines and flush them to the disk; a torn last line is dropped by ``read_lines``."""
    with writable(path.parent), open(path, "ab") as file:
        file.write("".join(line + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())


def stream_lines(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of a journal one by one, with their ends; none if it does not exist."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        yield from (line for line in file if line.endswith(b"\n"))


def read_lines(path: Path) -> list[str]:
    """Return the complete lines of a journal, none if it does not exist."""
    if not path.exists():
        return []
    return path.read_bytes().decode(errors="replace").split("\n")[:-1]
