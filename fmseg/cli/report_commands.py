"""The commands that show: report, view."""

from pathlib import Path
from typing import Annotated

import typer

from fmseg.cli.arguments import complete_dataset, complete_foundation, dataset_names
from fmseg.cli.data_commands import PlansName, would
from fmseg.cli.frame import Output, Session, command
from fmseg.console import print_line, print_message
from fmseg.errors import UsageError


@command("report", example="fmseg report 501")
def report(
    session: Session,
    dataset: Annotated[
        str | None, typer.Argument(help="Number, name or part of it", autocompletion=complete_dataset)
    ] = None,
    foundation: Annotated[
        str | None, typer.Option(help="Instead, of this foundation checkpoint.", autocompletion=complete_foundation)
    ] = None,
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


@command("view", example="fmseg view 501")
def view(
    session: Session,
    dataset: Annotated[
        str | None, typer.Argument(help="Number, name or part of it", autocompletion=complete_dataset)
    ] = None,
    images: Annotated[Path | None, typer.Option("-i", "--images", help="Instead, a folder of images.")] = None,
    predictions: Annotated[
        Path | None, typer.Option("-p", "--predictions", help="What predict wrote for the images.")
    ] = None,
    port: Annotated[int, typer.Option(help="Of this machine; 0 takes a free one.")] = 0,
) -> Output:
    """Browse cases, labels and predictions in a browser on this machine, and mark labels to be checked.

    The page is served to this machine only, under an address that holds a token. Ctrl-C ends it.
    """
    from fmseg.stages.view import open_source, serve

    workspace = session.workspace
    name = dataset_names(workspace, [dataset])[0] if dataset else None
    source = open_source(workspace, name, images, predictions)
    if session.dry_run:
        return would([images or workspace.raw_dataset(name or "")], [source.marks])
    serve(source, port, lambda address: print_message(f"Open {address}\nCtrl-C ends it. Marks go to {source.marks}"))
    return Output({"marks": str(source.marks)}, lambda: print_line(f"Marks are in {source.marks}"))


def _written(path: Path) -> Output:
    return Output({"report": str(path)}, lambda: print_line(f"Open in a browser: {path}"))
