"""The commands that look at data and decide: doctor, fingerprint, plan, preprocess, explain, list."""

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from fmseg.cli.arguments import complete_dataset, dataset_names, parse_duration, parse_settings
from fmseg.cli.frame import Output, Session, command
from fmseg.cli.preparation import Preparation, examine, image_datasets, mend_dataset, prepare_dataset
from fmseg.console import print_line, print_table

Datasets = Annotated[
    list[str] | None,
    typer.Option("-d", "--dataset", help="Number, name or part of it; several.", autocompletion=complete_dataset),
]
Processes = Annotated[int | None, typer.Option("-np", "--num-processes", help="Default: all cores; 0: no others.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure every file again.")]
Budget = Annotated[str | None, typer.Option("--budget", help="Plan the pretraining to this time, as 20m, 2h, 1d.")]
PlannerName = Annotated[str, typer.Option("--planner", help="Set of rules; see: fmseg list planners")]
Images = Annotated[
    list[Path] | None, typer.Option("--images", help="Folder, list or table (path,patient,modality) without labels.")
]
Modality = Annotated[str | None, typer.Option("--modality", help="What --images are; by default ultrasound.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Option of preparing, as --set neighbours=1.")]
OnCluster = Annotated[
    str | None, typer.Option("--cluster", help="Measure and prepare on this Dask cluster, as tcp://10.0.0.1:8786.")
]
PlansName = Annotated[str, typer.Option("-p", "--plans", help="Name of the plans.")]


def num_processes(wanted: int | None) -> int:
    """Return the number of processes asked for, or the number of cores this process may use."""
    from fmseg.planning.hardware import num_cores

    return wanted if wanted is not None else num_cores()


def would(reads: list[Path], writes: list[Path]) -> Output:
    """Return what ``--dry-run`` prints."""
    value = {"reads": [str(path) for path in reads], "writes": [str(path) for path in writes]}

    def show() -> None:
        for verb, paths in value.items():
            for path in paths:
                print_line(f"{verb:7s}{path}")

    return Output(value, show)


@command("doctor", example="fmseg doctor -d 501")
def doctor(
    session: Session,
    dataset: Datasets = None,
    processes: Processes = None,
    fix: Annotated[bool, typer.Option("--fix", help="Write a mended copy under the next free number.")] = False,
) -> Output:
    """Check raw datasets and list every problem with its mend; exit code 3 if one must be mended."""
    names = dataset_names(session.workspace, dataset)
    if session.dry_run:
        return would(_raw(session, names), _prepared(session, names, "doctor.json"))
    how = Preparation(num_processes(processes))
    if fix:
        return _mended(session, names, how)
    rows = [
        (name, each.severity, each.where, each.problem, each.why, each.mend)
        for name in names
        for each in examine(session, name, how)
    ]
    bad = any(row[1] == "error" for row in rows)
    keys = ("dataset", "severity", "where", "problem", "why", "mend")
    value = [dict(zip(keys, row, strict=True)) for row in rows]

    def show() -> None:
        if rows:
            print_table("Findings", keys[1:], [row[1:] for row in rows])
        else:
            print_line("There are no findings.")
        for sheet in _prepared(session, names, "doctor.png"):
            if sheet.exists():
                print_line(f"Pictures of the worst: {sheet}")

    return Output(value, show, 3 if bad else 0)


def _mended(session: Session, names: list[str], how: Preparation) -> Output:
    """Write mended copies and say what was changed, and what a person must mend."""
    found = [mend_dataset(session, name, how) for name in names]
    value = [
        {"copy": copy, "changes": changes, "findings": [each.model_dump(mode="json") for each in left]}
        for copy, changes, left in found
    ]

    def show() -> None:
        for copy, changes, left in found:
            print_line(f"wrote {session.workspace.raw_dataset(copy)}")
            for change in changes:
                print_line(f"  {change}")
            rows = [(each.severity, each.where, each.problem, each.mend) for each in left if each.severity != "note"]
            if rows:
                print_table("Left for you", ("severity", "where", "problem", "mend"), rows)

    bad = any(each.severity == "error" for _, _, left in found for each in left)
    return Output(value, show, 3 if bad else 0)


@command("fingerprint", example="fmseg fingerprint -d 501")
def fingerprint(
    session: Session,
    dataset: Datasets = None,
    processes: Processes = None,
    cluster: OnCluster = None,
    fresh: Fresh = False,
) -> Output:
    """Measure datasets: sizes, intensities, classes, patients. Cases measured before are not read again."""
    from fmseg.stages.fingerprint import fingerprint as measure

    names = dataset_names(session.workspace, dataset)
    if session.dry_run:
        return would(_raw(session, names), _prepared(session, names, "dataset_fingerprint.json"))
    count = num_processes(processes)
    found = [measure(session.workspace, n, num_processes=count, cluster=cluster, fresh=fresh) for n in names]
    columns = ("dataset", "cases", "images", "patients", "median size", "channels")
    rows = [
        (f.dataset, f.num_cases, f.num_images, f.num_patients, "x".join(map(str, f.median_size)), f.channels)
        for f in found
    ]
    return Output([f.model_dump(mode="json") for f in found], lambda: print_table("Fingerprints", columns, rows))


@command("plan", example="fmseg plan -d 501 --budget 2h")
def plan(
    session: Session,
    dataset: Datasets = None,
    plans: PlansName = "fmsegPlans",
    planner: PlannerName = "standard",
    budget: Budget = None,
    settings: Settings = None,
) -> Output:
    """Derive every number of preprocessing, pretraining and finetuning, and the folds."""
    from fmseg.stages.plan import plan as decide

    names = dataset_names(session.workspace, dataset)
    if session.dry_run:
        return would(_prepared(session, names, "dataset_fingerprint.json"), _prepared(session, names, "plans.json"))
    how = {"plans_name": plans, "planner": planner}
    options, budget_s = parse_settings(settings), parse_duration(budget)
    made = [decide(session.workspace, n, **how, budget_s=budget_s, settings=options) for n in names]

    def show() -> None:
        for each in made:
            print_line(f"{each.dataset}: planned. Read why with: fmseg explain -d {each.dataset}")

    return Output([each.model_dump(mode="json") for each in made], show)


@command("preprocess", example="fmseg preprocess -d 501")
def preprocess(
    session: Session,
    dataset: Datasets = None,
    plans: PlansName = "fmsegPlans",
    processes: Processes = None,
    cluster: OnCluster = None,
) -> Output:
    """Write the prepared images of planned datasets into their stores; goes on where it was stopped."""
    from fmseg.planning.planner import plans_file
    from fmseg.records.plans import Plans
    from fmseg.stages.preprocess import preprocess as prepare

    names = dataset_names(session.workspace, dataset)
    if session.dry_run:
        return would(_raw(session, names), [session.workspace.prepared(name) for name in names])
    stores = []
    for name in names:
        path = session.workspace.prepared(name) / plans_file(plans)
        made = Plans.load(session.workspace.need(path, f"fmseg plan -d {name}"))
        count = num_processes(processes)
        stores.append(prepare(session.workspace, name, made, num_processes=count, cluster=cluster))

    def show() -> None:
        for store in stores:
            print_line(f"prepared {store}")

    return Output([str(store) for store in stores], show)


@command("plan_and_preprocess", example="fmseg plan_and_preprocess -d 501 502")
def plan_and_preprocess(
    session: Session,
    dataset: Datasets = None,
    images: Images = None,
    modality: Modality = None,
    plans: PlansName = "fmsegPlans",
    planner: PlannerName = "standard",
    budget: Budget = None,
    settings: Settings = None,
    processes: Processes = None,
    cluster: OnCluster = None,
    fresh: Fresh = False,
) -> Output:
    """Check, measure, plan and prepare: the first of the four commands."""
    names = dataset_names(session.workspace, dataset) if dataset or not images else []
    if session.dry_run:
        return would([*_raw(session, names), *(images or ())], [session.workspace.prepared(name) for name in names])
    names += image_datasets(session, images, modality)
    count, budget_s, options = num_processes(processes), parse_duration(budget), parse_settings(settings)
    how = Preparation(count, plans, planner, budget_s, options, fresh=fresh, cluster=cluster)
    rows = [prepare_dataset(session, name, how) for name in names]
    columns = ("dataset", "cases", "patients", "input size", "warnings", "skipped")
    value = [dict(zip(columns, row, strict=True)) for row in rows]

    def show() -> None:
        print_table("Planned and prepared", columns, rows)
        for name, *_, warnings, skipped in rows:
            if warnings or skipped:
                files = ", ".join(["doctor.json"] * bool(warnings) + ["skipped.jsonl"] * bool(skipped))
                print_line(f"Read what they are in {session.workspace.prepared(name)}: {files}")

    return Output(value, show, 5 if any(row[-1] for row in rows) else 0)


@command("explain", example="fmseg explain -d 501")
def explain(
    session: Session,
    dataset: Datasets = None,
    plans: PlansName = "fmsegPlans",
    diff: Annotated[Path | None, typer.Option(help="Show only what differs from this plans.json.")] = None,
) -> Output:
    """Print every planned number: value, reason, and how to override it."""
    from fmseg.stages.explain import explain as tell

    names = dataset_names(session.workspace, dataset)
    rows = [row for name in names for row in tell(session.workspace, name, other=diff, plans_name=plans)]
    keys = ("number", "value", "because", "override")
    value = [dict(zip(keys, row, strict=True)) for row in rows]
    return Output(value, lambda: _print_plan(value))


def _print_plan(rows: list[dict[str, str]]) -> None:
    """Print one table a section, a reason that several numbers share once, and how to override below."""
    for section, group in groupby(rows, key=lambda row: row["number"].partition(".")[0]):
        cells, ways, above = [], [], ""
        for row in group:
            name = row["number"].partition(".")[2]
            cells.append((name or section, row["value"], "as above" if row["because"] == above else row["because"]))
            above = row["because"]
            way = row["override"].replace(f"{name}=", "NUMBER=") if name else row["override"]
            if way != "-" and way not in ways:
                ways.append(way)
        print_table(section.replace("_", " "), ("number", "value", "because"), cells)
        for way in ways:
            print_line(f"  to override: {way}")
        print_line("")


@command("list", example="fmseg list")
def listing(
    session: Session,
    what: Annotated[
        str, typer.Argument(help="datasets, models, foundations, recipes, networks, decoders, sources ...")
    ] = "datasets",
) -> Output:
    """Show what is in this workspace: datasets and how far they are, foundations, registered parts."""
    from fmseg.stages.listing import listing as collect

    title, columns, rows = collect(session.workspace, what)
    value = [dict(zip(columns, row, strict=True)) for row in rows]
    return Output(value, lambda: print_table(title, columns, rows))


def _raw(session: Session, names: list[str]) -> list[Path]:
    return [session.workspace.raw_dataset(name) for name in names]


def _prepared(session: Session, names: list[str], file: str) -> list[Path]:
    return [session.workspace.prepared(name) / file for name in names]
