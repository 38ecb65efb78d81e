"""A folder that appears whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmseg.errors import UsageError
from fmseg.files import sync_folder, writable


@contextmanager
def making(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``folder`` on success, and is removed on failure.

    Raises UsageError if it is there already and ``overwrite`` is not asked for, or if it is not of such an export.
    """
    if folder.exists() and not overwrite:
        raise UsageError(f"{folder} is there already. Type another folder after -o, or --overwrite to make it anew.")
    if folder.exists() and not (folder / DESCRIPTION).exists():
        raise UsageError(f"{folder} holds something else than an exported model. Type another folder after -o.")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with writable(folder.parent):
        try:
            temporary.mkdir()
            yield temporary
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


#: in every such folder: what to do before and after the networks
DESCRIPTION = "fmseg.json"
