"""Reports at the end of other commands: written where all is done, and never in the way of what was done."""

import logging
from collections.abc import Callable
from pathlib import Path

from fmseg.cli.frame import Session
from fmseg.console import is_speaker, print_line

logger = logging.getLogger(__name__)


def dataset_report(session: Session, name: str, plans: str) -> Path | None:
    """Write the report of a dataset at the end of another command."""
    from fmseg.stages.report import report as write

    return _at_the_end(lambda: write(session.workspace, name, plans_name=plans), name)


def foundation_report(session: Session, name: str) -> Path | None:
    """Write the report of a foundation checkpoint at the end of another command."""
    from fmseg.stages.report import report_foundation

    return _at_the_end(lambda: report_foundation(session.workspace, name), name)


def tell_report(path: Path | None) -> None:
    """Say where a report lies, if there is one."""
    if path is not None:
        print_line(f"Report, to open in a browser: {path}")


def _at_the_end(write: Callable[[], Path], name: str) -> Path | None:
    """Write a report; None, with a warning, if that fails: what took a day must not look failed for its picture."""
    if not is_speaker():
        return None
    try:
        return write()
    except Exception as error:
        logger.warning("%s: no report was written (%s: %s). The results are whole.", name, type(error).__name__, error)
        return None
