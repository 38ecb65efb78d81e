"""The commands that learn and predict: pretrain, train, find_best, predict, evaluate, demo."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from fmseg.cli.ahead import look_ahead
from fmseg.cli.arguments import (
    ALL,
    complete_dataset,
    complete_foundation,
    dataset_names,
    parse_duration,
    parse_fold,
    parse_settings,
)
from fmseg.cli.data_commands import (
    Budget,
    Datasets,
    Images,
    Modality,
    OnCluster,
    PlansName,
    Processes,
    num_processes,
    would,
)
from fmseg.cli.frame import Output, Session, command
from fmseg.cli.launcher import launched, must_launch
from fmseg.cli.preparation import Preparation, image_datasets, prepare_dataset
from fmseg.cli.reports import dataset_report, foundation_report, tell_report
from fmseg.cli.starting import start_from
from fmseg.console import is_only_process, is_speaker, print_line, print_table

GoOnFrom = Annotated[
    str | None, typer.Option(help="Go on from this checkpoint, or file of weights.", autocompletion=complete_foundation)
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")]
Workers = Annotated[int | None, typer.Option("--num-workers", help="Loader processes; 0 loads inline.")]
Minutes = Annotated[float, typer.Option("--checkpoint-minutes", help="At most this much work is ever lost.")]
Gpus = Annotated[int | None, typer.Option("--gpus", help="One process for each of so many GPUs of this machine.")]
Deterministic = Annotated[
    bool | None,
    typer.Option("--deterministic/--fast", help="The same bytes again, or sooner; default: --fast on GPUs only."),
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Change one number, as --set iterations=500.")]


@command("pretrain", example="fmseg pretrain --budget 2h")
def pretrain(
    session: Session,
    dataset: Datasets = None,
    images: Images = None,
    modality: Modality = None,
    name: Annotated[str | None, typer.Option(help="Name of the checkpoint; by default from the datasets.")] = None,
    init: GoOnFrom = None,
    budget: Budget = None,
    settings: Settings = None,
    workers: Workers = None,
    checkpoint_minutes: Minutes = 10.0,
    processes: Processes = None,
    cluster: OnCluster = None,
    store: Annotated[bool, typer.Option(help="Prepare --images once, or decode them at each use.")] = True,
    gpus: Gpus = None,
    deterministic: Deterministic = None,
    fresh: Fresh = False,
) -> Output:
    """Pretrain one foundation checkpoint per modality with DINOv2.

    On the datasets of -d, on images that lie anywhere (--images), or without either on all preprocessed datasets.
    """
    from fmseg.stages.pretrain import PretrainOptions, preview
    from fmseg.stages.pretrain import pretrain as learn

    names = dataset_names(session.workspace, dataset) if dataset else session.workspace.dataset_names()
    names = [] if images and not dataset else names
    options = PretrainOptions(
        name=name,
        init=start_from(session, init) if init else None,
        budget_s=parse_duration(budget),
        settings=parse_settings(settings),
        num_workers=workers,
        checkpoint_minutes=checkpoint_minutes,
        fresh=fresh,
        deterministic=deterministic,
        from_files=not store,
        plugins=session.plugins,
    )
    if session.dry_run:
        ahead = preview(session.workspace, names, options) if names else []
        return look_ahead([*(session.workspace.prepared(each) for each in names), *(images or ())], ahead)
    own = image_datasets(session, images, modality)
    how = Preparation(num_processes(processes), keeps_plan=True, with_store=store, cluster=cluster)
    skipped = sum(prepare_dataset(session, each, how)[-1] for each in own if is_only_process())
    if must_launch(gpus):
        return launched(gpus)
    names += [each for each in own if each not in names]
    made = learn(session.workspace, names, options)
    columns = ("checkpoint", "modality", "images", "samples seen", "iterations")
    rows = [(card.name, card.modality, card.num_images, card.samples_seen, card.iterations) for card in made]
    value = [card.model_dump(mode="json") for card in made]
    reports = [foundation_report(session, card.name) for card in made]

    def show() -> None:
        print_table("Foundation checkpoints", columns, rows)
        for path in reports:
            tell_report(path)

    return Output(value, show, 5 if skipped else 0)


@command("train", example="fmseg train 501 fold0")
def train(
    session: Session,
    dataset: Annotated[str, typer.Argument(help="Number, name or part of it", autocompletion=complete_dataset)],
    fold: Annotated[str | None, typer.Argument(help="0, fold0 or all; without it every fold, then find_best")] = None,
    recipe: Annotated[str | None, typer.Option("-r", "--recipe", help="By default those of the plan.")] = None,
    plans: PlansName = "fmsegPlans",
    init: Annotated[
        str,
        typer.Option(help="auto, scratch, a checkpoint, or a file of weights.", autocompletion=complete_foundation),
    ] = "auto",
    settings: Settings = None,
    workers: Workers = None,
    checkpoint_minutes: Minutes = 10.0,
    gpus: Gpus = None,
    deterministic: Deterministic = None,
    fresh: Fresh = False,
) -> Output:
    """Train one fold, or every fold and choose the best; goes on where it was stopped."""
    from fmseg.stages.train import TrainOptions, forget, num_folds, planned_recipes
    from fmseg.stages.train import train as learn

    (name,) = dataset_names(session.workspace, [dataset])
    if session.dry_run:
        return would([session.workspace.prepared(name)], [session.workspace.results_of(name)])
    start = start_from(session, init)
    if must_launch(gpus):
        return launched(gpus)
    recipes = [recipe] if recipe else planned_recipes(session.workspace, name, plans, start)[: 1 if fold else None]
    folds = [parse_fold(fold)] if fold is not None else list(range(num_folds(session.workspace, name)))
    rows: list[tuple[object, ...]] = []
    measure = "score"
    ways = [
        TrainOptions(
            plans=plans,
            recipe=each,
            init=start,
            settings=parse_settings(settings),
            num_workers=workers,
            checkpoint_minutes=checkpoint_minutes,
            deterministic=deterministic,
            plugins=session.plugins,
        )
        for each in recipes
    ]
    for options in ways if fresh else ():
        forget(session.workspace, name, folds, options)
    for options, number in product(ways, folds):
        scores = learn(session.workspace, name, number, options)
        if scores is not None:
            measure, found = scores.headline
            rows.append((options.recipe, number, len(scores.cases), found.mean, found.low, found.high))
    if not is_speaker():
        return Output(None)  # one process chooses and reports
    columns = ("recipe", "fold", "cases", measure, "from", "to")
    value = {"folds": [dict(zip(columns, row, strict=True)) for row in rows]}
    if fold is None:
        return _chosen(session, name, value, lambda: print_table(f"Out-of-fold {measure}", columns, rows), plans=plans)
    if folds == [ALL]:
        return Output(value, lambda: print_line("Trained on all cases; there is no fold left to score it on."))
    return Output(value, lambda: print_table(f"Out-of-fold {measure}", columns, rows))


@command("find_best", example="fmseg find_best 501")
def find_best(
    session: Session,
    dataset: Annotated[str, typer.Argument(help="Number, name or part of it", autocompletion=complete_dataset)],
    max_models: Annotated[int, typer.Option(help="At most this many recipes in the ensemble.")] = 3,
) -> Output:
    """Score all finished runs on the pooled out-of-fold predictions; choose recipe, ensemble and clean-up."""
    (name,) = dataset_names(session.workspace, [dataset])
    if session.dry_run:
        place = session.workspace.results_of(name)
        return would([place], [place / "selection.json"])
    return _chosen(session, name, {}, lambda: None, max_models)


@command("predict", example="fmseg predict -i new_images -o predictions")
def predict(
    session: Session,
    input: Annotated[Path, typer.Option("-i", "--input", help="Folder of new images.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the predictions; made if missing.")],
    dataset: Annotated[str | None, typer.Option("-d", "--dataset", help="Whose models; needed if several.")] = None,
    model: Annotated[
        Path | None, typer.Option("-m", "--model", help="A .fmseg file instead, from fmseg export.")
    ] = None,
    overlays: Annotated[bool, typer.Option("--overlays", help="Also draw the predictions as PNGs.")] = False,
    mirror: Annotated[bool, typer.Option("--mirror/--no-mirror", help="Test-time mirroring, where planned.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict again what is there.")] = False,
) -> Output:
    """Predict a folder of images with the models that find_best chose: label maps, or a table of classes."""
    from fmseg.stages.predict import predict as infer

    if session.dry_run:
        return would([*([model] if model else []), input], [output])
    report = infer(
        *(session.workspace, input, output),
        dataset=dataset,
        model=model,
        overlays=overlays,
        mirror=mirror,
        overwrite=overwrite,
        plugins=session.plugins,
    )
    columns = ("predicted", "skipped", "there already", "seen in training", "in pretraining", "not known", "report")
    seen = (report.seen.training, report.seen.pretraining, report.seen.unknown)
    row = (report.num_predicted, len(report.failed), report.num_existing, *seen, report.table)

    def show() -> None:
        print_table("Predictions", columns, [row])
        for file, problem in report.failed:
            print_line(f"skipped {file}: {problem}")

    return Output(report.as_dict(), show, 5 if report.failed else 0)


@command("evaluate", example="fmseg evaluate -d 501 -i predictions -l labels")
def evaluate(
    session: Session,
    dataset: Annotated[str, typer.Option("-d", "--dataset", help="Says what the label values mean.")],
    input: Annotated[Path, typer.Option("-i", "--input", help="Folder of predictions.")],
    labels: Annotated[
        Path | None,
        typer.Option("-l", "--labels", help="Label maps of the same names, or a CSV; default: of labelsTs."),
    ] = None,
) -> Output:
    """Score predictions against labels, with intervals over patients: Dice ... of label maps, F1 ... of classes."""
    from fmseg.stages.evaluate import evaluate as score

    (name,) = dataset_names(session.workspace, [dataset])
    if session.dry_run:
        return would([input, *([labels] if labels else [])], [input / "summary.json"])
    scores = score(session.workspace, name, input, labels)
    num_patients = len({case.patient for case in scores.cases})
    rows = [(measure, value.mean, value.low, value.high) for measure, value in scores.intervals.items()]

    def show() -> None:
        print_table("Scores", *scores.table())
        print_table(f"95 % intervals over {num_patients} patients", ("measure", "mean", "from", "to"), rows)

    return Output(scores.model_dump(mode="json"), show)


@command("demo", example="fmseg demo")
def demo(
    session: Session,
    folder: Annotated[Path, typer.Argument(help="Where the demo's workspace is made")] = Path("fmseg_demo"),
) -> Output:
    """Run the whole job on synthetic ultrasound phantoms, in some minutes, and show what came out."""
    from fmseg.cli.demo import demo as run

    if session.dry_run:
        return would([], [folder])
    story = run(folder)
    return Output(story.as_dict(), story.show)


def _chosen(
    session: Session,
    name: str,
    value: dict,
    show_first: Callable[[], None],
    max_models: int = 3,
    plans: str = "fmsegPlans",
) -> Output:
    from fmseg.stages.find_best import find_best as choose

    selection = choose(session.workspace, name, max_models=max_models)
    columns = ("candidate", selection.measure, "from", "to", "networks", "GFLOP", "s an image")
    rows = [
        (c.name, c.score.mean, c.score.low, c.score.high, *(c.cost.num_networks, c.cost.gflop, c.cost.seconds))
        for c in selection.candidates
        if c.cost
    ]
    report = dataset_report(session, name, plans)

    def show() -> None:
        show_first()
        print_table(f"Out-of-fold {selection.measure} of all candidates", columns, rows)
        print_line(selection.because)
        tell_report(report)

    value |= {"selection": selection.model_dump(mode="json"), "report": str(report) if report else None}
    return Output(value, show)
