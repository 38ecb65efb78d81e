"""The commands for other people's weights: import_weights, export_weights."""

from pathlib import Path
from typing import Annotated

import typer

from fmseg.cli.data_commands import would
from fmseg.cli.frame import Output, Session, command
from fmseg.console import print_line, print_table

Numbers = list[float] | None


@command("import_weights", example="fmseg import_weights dinov2_vits14_pretrain.pth --as dinov2_small")
def import_weights(
    session: Session,
    file: Annotated[str, typer.Argument(help="File, or its folder, or timm:MODEL for one that timm keeps")],
    name: Annotated[str | None, typer.Option("--as", help="Name of the checkpoint; by default the file's.")] = None,
    source: Annotated[
        str, typer.Option("--format", help="Whose weights, see: fmseg list sources; or timm:MODEL.")
    ] = "auto",
    modality: Annotated[str | None, typer.Option(help="What they have learned from; by default the source's.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 or 3; train and pretrain also do it by themselves.")] = None,
    patch: Annotated[int | None, typer.Option(help="Resample the patches to this side in pixels.")] = None,
    heads: Annotated[int | None, typer.Option(help="Of attention, where the file does not show it.")] = None,
    mean: Annotated[Numbers, typer.Option("--mean", help="Of images in [0, 1], where it is not known.")] = None,
    std: Annotated[Numbers, typer.Option("--std", help="Likewise.")] = None,
) -> Output:
    """Make a foundation checkpoint of other people's weights: every tensor used, or named with the reason why not."""
    from fmseg.stages.import_weights import ImportOptions, cnn_of, default_name, import_cnn, locate
    from fmseg.stages.import_weights import import_weights as make

    options = ImportOptions(
        name=name,
        source=source,
        modality=modality,
        num_heads=heads,
        mean=tuple(mean or ()),
        std=tuple(std or ()),
        channels=channels,
        patch=patch,
    )
    if session.dry_run:
        path, _ = locate(file, source)
        place = session.workspace.foundations() / (modality or "<modality>") / (name or default_name(path))
        return would([path], [place])
    cnn = cnn_of(file, source)
    if cnn is not None:
        path = import_cnn(session.workspace, file, source, cnn)
        return Output({"file": str(path)}, lambda: print_line(f"{path}: train takes it with --init timm"))
    card = make(session.workspace, file, options)
    assert card.origin is not None
    vit = card.architecture
    columns = ("checkpoint", "modality", "found", "network", "channels", "positions for", "licence")
    network = f"{vit.name}/{vit.patch_size}"
    row = (card.name, card.modality, card.origin.title, network, vit.channels, vit.image_size, card.origin.terms)
    return Output(card.model_dump(mode="json"), lambda: print_table("Imported", columns, [row]))


@command("export_weights", example="fmseg export_weights dinov2_small --to timm")
def export_weights(
    session: Session,
    name: Annotated[str, typer.Argument(help="Name of a foundation checkpoint, or modality/name")],
    to: Annotated[str, typer.Option("--to", help="dinov2, timm or huggingface: whose names the tensors get.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder; by default NAME-FORMAT in the current one.")
    ] = None,
) -> Output:
    """Write a checkpoint's weights under DINOv2's, timm's or Hugging Face's names, for use outside of fmseg."""
    from fmseg.stages.export_weights import export_weights as write

    folder = output or Path(f"{name.rpartition('/')[2]}-{to}")
    if session.dry_run:
        return would([session.workspace.foundations()], [folder])
    files = write(session.workspace, name, to, folder)
    return Output([str(path) for path in files], lambda: print_line("\n".join(map(str, files))))
