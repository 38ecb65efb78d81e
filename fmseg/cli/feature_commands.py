"""The commands that look at images and labels through a network: embed, probe, suggest, review."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fmseg.cli.arguments import dataset_names
from fmseg.cli.data_commands import Datasets, would
from fmseg.cli.frame import Output, Session, command
from fmseg.console import print_line, print_table

Foundation = Annotated[
    str | None, typer.Option("-f", "--foundation", help="Checkpoint; by default the one that has seen most.")
]
Source = Annotated[Path, typer.Option("-i", "--input", help="Folder, list or table of images.")]


@command("embed", example="fmseg embed -i images -o features.npz")
def embed(
    session: Session,
    input: Source,
    output: Annotated[Path, typer.Option("-o", "--output", help="File that ends in .npz.")],
    foundation: Foundation = None,
    dense: Annotated[bool, typer.Option("--dense", help="Also the features of every patch, image by image.")] = False,
) -> Output:
    """Write features of images: CLS and mean patch token of a foundation checkpoint. Images seen before are quick."""
    from fmseg.stages.embed import embed as write

    if session.dry_run:
        return would([input], [output])
    made = write(session.workspace, input, output, foundation=foundation, dense=dense)
    columns = ("checkpoint", "images", "width", "skipped", "file")
    row = (made.checkpoint, made.num_images, made.width, len(made.failed), str(made.path))
    value = dict(zip(columns, row, strict=True)) | {"failed": made.failed}
    return Output(value, lambda: _show("Features", columns, [row], made.failed), 5 if made.failed else 0)


@command("probe", example="fmseg probe -d 501 502")
def probe(
    session: Session,
    dataset: Datasets = None,
    foundation: Annotated[list[str] | None, typer.Option("-f", "--foundation", help="Several; default: all.")] = None,
    folds: Annotated[int, typer.Option(help="Probe the first so many folds.")] = 1,
    cases: Annotated[int, typer.Option(help="Learn on, and score, at most so many cases of a fold.")] = 300,
) -> Output:
    """Score frozen features on labelled datasets, beside random weights: kNN, linear and patch probe."""
    from fmseg.stages.probe import probe_foundations

    names = dataset_names(session.workspace, dataset)
    if session.dry_run:
        return would([session.workspace.prepared(name) for name in names], [])
    rows = probe_foundations(session.workspace, names, foundation or (), num_folds=folds, most_cases=cases)
    columns = ("dataset", "checkpoint", "probe", "score", "standard error", "random weights", "folds", "train", "test")
    cells = [
        (r.dataset, r.checkpoint, r.probe, r.score, r.error, r.random, r.num_folds, r.num_train, r.num_test)
        for r in rows
    ]
    value = [dict(zip(columns, row, strict=True)) for row in cells]
    return Output(value, lambda: print_table("Probes of frozen features", columns, cells))


@command("suggest", example="fmseg suggest -i images -n 50 -o to_label.csv -d 501")
def suggest(
    session: Session,
    input: Source,
    output: Annotated[Path, typer.Option("-o", "--output", help="Table that ends in .csv; a picture lies beside it.")],
    count: Annotated[int, typer.Option("-n", "--count", help="How many images to label.")] = 50,
    dataset: Annotated[str | None, typer.Option("-d", "--dataset", help="What is labelled already.")] = None,
    foundation: Foundation = None,
) -> Output:
    """Choose which images to label next: together they represent all, and are unlike those labelled already."""
    from fmseg.stages.suggest import COLUMNS
    from fmseg.stages.suggest import suggest as choose

    labelled = dataset_names(session.workspace, [dataset])[0] if dataset else None
    if session.dry_run:
        return would([input], [output, output.with_suffix(".png")])
    made = choose(session.workspace, input, output, count=count, labelled=labelled, foundation=foundation)
    rows = [(rank, str(path), found.distance, found.radius) for rank, (path, found) in enumerate(made.chosen, start=1)]
    value = {
        "checkpoint": made.checkpoint,
        "images": made.num_images,
        "labelled": made.num_labelled,
        "chosen": [str(path) for path, _ in made.chosen],
        "failed": made.failed,
    }

    def show() -> None:
        _show(f"To label, of {made.num_images} images", COLUMNS, rows[:20], made.failed)
        print_line(f"All of them: {made.table}; pictures: {made.sheet}")

    return Output(value, show, 5 if made.failed else 0)


@command("review", example="fmseg review 501")
def review(
    session: Session,
    dataset: Annotated[str, typer.Argument(help="Number, name or part of it; its folds are trained.")],
    count: Annotated[int, typer.Option("-n", "--count", help="How many to print.")] = 20,
) -> Output:
    """Rank labels by how much networks that have not learned from them disagree: which to look at again."""
    from fmseg.stages.review import review as rank

    (name,) = dataset_names(session.workspace, [dataset])
    if session.dry_run:
        place = session.workspace.results_of(name)
        return would([place], [place / "review"])
    made = rank(session.workspace, name)
    rows = [
        (number, each.case, each.patient, each.doubt, each.label, each.predicted)[: len(made.columns)]
        for number, each in enumerate(made.cases[:count], start=1)
    ]
    value = {"table": str(made.table), "sheet": str(made.sheet), "cases": [list(row) for row in rows]}

    def show() -> None:
        print_table("Labels to look at again", made.columns, rows)
        print_line(f"All {len(made.cases)} cases: {made.table}; pictures: {made.sheet}")

    return Output(value, show)


def _show(
    title: str, columns: tuple[str, ...], rows: Sequence[tuple[object, ...]], failed: tuple[tuple[str, str], ...]
) -> None:
    print_table(title, columns, rows)
    for file, problem in failed:
        print_line(f"skipped {file}: {problem}")
