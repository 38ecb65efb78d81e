"""The commands that use a network, and the only ones: push, pull."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fmseg.cli.data_commands import would
from fmseg.cli.exchange_commands import Overwrite
from fmseg.cli.frame import Output, Session, command
from fmseg.console import print_line
from fmseg.errors import UsageError


@command("push", example="fmseg push our-lab/fetal-ultrasound --foundation abdomen")
def push(
    session: Session,
    repository: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub; made if missing.")],
    dataset: Annotated[str | None, typer.Option("-d", "--dataset", help="Whose models.")] = None,
    foundation: Annotated[str | None, typer.Option(help="A foundation checkpoint instead, by its name.")] = None,
    licence: Annotated[str | None, typer.Option(help="What others may do with it; default: as its parents.")] = None,
    public: Annotated[bool, typer.Option("--public", help="For all to see, if the repository is new.")] = False,
) -> Output:
    """Put models, or a foundation checkpoint, on a hub: the file that export writes, and its card."""
    from fmseg.records.bundle import ENDING
    from fmseg.stages.export import export_foundation, export_models
    from fmseg.stages.hub import upload

    if (dataset is None) == (foundation is None):
        raise UsageError("Models of a dataset (-d) or a foundation checkpoint (--foundation)? Type one of them.")
    if session.dry_run:
        return would([session.workspace.results], [])
    with tempfile.TemporaryDirectory(prefix="fmseg_") as temporary:
        path = Path(temporary) / f"model{ENDING}"
        if foundation is not None:
            export_foundation(session.workspace, foundation, path, licence=licence)
        else:
            export_models(session.workspace, dataset, path, licence=licence)
        address = upload(path, repository, is_public=public)
    return Output({"repository": repository, "address": address}, lambda: print_line(f"It is at {address}"))


@command("pull", example="fmseg pull our-lab/fetal-ultrasound --as theirs")
def pull(
    session: Session,
    repository: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub.")],
    name: Annotated[str | None, typer.Option("--as", help="Another name or number for it.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; default: the newest.")] = None,
    overwrite: Overwrite = False,
) -> Output:
    """Fetch models, or a foundation checkpoint, from a hub, and import them after checking all of it."""
    from fmseg.stages.hub import download
    from fmseg.stages.import_bundle import import_bundle

    workspace = session.workspace
    if session.dry_run:
        return would([], [workspace.results])
    with tempfile.TemporaryDirectory(prefix="fmseg_") as temporary:
        path = download(repository, Path(temporary), revision)
        found = import_bundle(workspace, path, name=name, overwrite=overwrite, plugins=session.plugins)
    return Output(found.as_dict(), lambda: print_line(f"Imported {found.folder.name}. Next: {found.next_command}"))
