"""The runs of a benchmark, one after the other: what is missing is trained and tested, and the tables are kept up.

It stands with the command line because it drives two stages, as one who types their commands would.
"""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fmseg.cli.frame import Output, Session
from fmseg.console import duration, print_line, print_table
from fmseg.errors import Busy, EnvironmentProblem, FmsegError, Interrupted, UsageError
from fmseg.records.protocol import FOLDS, NUM_SPLITS, Protocol, find_preset, read_protocol, to_protocol
from fmseg.reporting.benchmark_text import table_rows
from fmseg.stages.benchmark import (
    BenchmarkRun,
    extended,
    fitting_recipes,
    is_done,
    need_current,
    plan_runs,
    run_times,
    score_run,
    tables_of,
    tell_old_tests,
    write_tables,
)
from fmseg.stages.train import TrainOptions, train_on

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was typed of a benchmark, beside or instead of a file."""

    protocol: str | None
    datasets: Sequence[str]
    recipes: Sequence[str]
    starts: Sequence[str]
    regimes: Sequence[str]
    splits: int | None
    test: str | None
    cohorts: Sequence[str]
    settings: dict[str, str]
    name: str | None
    plans: str
    num_workers: int | None
    checkpoint_minutes: float
    deterministic: bool | None
    fresh: bool


@dataclass(slots=True)
class Outcome:
    """What became of the runs that were missing."""

    num_done: int = 0
    #: (what it is, why not)
    failed: list[tuple[str, str]] = field(default_factory=list)
    #: what other processes are at
    busy: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """5 if something is still missing, else 0."""
        return 5 if self.failed or self.busy else 0


def compare(session: Session, asked: Asked) -> Output:
    """Run what is missing of a benchmark; or, with ``--dry-run``, say what that would be."""
    protocol = protocol_of(session, asked)
    runs = plan_runs(session.workspace, protocol, asked.plans)
    tell_old_tests(runs)
    if session.dry_run:
        return _ahead(session, runs)
    need_current(runs, fresh=asked.fresh)
    outcome = run_missing(session, protocol, runs, asked)
    folder = write_tables(session.workspace, protocol, runs)
    columns, rows = table_rows(table := tables_of(runs))
    value = {
        "folder": str(folder),
        "table": [dict(zip(columns, row, strict=True)) for row in rows],
        "notes": table.notes,
        "trained": outcome.num_done,
        "failed": outcome.failed,
        "busy": outcome.busy,
    }

    def show() -> None:
        if rows:
            print_table(protocol.name, columns, rows)
        for note in table.notes:
            print_line(note)
        for title, problem in outcome.failed:
            print_line(f"failed: {title}: {problem}")
        for title in outcome.busy:
            print_line(f"another process is at it: {title}")
        print_line(f"Tables and figure: {folder}")

    return Output(value, show, outcome.exit_code)


def _ahead(session: Session, runs: Sequence[BenchmarkRun]) -> Output:
    """Return what ``--dry-run`` prints: every run, how far it is, and its time."""
    states = ["out of date" if run.is_stale else "done" if is_done(run) else run.state for run in runs]
    times = run_times(session.workspace, runs)
    left = sum(time for time, state in zip(times, states, strict=True) if state != "done")
    columns = ("dataset", "regime", "split", "recipe", "start", "cases", "tested on", "state", "time")
    rows = [
        (
            *(run.dataset, run.regime.name, run.split, run.recipe, run.start, len(run.work.cases.train)),
            *(len(run.work.cases.val) or run.test, state, duration(seconds)),
        )
        for run, state, seconds in zip(runs, states, times, strict=True)
    ]
    value = {
        "runs": [
            dict(zip(columns[:-1], row[:-1], strict=True)) | {"seconds": seconds, "writes": str(run.folder.path)}
            for run, row, seconds in zip(runs, rows, times, strict=True)
        ],
        "seconds_left": left,
    }

    def show() -> None:
        print_table("Runs", columns, rows)
        print_line(f"{sum(state != 'done' for state in states)} of {len(runs)} are missing: about {duration(left)}.")

    return Output(value, show)


def protocol_of(session: Session, asked: Asked) -> Protocol:
    """Return the protocol of a file or preset, or that of the options.

    ``--start`` and ``-d`` stand above a file; ``-r`` and ``--cohort`` add to each of its studies.
    """
    if asked.protocol is None:
        return _typed(session, asked)
    of_studies = {
        "--regime": asked.regimes,
        "--splits": asked.splits,
        "--test": asked.test,
        "--set": asked.settings,
    }
    if typed := [option for option, value in of_studies.items() if value]:
        raise UsageError(
            f"The protocol {asked.protocol} says what is compared, so {', '.join(typed)} would change nothing. Write "
            "that into a YAML file of your own (docs/how-to/benchmark.md), or type options alone, with -d."
        )
    path = Path(asked.protocol)
    found = read_protocol(path) if path.suffix in (".yaml", ".yml") else find_preset(asked.protocol)
    studies = list(found.studies)
    if asked.datasets:
        if len(studies) != 1 or len(asked.datasets) != 1:
            raise UsageError(f"-d names the dataset of a protocol of one study; {asked.protocol} has {len(studies)}.")
        studies = [studies[0].evolve(dataset=asked.datasets[0])]
    if asked.recipes or asked.cohorts:
        more = (asked.recipes, asked.cohorts, asked.plans)
        studies = [extended(session.workspace, study, *more) for study in studies]
        if unused := [name for name in asked.recipes if not any(name in study.recipes for study in studies)]:
            raise UsageError(f"{', '.join(unused)}: no study of the protocol {asked.protocol} has the task for that.")
    changes = {"studies": studies, "starts": asked.starts or found.starts, "name": asked.name or found.name}
    return found.evolve(**changes)


def _typed(session: Session, asked: Asked) -> Protocol:
    if not asked.datasets:
        raise UsageError("What is to be compared? Type a dataset, as in -d 501, a YAML file, or a published protocol.")
    studies = []
    for dataset in asked.datasets:
        name = session.workspace.dataset_name(dataset)
        recipes = fitting_recipes(session.workspace, name, asked.recipes, asked.plans)
        studies.append({"dataset": name, "recipes": dict.fromkeys(recipes, asked.settings)})
    if asked.settings and not asked.recipes:
        raise UsageError("--set changes numbers of recipes. Name them, as in -r upernet.")
    shared = {
        "regimes": list(asked.regimes) or ["full"],
        "splits": asked.splits or NUM_SPLITS,
        "test": asked.test or FOLDS,
        "cohorts": list(asked.cohorts),
    }
    starts = {"starts": list(asked.starts)} if asked.starts else {}
    return to_protocol({"name": asked.name or "benchmark", "studies": studies} | shared | starts, "the options")


def run_missing(session: Session, protocol: Protocol, runs: Sequence[BenchmarkRun], asked: Asked) -> Outcome:
    """Train and test what is missing; tables are written after each run.

    ``--fresh`` concerns runs that are out of date alone. A run that fails is told, and the others go on; so are those
    that another process is at.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError(
            "A benchmark is many trainings: start it once for each GPU, with CUDA_VISIBLE_DEVICES=0 and so on. "
            "Each takes what no other is at."
        )
    outcome = Outcome()
    waiting = [run for run in runs if not is_done(run)]
    for number, run in enumerate(waiting):
        times = dict(zip((each.folder.path for each in runs), run_times(session.workspace, runs), strict=True))
        left = sum(times[each.folder.path] for each in waiting[number:])
        logger.info("Run %d of %d, about %s left. %s", number + 1, len(waiting), duration(left), run.title)
        if is_done(run):  # by another process, meanwhile
            continue
        try:
            _run(session, run, asked)
            outcome.num_done += 1
        except Busy:
            logger.info("Another process is at it.")
            outcome.busy.append(run.title)
            continue
        except (EnvironmentProblem, Interrupted):
            raise
        except FmsegError as error:
            logger.warning("%s: %s", run.title, error)
            outcome.failed.append((run.title, str(error)))
            continue
        write_tables(session.workspace, protocol, runs)
    return outcome


def _run(session: Session, run: BenchmarkRun, asked: Asked) -> None:
    start = time.monotonic()
    options = TrainOptions(
        plans=asked.plans,
        recipe=run.recipe,
        init=run.start,
        settings=run.settings,
        num_workers=asked.num_workers,
        checkpoint_minutes=asked.checkpoint_minutes,
        fresh=run.is_stale and asked.fresh,
        deterministic=asked.deterministic,
        plugins=session.plugins,
    )
    if not run.folder.is_finished or options.fresh:
        train_on(session.workspace, run.work, run.folder, options)
    score_run(session.workspace, run, time.monotonic() - start)
