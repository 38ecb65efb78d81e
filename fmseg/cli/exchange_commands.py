"""The commands by which models leave the house and come in: export, import."""

from pathlib import Path
from typing import Annotated

import typer

from fmseg.cli.data_commands import would
from fmseg.cli.frame import Output, Session, command
from fmseg.console import print_line, print_table
from fmseg.errors import UsageError

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


@command("export", example="fmseg export 501 -o heads.fmseg")
def export(
    session: Session,
    dataset: Annotated[str | None, typer.Argument(help="Number, name or part of it; needed if several.")] = None,
    foundation: Annotated[str | None, typer.Option(help="A foundation checkpoint instead, by its name.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: the name, here.")] = None,
    licence: Annotated[str | None, typer.Option(help="What others may do with it; default: as its parents.")] = None,
    overwrite: Overwrite = False,
) -> Output:
    """Put the models that predict a dataset, or a foundation checkpoint, into one file without paths or patients."""
    from fmseg.records.bundle import ENDING
    from fmseg.stages.export import export_foundation, export_models, exported_name

    if foundation is not None and dataset is not None:
        raise UsageError("Models of a dataset or a foundation checkpoint? Type one of them.")
    path = output or Path(f"{foundation or exported_name(session.workspace, dataset)}{ENDING}")
    if session.dry_run:
        return would([session.workspace.results], [path])
    if foundation is not None:
        made = export_foundation(session.workspace, foundation, path, licence=licence, overwrite=overwrite)
    else:
        made = export_models(session.workspace, dataset, path, licence=licence, overwrite=overwrite)
    value = made.as_dict()
    return Output(value, lambda: print_table("Exported", tuple(value), [tuple(value.values())]))


@command("import", example="fmseg import heads.fmseg --as 601")
def import_(
    session: Session,
    file: Annotated[Path, typer.Argument(help="A .fmseg file")],
    name: Annotated[str | None, typer.Option("--as", help="Another name or number for it.")] = None,
    overwrite: Overwrite = False,
) -> Output:
    """Take models, or a foundation checkpoint, from a .fmseg file into this workspace, after checking all of it."""
    from fmseg.stages.import_bundle import import_bundle

    if session.dry_run:
        return would([file], [session.workspace.results])
    found = import_bundle(session.workspace, file, name=name, overwrite=overwrite, plugins=session.plugins)
    value = found.as_dict()

    def show() -> None:
        columns = ("kind", "name", "modality", "licence")
        print_table("Imported", columns, [tuple(value[column] for column in columns)])
        print_line(f"next: {found.next_command}")

    return Output(value, show)
