"""What people see: progress and log on stderr, results on stdout.

Tables, progress bars and log lines only ever come through here. Without a terminal the progress bar becomes
a plain line every half minute; under torchrun only rank 0 speaks.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

T = TypeVar("T")

#: columns of a table that is written into a file or a pipe, where nobody has set a width
PLAIN_WIDTH = 160

results = Console(
    highlight=False,
    soft_wrap=True,
    width=None if sys.stdout.isatty() else PLAIN_WIDTH,
    quiet=os.environ.get("RANK", "0") != "0",
)
messages = Console(stderr=True, highlight=False)

PLAIN_INTERVAL_S = 30.0


def set_up_logging(verbosity: int = 0) -> None:
    """Send the log to stderr. verbosity: -1 warnings only, 0 normal, 1 everything."""
    level = {-1: logging.WARNING, 0: logging.INFO}.get(verbosity, logging.DEBUG)
    if not is_speaker():
        level = logging.ERROR
    handler: logging.Handler
    if messages.is_terminal:
        handler = RichHandler(console=messages, show_path=False, show_level=verbosity > 0, markup=False)
        handler.setFormatter(_Printable("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_Printable("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("fmseg")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def is_speaker() -> bool:
    """Return whether this process may talk to the user (rank 0, or the only one)."""
    return os.environ.get("RANK", "0") == "0"


def is_only_process() -> bool:
    """Return whether no other process was started beside this one for the same job, as torchrun does."""
    return os.environ.get("WORLD_SIZE", "1") == "1"


def print_json(value: Any) -> None:
    """Print one machine-readable object on stdout."""
    if is_speaker():
        text = json.dumps(value, ensure_ascii=False, default=str)
        print("".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout; numbers are right-aligned. In a file or a pipe it has no frame: a line a row."""
    frame = box.HEAVY_HEAD if results.is_terminal else None
    name = Text(printable(title), "table.title")
    table = Table(title=name, title_justify="left", header_style="bold", box=frame, pad_edge=frame is not None)
    cells = [[_cell(value) for value in row] for row in rows]
    for index, column in enumerate(columns):
        numeric = all(_is_number(row[index]) for row in cells)
        table.add_column(Text(printable(column)), justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    results.print(table)


def print_line(text: str) -> None:
    """Print one line on stdout."""
    results.print(printable(text), markup=False)


def print_message(text: str) -> None:
    """Print something on stderr that is neither a result nor a line of the log."""
    messages.print(text, markup=False, soft_wrap=True)


def track(
    items: Iterable[T], what: str, total: int, done: int = 0, status: Callable[[], str] = str, unit: str = ""
) -> Generator[T, None, None]:
    """Yield ``items`` while showing how many of ``total`` are done, ``status()`` and the time left.

    unit: what is counted, as in files; its pace is then shown too.
    """
    if not is_speaker():
        yield from items
        return
    start = last = time.monotonic()
    if messages.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[status]}"))
        with Progress(*columns, *times, console=messages) as bar:
            task = bar.add_task(what, total=total, completed=done, status="")
            for count, item in enumerate(items, start=1):
                yield item
                bar.update(task, advance=1, status=status() + _pace(count, start, unit))
        return
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last > PLAIN_INTERVAL_S:
            last = now
            left = (now - start) / count * (total - done - count)
            parts = [f"{what}: {done + count}/{total}", status(), _pace(count, start, unit), f"{duration(left)} left"]
            logging.getLogger(__name__).info(", ".join(part for part in parts if part))


def _pace(count: int, start: float, unit: str) -> str:
    return f"{count / max(time.monotonic() - start, 1e-3):.3g} {unit}/s" if unit else ""


def duration(seconds: float) -> str:
    """Return a time as people say it: ``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    if seconds >= 48 * 3600:
        return f"{seconds / 86400:.1f} days"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def size(num_bytes: float) -> str:
    """Return a number of bytes as people say it."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def printable(text: str, kept: str = "\n") -> str:
    """Return a text whose control characters are written out: those of file names must not reach a terminal."""
    return "".join(letter if letter.isprintable() or letter in kept else repr(letter)[1:-1] for letter in text)


class _Printable(logging.Formatter):
    """Formats messages that may hold the names of files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value), kept="")


def _is_number(text: str) -> bool:
    try:
        float(text.split(" ")[0])
    except ValueError:
        return text == "-"
    return True
