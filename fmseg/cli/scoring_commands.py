"""The command that tells a difference from noise."""

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
        print_table(f"{second} beside {first}", columns, [row])
        print_line(f"{verdict[0].upper()}{verdict[1:]}.")

    return Output(value, show)
