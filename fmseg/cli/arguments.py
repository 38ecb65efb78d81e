"""What people type, turned into values: folds, times, key=value settings."""

import re
from collections.abc import Sequence

from fmseg.errors import FmsegError, UsageError
from fmseg.workspace import Workspace, dataset_id

#: the fold that trains on all cases
ALL = -1


def parse_fold(text: str) -> int:
    """Return the number of ``0``, ``fold0`` or ``fold_0``, or ALL for ``all``."""
    match = re.fullmatch(r"(?:fold)?_?(\d+)", text.lower())
    if text.lower() == "all":
        return ALL
    if match is None:
        raise UsageError(f"'{text}' is no fold. Type 0, fold0 or all; leave it out to train every fold.")
    return int(match[1])


def parse_duration(text: str | None) -> float | None:
    """Return the seconds of ``90s``, ``20m``, ``2h``, ``1.5d``; None for None."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"--budget {text}: type a time such as 20m, 2h or 1d.")
    return float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}[match[2]]


def parse_settings(texts: Sequence[str] | None) -> dict[str, str]:
    """Return ``--set key=value`` options as a dictionary."""
    settings = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {text}: type key=value, as in --set iterations=500.")
        settings[key.strip()] = value.strip()
    return settings


def complete_dataset(incomplete: str) -> list[str]:
    """Return the datasets of this folder that a half-typed number or name may mean, for the shell's completion."""
    try:
        workspace = Workspace.find()
        names = sorted({*workspace.dataset_names(), *workspace.trained_names()}, key=dataset_id)
    except FmsegError:  # a shell that completes has no place for messages
        return []
    numbers = [str(dataset_id(name)) for name in names]
    return [text for text in (*numbers, *names) if text.startswith(incomplete)]


def complete_foundation(incomplete: str) -> list[str]:
    """Return the foundation checkpoints of this folder whose names begin so, for the shell's completion."""
    try:
        found = sorted(Workspace.find().foundations().glob("*/*/foundation.json"))
    except FmsegError:
        return []
    return [path.parent.name for path in found if path.parent.name.startswith(incomplete)]


def dataset_names(workspace: Workspace, texts: Sequence[str] | None) -> list[str]:
    """Return full dataset names for ids, names or parts. Raises UsageError if none was given."""
    if not texts:
        raise UsageError("Which dataset? Type its number, as in -d 501. 'fmseg list' shows what is there.")
    return [workspace.dataset_name(text) for text in texts]
