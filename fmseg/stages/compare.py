"""Compare two recipes of a dataset on their out-of-fold predictions, or two folders that were evaluated."""

from pathlib import Path
from typing import Any

from fmseg.errors import BadData, NotReady
from fmseg.files import read_json
from fmseg.inference.comparison import AnyScores, Comparison, compare
from fmseg.inference.trained import trained_recipes
from fmseg.records.scores import ClassificationScores, Scores
from fmseg.registry import unknown
from fmseg.workspace import Workspace

SCORES = "scores.json"


def compare_runs(workspace: Workspace, name: str, first: str, second: str) -> Comparison:
    """Return how two runs differ. first, second: recipes of the dataset ``name``, or folders with a scores.json.

    Raises NotReady if one has not been trained or scored, BadData if they were scored on different cases.
    """
    scores = [_scores(workspace, name, each) for each in (first, second)]
    try:
        return compare(*scores)
    except BadData as error:
        raise BadData(f"{first} and {second}: {error}.") from error


def _scores(workspace: Workspace, name: str, what: str) -> AnyScores:
    """Return the scores of a recipe's finished folds together, or of a folder."""
    if (Path(what) / SCORES).exists():
        return _load(Path(what) / SCORES)
    runs = {path.name: path for path in trained_recipes(workspace.results_of(name))}
    short = {path.split("__")[0]: path for path in runs}
    folder = runs.get(what) or runs.get(short.get(what, ""))
    if folder is None:
        raise NotReady(
            f"{unknown(f'trained recipe of {name}', what, short)} A folder with a {SCORES} will do, too: "
            "'fmseg evaluate' writes one."
        )
    paths = sorted(folder.glob(f"fold_*/validation/{SCORES}"))
    found = [_load(path) for path in paths if (path.parents[1] / "finished.json").exists()]
    if not found:
        raise NotReady(f"{folder}: no fold of it has been scored. Train one with: fmseg train {name} fold0 -r {what}")
    # a case that several folds validate counts once
    cases: dict[str, Any] = {}
    for scores in found:
        for case in scores.cases:
            cases.setdefault(case.case, case.model_dump(mode="json"))
    return found[0].evolve(cases=list(cases.values()))


def _load(path: Path) -> AnyScores:
    kind = ClassificationScores if "macro_f1" in read_json(path) else Scores
    return kind.load(path)
