"""Score predictions against labels: label maps in ``segmentation.py``, classes in ``classification.py``."""

from collections.abc import Callable
from pathlib import Path

from fmseg.errors import UsageError
from fmseg.inference.exposure import tell
from fmseg.records.dataset import Dataset
from fmseg.records.scores import ClassificationScores, Scores
from fmseg.stages.evaluate import classification, segmentation
from fmseg.workspace import Workspace

#: task -> what scores it, and where the labels of test images lie in a raw dataset
WAYS: dict[str, tuple[Callable[[Workspace, Dataset, Path, Path], Scores | ClassificationScores], str]] = {
    "segmentation": (segmentation.evaluate, "labelsTs"),
    "classification": (classification.evaluate, "labelsTs.csv"),
}


def evaluate(
    workspace: Workspace, name: str, predictions: Path, labels: Path | None = None
) -> Scores | ClassificationScores:
    """Score predictions; the dataset ``name`` says what their values mean and whose the cases are.

    labels: by default those of the dataset's test images. Writes scores.json and summary.json beside the predictions.
    Raises BadData listing what is labelled and not predicted.
    """
    dataset = Dataset.load(workspace.need(workspace.raw_dataset(name), f"fmseg convert, or put {name} there"))
    if dataset.task not in WAYS:
        raise UsageError(f"{name} has no labels, so there is nothing to score it against.")
    if not predictions.exists():
        raise UsageError(f"{predictions}: there is no such folder. Type the one 'fmseg predict' wrote to after -i.")
    score, place = WAYS[dataset.task]
    if labels is None and not (dataset.folder / place).exists():
        raise UsageError(f"{name} has no test images with labels ({place}). Type where the labels are after -l.")
    scores = score(workspace, dataset, predictions, labels or dataset.folder / place)
    if scores.seen:
        tell(scores.seen)
    return scores
