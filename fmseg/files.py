"""Files that appear whole or not at all, JSON that is read strictly, and locks.

A file is written under a temporary name in the same folder, flushed to the disk and renamed; so no reader
ever sees half a file, and a kill leaves at most a stray ``.tmp``.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fmseg.errors import BadRecord, Busy, EnvironmentProblem

logger = logging.getLogger(__name__)

#: name of a temporary file, and the process that writes it
STRAY = re.compile(r"\.(\d+)\.tmp$")
#: what a failing disk, or a network disk that went away, answers
DISK_TROUBLE = (errno.EIO, errno.ENXIO, errno.ESTALE, errno.ETIMEDOUT)
#: what a disk answers that has no file locks: Lustre mounted without flock, NFS without its lock daemon
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
#: of a file name that a temporary one is made of by adding to it; most file systems allow 255 in all
MAX_NAME_BYTES = 200
#: disks without locks that the user has been told of
_told_disks: set[int] = set()


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it becomes ``path``, on failure it is removed.

    Raises EnvironmentProblem for a full disk or a folder that cannot be written.
    """
    temporary = path.with_name(_temporary_name(path.name))
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


def _temporary_name(name: str) -> str:
    """Return a name beside ``name`` that a file system takes: with the ends of it, it may have 255 bytes at most."""
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        name = sha256(os.fsencode(name))[:32]
    return f".{name}.{os.getpid()}.tmp"


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
        if error.errno in DISK_TROUBLE:
            raise EnvironmentProblem(
                f"{folder}: the disk reported an error ({error.strerror}). Check it, then run the same command again."
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
    write_bytes(path, to_json(value))


def to_json(value: Any) -> bytes:
    """Return a value as the indented JSON of a file."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """Return the parsed file. Raises BadRecord if it is absent, no file, no JSON, or says a key twice."""
    refuse_pipe(path)
    try:
        return parse_json(path.read_bytes(), str(path))
    except FileNotFoundError as error:
        raise BadRecord(f"{path}: there is no such file.") from error
    except IsADirectoryError as error:
        raise BadRecord(f"{path}: this is a folder, and must be a file. Rename it.") from error


def refuse_pipe(path: Path) -> None:
    """Raise BadRecord for a pipe or a device, which may never come to an end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise BadRecord(f"{path}: this is a pipe or a device, and must be a file. Replace it by the file itself.")


def parse_json(content: bytes, source: str) -> Any:
    """Return the parsed bytes. Raises BadRecord naming ``source`` if they are no JSON, or say a key twice."""

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            key = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise BadRecord(f"{source}: the key '{key}' is there twice. Remove one of them.")
        return value

    if not content.strip():
        raise BadRecord(f"{source}: the file is empty. Restore it, or write it anew.")
    try:
        return json.loads(content, object_pairs_hook=no_duplicates)
    except UnicodeDecodeError as error:
        raise BadRecord(f"{source}: this is not UTF-8 text ({error}). Save it as UTF-8.") from error
    except ValueError as error:  # a number of thousands of digits among them
        raise BadRecord(f"{source}: this is not valid JSON ({error}). Mend the file at that place.") from error
    except RecursionError as error:
        raise BadRecord(f"{source}: its JSON is nested too deeply. Write it anew.") from error


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

    Raises Busy if another process holds it, naming host and process. On a disk without file locks this is said once,
    and nothing is held: a run that nobody can begin is worse than one that somebody could begin twice.
    """
    with writable(folder):
        (folder / ".lock").touch()
    with open(folder / ".lock", "r+", encoding="utf-8") as handle:
        try:
            # of the process, unlike flock's: a loader process that outlives a killed parent does not keep it
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                _tell_without_locks(folder, error)
            elif error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            else:
                holder = handle.read().strip() or "another process"
                raise Busy(
                    f"{folder}: {holder} is working on {what}. Wait for it to end, or stop it, then try again."
                ) from error
        remove_strays(folder)
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield


def _tell_without_locks(folder: Path, answer: OSError) -> None:
    """Warn of a disk without file locks, once."""
    disk = folder.stat().st_dev
    if disk not in _told_disks:
        _told_disks.add(disk)
        logger.warning(
            "%s: this disk has no file locks (%s). Do not start the same command twice at a time; or mount the disk "
            "with locks (Lustre: flock), or choose a --root elsewhere.",
            *(folder, answer.strerror),
        )


def remove_strays(folder: Path) -> None:
    """Remove what killed processes of this machine left half written in a folder."""
    for path in folder.glob(".*.tmp") if folder.is_dir() else ():
        match = STRAY.search(path.name)
        if match and not _is_running(int(match[1])):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def append_lines(path: Path, lines: list[str]) -> None:
    """Append whole lines and flush them to the disk; a torn last line, of a power cut, is dropped."""
    with writable(path.parent), open(path, "a+b") as file:
        _cut_torn_line(file)
        file.write("".join(line + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())


def _cut_torn_line(file: BinaryIO) -> None:
    """Remove what stands behind the last whole line, which the next one would be joined to."""
    end = file.seek(0, os.SEEK_END)
    if not end or (file.seek(end - 1), file.read(1))[1] == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


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
