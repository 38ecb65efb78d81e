"""The commands that show: report."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from fmseg.cli.arguments import dataset_names
from fmseg.cli.data_commands import PlansName, would
from fmseg.cli.frame import Output, Session, command
from fmseg.console import is_speaker, print_line
from fmseg.errors import UsageError

logger = logging.getLogger(__name__)


@command("report", example="fmseg report 501")
def report(
    session: Session,
    dataset: Annotated[str | None, typer.Argument(help="Number, name or part of it")] = None,
    foundation: Annotated[str | None, typer.Option(help="Instead, of this foundation checkpoint.")] = None,
    plans: PlansName = "fmsegPlans",
) -> Output:
    """Write one HTML page on a dataset and its models, or on a foundation checkpoint: it opens without a network.

    Data, plan, pretraining, training, scores, cases and the run record, as far as they are there.
    """
    from fmseg.stages.report import REPORT, report_foundation
    from fmseg.stages.report import report as write

    if (dataset is None) == (foundation is None):
        raise UsageError("Type a dataset, as in 'fmseg report 501', or --foundation NAME; not both.")
    workspace = session.workspace
    if foundation is not None:
        if session.dry_run:
            return would([workspace.foundations()], [workspace.foundations() / "..." / foundation / REPORT])
        return _written(report_foundation(workspace, foundation))
    (name,) = dataset_names(workspace, [dataset] if dataset else None)
    results = workspace.results_of(name)
    if session.dry_run:
        return would([workspace.prepared(name), results], [results / REPORT])
    return _written(write(workspace, name, plans_name=plans))


def _written(path: Path) -> Output:
    return Output({"report": str(path)}, lambda: print_line(f"Open in a browser: {path}"))


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
