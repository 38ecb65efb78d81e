"""Compare two recipes of a dataset on their out-of-fold predictions, or two folders that were evaluated."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmseg.errors import BadData, NotReady
from fmseg.files import read_json
from fmseg.inference.comparison import AnyScores, Comparison, compare
from fmseg.inference.trained import trained_recipes
from fmseg.records.plans import Fold
from fmseg.records.run import RunConfig
from fmseg.records.scores import ClassificationScores, Scores
from fmseg.registry import unknown
from fmseg.workspace import Workspace

SCORES = "scores.json"


def compare_runs(workspace: Workspace, name: str, first: str, second: str) -> Comparison:
    """Return how two runs differ. first, second: recipes of the dataset ``name``, or folders with a scores.json.

    Raises NotReady if one has not been trained or scored, BadData if they were scored on different cases or labels.
    """
    found = [_find_scores(workspace, name, each) for each in (first, second)]
    labels = [_labels_of(paths) for paths in found]
    if any(labels[0][cases] != labels[1][cases] for cases in set(labels[0]) & set(labels[1])):
        raise BadData(
            f"{first} and {second}: their cases had other labels when one was trained than when the other was. Train "
            "the older one again with --fresh, or score both on the same labels: fmseg evaluate"
        )
    scores = [_together(paths) for paths in found]
    try:
        return compare(*scores)
    except BadData as error:
        raise BadData(f"{first} and {second}: {error}.") from error


def _find_scores(workspace: Workspace, name: str, what: str) -> list[Path]:
    """Return where the scores of a recipe's finished folds lie, or those of a folder."""
    if (Path(what) / SCORES).exists():
        return [Path(what) / SCORES]
    runs = {path.name: path for path in trained_recipes(workspace.results_of(name))}
    short = {path.split("__")[0]: path for path in runs}
    folder = runs.get(what) or runs.get(short.get(what, ""))
    if folder is None:
        raise NotReady(
            f"{unknown(f'trained recipe of {name}', what, short)} A folder with a {SCORES} will do, too: "
            "'fmseg evaluate' writes one."
        )
    paths = sorted(folder.glob(f"fold_*/validation/{SCORES}"))
    found = [path for path in paths if (path.parents[1] / "finished.json").exists()]
    if not found:
        raise NotReady(f"{folder}: no fold of it has been scored. Train one with: fmseg train {name} fold0 -r {what}")
    return found


def _labels_of(paths: Sequence[Path]) -> dict[Fold, str]:
    """Return the cases of each run, with the digest of their labels if it noted one."""
    runs = [path.resolve().parents[1] / "run.json" for path in paths]
    configs = [RunConfig.load(path) for path in runs if path.exists()]
    return {config.cases: config.labels for config in configs if config.labels}


def _together(paths: Sequence[Path]) -> AnyScores:
    found = [_load(path) for path in paths]
    # a case that several folds validate counts once
    cases: dict[str, Any] = {}
    for scores in found:
        for case in scores.cases:
            cases.setdefault(case.case, case.model_dump(mode="json"))
    return found[0].evolve(cases=list(cases.values()))


def _load(path: Path) -> AnyScores:
    kind = ClassificationScores if "macro_f1" in read_json(path) else Scores
    return kind.load(path)
