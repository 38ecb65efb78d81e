"""Compare starting points and recipes on the user's own data: which runs there are, what each came to, the tables.

``plan_runs`` lists the runs of a protocol; a command trains what is missing with the stage ``train``, and
``score_run`` notes what came of it. Everything lies in ``fmseg_results/benchmark``, where neither ``find_best`` nor
``predict`` looks. The runs lie in ``runs``, shared by all benchmarks that ask for the same ones, tables in a folder by
the benchmark's name.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from fmseg.errors import BadData, UsageError
from fmseg.files import locked, read_lines, write_bytes, write_json
from fmseg.inference.probabilities import ENDING
from fmseg.planning.planner import plans_file
from fmseg.records.benchmark import BenchmarkScore
from fmseg.records.plans import Plans
from fmseg.records.protocol import OFFICIAL, Protocol, Study
from fmseg.records.run import RunConfig
from fmseg.records.scores import ClassificationScores, Scores
from fmseg.reporting.benchmark_tables import BenchmarkTable, draw_label_curves, summarise
from fmseg.reporting.benchmark_text import table_csv, table_latex, table_text
from fmseg.stages.benchmark.external import Tested, score_elsewhere
from fmseg.stages.benchmark.runs import BenchmarkRun, fits, open_setting, runs_of
from fmseg.workspace import Workspace, dataset_id

__all__ = [
    "BenchmarkRun",
    "extended",
    "fitting_recipes",
    "is_done",
    "need_current",
    "plan_runs",
    "run_times",
    "score_run",
    "scores_of",
    "tables_of",
    "tell_old_tests",
    "write_tables",
]

logger = logging.getLogger(__name__)

RESULT = "result.json"
#: what is made from all results
TABLES = ("table1.txt", "table1.csv", "table1.tex", "scores.jsonl", "figure1b.png", "figure1b.csv")


def plan_runs(workspace: Workspace, protocol: Protocol, plans_name: str) -> list[BenchmarkRun]:
    """Return all runs of a protocol, the first split of all before the second of any.

    So whenever it is stopped, there is something to compare. Raises NotReady, UsageError or BadData before any run
    begins if one of them cannot: a dataset that is not prepared, an unknown recipe, too few patients.
    """
    settings = [open_setting(workspace, study, plans_name) for study in protocol.studies]
    unique: dict[tuple[object, ...], BenchmarkRun] = {}
    for setting in settings:
        for run in runs_of(workspace, setting, protocol.starts):
            there = unique.setdefault((run.dataset, run.regime.name, run.split, run.recipe, run.start), run)
            if there.folder.path != run.folder.path:
                raise UsageError(
                    f"{run.title} is asked for twice, with other settings or another test, and a table has one place "
                    "for it. Make two benchmarks of it; they share the runs that they have in common."
                )
    return sorted(unique.values(), key=lambda run: run.split)


def extended(
    workspace: Workspace, study: Study, recipes: Sequence[str], cohorts: Sequence[str], plans_name: str
) -> Study:
    """Return a study with more recipes, those of them that are for its task, as planned, and with more cohorts."""
    plans = _plans_of(workspace, workspace.dataset_name(study.dataset), plans_name)
    named = study.recipes or {name: {} for name in plans.recipes}
    new = [name for name in recipes if name not in named and plans.finetuning is not None]
    more: dict[str, dict[str, str]] = {name: {} for name in new if fits(name, plans)}
    return study.evolve(
        recipes=named | more if recipes else study.recipes, cohorts=tuple(dict.fromkeys((*study.cohorts, *cohorts)))
    )


def fitting_recipes(workspace: Workspace, dataset: str, names: Sequence[str], plans_name: str) -> list[str]:
    """Return those recipes that are for a dataset's task. Raises UsageError if none is."""
    plans = _plans_of(workspace, dataset, plans_name)
    found = [name for name in names if plans.finetuning is not None and fits(name, plans)]
    if names and not found:
        raise UsageError(f"None of {', '.join(names)} is a recipe for {plans.task}, as {dataset} needs it.")
    return found


def _plans_of(workspace: Workspace, dataset: str, plans_name: str) -> Plans:
    path = workspace.prepared(dataset) / plans_file(plans_name)
    return Plans.load(workspace.need(path, f"fmseg plan_and_preprocess -d {dataset_id(dataset)}"))


def need_current(runs: Iterable[BenchmarkRun], *, fresh: bool) -> None:
    """Raise UsageError if some runs were made under other plans or numbers, on other cases or labels, or weights.

    fresh: what they came to is forgotten instead.
    """
    stale = [run for run in runs if run.is_stale]
    if fresh:
        for run in stale:
            for path in run.folder.path.glob(f"**/{RESULT}"):
                path.unlink()
    elif stale:
        raise UsageError(
            f"{len(stale)} runs were trained under other plans or numbers, on other cases or labels, or from other "
            f"weights than now, such as {stale[0].folder.path}. Train those anew, and no others, with: --fresh"
        )


def tell_old_tests(runs: Iterable[BenchmarkRun]) -> None:
    """Log which tests count for nothing, since they were done on other images or labels than there are now."""
    old: dict[str, list[BenchmarkRun]] = {}
    for run in runs:
        for name in (run.dataset, *run.cohorts):
            there = _noted(run, name)
            if there is not None and not _is_current(run, there) and not run.is_stale:
                why = "was changed since" if there.test_digest else "may have been changed since (it was not noted)"
                old.setdefault(f"What {name} is tested with {why}", []).append(run)
    for reason, those in old.items():
        logger.info(
            "%s: %d tests are done again, without any training, and stand in no table until then, such as that of %s.",
            *(reason, len(those), those[0].folder.path),
        )


def is_done(run: BenchmarkRun) -> bool:
    """Return whether a run is trained and tested, on all of its cohorts too, as these are now."""
    return all(_current(run, name) is not None for name in (run.dataset, *run.cohorts))


def scores_of(runs: Iterable[BenchmarkRun]) -> list[BenchmarkScore]:
    """Return what is known so far, in the order of the runs; tests on labels or images of before are left out."""
    found = [_current(run, name) for run in runs for name in (run.dataset, *run.cohorts)]
    return [score for score in found if score is not None]


def _current(run: BenchmarkRun, name: str) -> BenchmarkScore | None:
    """Return what a run came to on a dataset as it is now; None if it has not been tested on that."""
    there = _noted(run, name)
    return there if there is not None and _is_current(run, there) else None


def _is_current(run: BenchmarkRun, score: BenchmarkScore) -> bool:
    return score.test_digest == run.setting.tests.get(score.tested_on, "")


def _noted(run: BenchmarkRun, name: str) -> BenchmarkScore | None:
    path = _place(run, name) / RESULT
    return BenchmarkScore.load(path) if path.exists() else None


def score_run(workspace: Workspace, run: BenchmarkRun, seconds: float) -> list[BenchmarkScore]:
    """Test a trained run where that is missing, note what it came to, and remove what only its training needed.

    seconds: that the training took. Raises Busy if another process is at it.
    """
    logged = [json.loads(line).get("seconds", 0.0) for line in read_lines(run.folder.timing)]
    seconds = max(seconds, sum(logged))
    config = RunConfig.load(run.folder.path / "run.json")
    found = []
    with locked(run.folder.path, "this run"):
        for name in (run.dataset, *run.cohorts):
            place = _place(run, name)
            score = _current(run, name)
            if score is None:
                is_own = name == run.dataset and run.test != OFFICIAL
                tested = _own_test(run, config) if is_own else score_elsewhere(workspace, run.folder.path, name, place)
                score = _score(run, config, name, tested, seconds)
                score.save(place / RESULT)
            if not _is_current(run, score):
                logger.warning("%s was changed since this command began. Type it again to have all tests alike.", name)
            found.append(score)
        _tidy(run)
    return found


def run_times(workspace: Workspace, runs: Sequence[BenchmarkRun]) -> list[float]:
    """Return how long each run will take, in seconds: by rule of thumb, corrected by those that any benchmark has done.

    A rule that was wrong by a factor for one recipe is corrected by it; for a recipe that nobody has run here, by
    that of the others.
    """
    ratios: dict[str, list[float]] = {}
    for path in sorted(workspace.benchmarks().glob(f"runs/*/*/*/*/*/{RESULT}")):
        score = BenchmarkScore.load(path)
        if score.tested_on == score.dataset:
            ratios.setdefault(score.recipe, []).append(score.seconds / max(score.predicted_seconds, 1e-3))
    overall = median([ratio for found in ratios.values() for ratio in found]) if ratios else 1.0
    factor = {recipe: median(found) for recipe, found in ratios.items()}
    return [run.predicted_seconds * factor.get(run.recipe, overall) for run in runs]


def tables_of(runs: Sequence[BenchmarkRun]) -> BenchmarkTable:
    """Return Table 1 of what is known so far."""
    expected: dict[tuple[str, str], int] = {}
    for run in runs:
        key = (run.dataset, run.regime.name)
        expected[key] = max(expected.get(key, 0), run.split + 1)
    return summarise(scores_of(runs), expected, {run.dataset: run.setting.fingerprint for run in runs})


def write_tables(workspace: Workspace, protocol: Protocol, runs: Sequence[BenchmarkRun]) -> Path:
    """Write all tables and the figure of what is known so far; return their folder."""
    folder, scores = workspace.benchmarks() / protocol.name, scores_of(runs)
    write_json(folder / "protocol.json", protocol.model_dump(mode="json"))
    if not scores:
        for name in TABLES:  # of scores that count no more
            (folder / name).unlink(missing_ok=True)
    else:
        table = tables_of(runs)
        for ending, text in (("txt", table_text(table)), ("csv", table_csv(table)), ("tex", table_latex(table))):
            write_bytes(folder / f"table1.{ending}", text.encode())
        lines = "".join(json.dumps(score.model_dump(mode="json")) + "\n" for score in scores)
        write_bytes(folder / "scores.jsonl", lines.encode())
        draw_label_curves(scores, folder / "figure1b.png", folder / "figure1b.csv")
    return folder


def _place(run: BenchmarkRun, name: str) -> Path:
    """Return where what a run came to on a dataset lies."""
    return run.folder.path if name == run.dataset else run.folder.path / f"cohort_{name}"


def _own_test(run: BenchmarkRun, config: RunConfig) -> Tested:
    """Return the scores of the validation cases, which the training has predicted as ``predict`` would."""
    kind: type[Scores] | type[ClassificationScores]
    kind = Scores if config.plans.task == "segmentation" else ClassificationScores
    scores = kind.load(run.folder.validation / "scores.json")
    values = json.loads((run.folder.path / "finished.json").read_bytes())
    return Tested(scores, values.get("seen_in_pretraining"), 0)


def _score(run: BenchmarkRun, config: RunConfig, name: str, tested: Tested, seconds: float) -> BenchmarkScore:
    measure, value = tested.scores.headline
    patients = run.setting.patients
    learners = {patients[case] for case in config.cases.train}
    testers = {case.patient for case in tested.scores.cases}
    if name == run.dataset and learners & testers:
        raise BadData(f"{run.folder.path}: patient '{min(learners & testers)}' was trained and tested on.")
    return BenchmarkScore(
        dataset=run.dataset,
        tested_on=name,
        test=run.test,
        regime=run.regime.name,
        split=run.split,
        recipe=run.recipe,
        start=run.start,
        takes_foundation=run.takes_foundation,
        settings=run.settings,
        measure=measure,
        score=value,
        measures=_measures(tested.scores),
        num_train_cases=len(config.cases.train),
        num_train_patients=len(learners),
        num_test_cases=len(tested.scores.cases),
        num_test_patients=len(testers),
        seen_in_pretraining=tested.seen_in_pretraining,
        left_out=tested.left_out,
        test_digest=tested.digest,
        seconds=seconds,
        predicted_seconds=run.predicted_seconds,
    )


def _measures(scores: Scores | ClassificationScores) -> dict[str, float]:
    """Return every figure of the set by name."""
    if isinstance(scores, Scores):
        found = {
            f"{name} {measure}": value.mean for name, each in scores.mean.items() for measure, value in each.items()
        }
        return {
            "dice": scores.foreground_dice.mean,
            "pooled_dice": scores.pooled_foreground_dice,
            "pooled_dice_with_background": scores.pooled_dice_with_background,
        } | found
    means = {name: getattr(scores, name) for name in ("macro_f1", "balanced_accuracy", "accuracy", "auroc", "auprc")}
    known = {name: value.mean for name, value in means.items() if value is not None}
    per_class = {f"{name} f1": each.f1 for name, each in scores.per_class.items() if each.f1 is not None}
    return known | {"calibration_error": scores.calibration_error} | per_class


def _tidy(run: BenchmarkRun) -> None:
    """Remove checkpoints and single predictions: hundreds of runs would fill a disk with them."""
    shutil.rmtree(run.folder.checkpoints, ignore_errors=True)
    (run.folder.path / "model_best.safetensors").unlink(missing_ok=True)
    for path in run.folder.validation.glob(f"*{ENDING}"):
        path.unlink()
