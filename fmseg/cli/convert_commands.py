"""The command that brings data here: convert."""

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from fmseg.cli.data_commands import would
from fmseg.cli.frame import Output, Session, command
from fmseg.console import print_line, print_table

#: the layouts, which are imported when the command runs
LAYOUTS = (
    "auto, or busi, camus, coco, fass, fetal_planes, hc18, images, jnu_ifm, masks, msd, nnunet, nnunet_v1, psfhs, table"
)
#: files that are listed under one reason
MAX_SHOWN = 20


@command("convert", example="fmseg convert auto /data/HC18 -d 501")
def convert(
    session: Session,
    layout: Annotated[str, typer.Argument(help=LAYOUTS)],
    source: Annotated[Path, typer.Argument(help="Folder of the original files, or table")],
    dataset: Annotated[int, typer.Option("-d", "--dataset", help="Number of the new dataset.")],
    name: Annotated[str | None, typer.Option(help="Its name; by default the layout's or the folder's.")] = None,
    modality: Annotated[str | None, typer.Option(help="What the images are; by default ultrasound.")] = None,
) -> Output:
    """Bring images and labels, however they are kept, into fmseg_raw; the source is never changed."""
    from fmseg.stages.convert import convert as bring

    if session.dry_run:
        return would([source], [session.workspace.raw / f"Dataset{dataset:03d}_..."])
    summary = bring(session.workspace, layout, source, dataset, name, modality=modality)
    columns = ("dataset", "layout", "task", "classes", "modality", "cases", "tests", "patients", "skipped")
    row = (
        *(summary.dataset, summary.layout, summary.task, ", ".join(summary.classes) or "-", summary.modality),
        *(summary.num_cases, summary.num_tests, summary.num_patients or "not named", len(summary.skipped)),
    )

    def show() -> None:
        print_table("Converted", columns, [row])
        for reason, files in groupby(sorted(summary.skipped, key=lambda item: item[1]), key=lambda item: item[1]):
            names = [file for file, _ in files]
            more = f" ... ({len(names)} files; all of them with --json)" if len(names) > MAX_SHOWN else ""
            print_line(f"skipped, since {reason}: {', '.join(names[:MAX_SHOWN])}{more}")

    return Output(summary.as_dict(), show, summary.exit_code)
