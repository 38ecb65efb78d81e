"""The commands by which models leave the house and come in: export, import."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fmseg.cli.data_commands import would
from fmseg.cli.frame import Output, Session, command
from fmseg.console import print_line, print_table
from fmseg.errors import UsageError

Form = Literal["bundle", "onnx", "monai", "hub"]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


@command("export", example="fmseg export 501 -o heads.fmseg")
def export(
    session: Session,
    dataset: Annotated[str | None, typer.Argument(help="Number, name or part of it; needed if several.")] = None,
    foundation: Annotated[str | None, typer.Option(help="A foundation checkpoint instead, by its name.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: the name, here.")] = None,
    to: Annotated[Form, typer.Option(help="bundle: a .fmseg file; the others: a folder.")] = "bundle",
    licence: Annotated[str | None, typer.Option(help="What others may do with it; default: as its parents.")] = None,
    overwrite: Overwrite = False,
) -> Output:
    """Put the models that predict a dataset, or a foundation checkpoint, into one file without paths or patients."""
    from fmseg.records.bundle import ENDING
    from fmseg.stages.export import export_foundation, export_models, exported_name

    workspace = session.workspace
    if foundation is not None and (dataset is not None or to != "bundle"):
        raise UsageError("A foundation checkpoint leaves alone, as a .fmseg file: fmseg export --foundation NAME")
    ending = ENDING if to == "bundle" else f"_{to}"
    path = output or Path(f"{foundation or exported_name(workspace, dataset)}{ending}")
    if session.dry_run:
        return would([workspace.results], [path])
    if foundation is not None:
        value = export_foundation(workspace, foundation, path, licence=licence, overwrite=overwrite).as_dict()
    elif to == "bundle":
        value = export_models(workspace, dataset, path, licence=licence, overwrite=overwrite).as_dict()
    elif to == "monai":
        from fmseg.stages.export.monai import export_monai

        found = export_monai(workspace, dataset, path, licence=licence, overwrite=overwrite)
        value = {"path": str(path), "kind": to, "name": found.name, "licence": found.licence}
    else:
        from fmseg.stages.export.networks import export_networks

        made = export_networks(workspace, dataset, path, to, licence=licence, overwrite=overwrite)
        value = {
            "path": str(path),
            "kind": to,
            "name": made.name,
            "networks": len(made.networks),
            "licence": made.licence,
        }
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


@command("export_predictions", example="fmseg export_predictions -i predictions --images in --to dicom -o seg")
def export_predictions(
    session: Session,
    input: Annotated[Path, typer.Option("-i", "--input", help="Folder that fmseg predict has written.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to; made if missing.")],
    to: Annotated[str, typer.Option(help="dicom, nrrd (3D Slicer), png (palette), geojson or coco.")] = "nrrd",
    images: Annotated[Path | None, typer.Option(help="The images that were predicted; dicom needs them.")] = None,
    overwrite: Overwrite = False,
) -> Output:
    """Write predicted label maps as DICOM segmentations, for 3D Slicer, as palette PNGs, or as contours."""
    from fmseg.stages.export_predictions import export_predictions as write

    if session.dry_run:
        return would([input, *([images] if images else [])], [output])
    done = write(input, to, output, images=images, overwrite=overwrite)

    def show() -> None:
        print_line(f"wrote {done.num_files} files into {output}")
        for case, note in done.notes:
            print_line(f"{case}: pictures instead of a segmentation: {note}")
        for case, problem in done.failed:
            print_line(f"skipped {case}: {problem}")

    return Output(done.as_dict(), show, done.exit_code)


@command("serve", example="fmseg serve -m heads.fmseg --port 8000")
def serve(
    session: Session,
    dataset: Annotated[str | None, typer.Option("-d", "--dataset", help="Whose models; needed if several.")] = None,
    model: Annotated[Path | None, typer.Option("-m", "--model", help="A .fmseg file instead.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; by default this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    max_mb: Annotated[float, typer.Option(help="Largest request.")] = 64.0,
    max_waiting: Annotated[int, typer.Option(help="Requests that may wait; more get 503.")] = 16,
    mirror: Annotated[bool, typer.Option("--mirror/--no-mirror", help="Test-time mirroring, where planned.")] = True,
) -> Output:
    """Answer HTTP requests with one model: an image in, a label map or classes out. Ctrl-C ends it."""
    from fmseg.stages.serve import ServeOptions
    from fmseg.stages.serve import serve as answer

    options = ServeOptions(host=host, port=port, max_mb=max_mb, max_waiting=max_waiting, mirror=mirror)
    if session.dry_run:
        return would([model or session.workspace.results], [])
    answer(session.workspace, dataset, model, options, print_line, session.plugins)
    return Output({"served": True})
