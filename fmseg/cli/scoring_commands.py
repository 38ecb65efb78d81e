"""The command that tells a difference from noise."""

from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from fmseg.cli.arguments import dataset_names
from fmseg.cli.data_commands import would
from fmseg.cli.frame import Output, Session, command
from fmseg.console import print_line, print_table


@command("compare", example="fmseg compare 501 upernet unet")
def compare(
    session: Session,
    dataset: Annotated[str, typer.Argument(help="Number, name or part of it")],
    first: Annotated[str, typer.Argument(help="Recipe with finished folds, or folder with a scores.json")],
    second: Annotated[str, typer.Argument(help="What it is compared with, likewise")],
) -> Output:
    """Say whether one of two runs is better, or whether their difference is within the noise.

    A paired test: both are scored on the same cases, and patients are drawn 1000 times.
    """
    from fmseg.stages.compare import compare_runs

    (name,) = dataset_names(session.workspace, [dataset])
    if session.dry_run:
        return would([session.workspace.results_of(name)], [])
    found = compare_runs(session.workspace, name, first, second)
    difference = found.difference
    columns = ("measure", "cases", "patients", first, second, "difference", "from", "to", "p")
    row = (
        *(found.measure, found.num_cases, found.num_patients, found.first, found.second),
        *(difference.mean, difference.low, difference.high, found.p_value),
    )
    verdict = found.verdict(first, second)
    value = dict(zip(columns, row, strict=True)) | {"verdict": verdict, "within_noise": found.is_noise}

    def show() -> None:
        one, other = short_names(first, second)
        shown = [{first: one, second: other}.get(column, column) for column in columns]
        said = found.verdict(one, other)
        print_table(f"{other} beside {one}", shown, [row])
        print_line(f"{said[0].upper()}{said[1:]}.")

    return Output(value, show)


def short_names(first: str, second: str) -> tuple[str, str]:
    """Return two runs as a table can hold them: of folders, what sets them apart."""
    parts = [Path(first).parts, Path(second).parts]
    for _ in range(2):  # what they begin with, then what they end with
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*parts, strict=False)))
        parts = [way[shared:][::-1] for way in parts]
    one, other = (str(Path(*way)) if way else "" for way in parts)
    return (one, other) if one and other else (first, second)
