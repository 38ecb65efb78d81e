"""What is here: datasets and how far they are, foundation checkpoints, registered parts."""

from pathlib import Path

from fmseg.errors import UnknownName
from fmseg.files import read_json
from fmseg.records.foundation import find_foundations
from fmseg.records.recipe import recipes
from fmseg.registry import unknown
from fmseg.workspace import Workspace

Table = tuple[str, tuple[str, ...], list[tuple[object, ...]]]

KINDS = ("datasets", "foundations", "recipes", "decoders", "heads", "losses", "readers", "planners")


def listing(workspace: Workspace, what: str) -> Table:
    """Return title, columns and rows of one kind of thing. Raises UnknownName for an unknown kind."""
    if what == "datasets":
        return "Datasets", ("dataset", "state", "next"), [_dataset(workspace, n) for n in workspace.dataset_names()]
    if what == "foundations":
        columns = ("name", "modality", "architecture", "images", "samples seen", "weights")
        rows: list[tuple[object, ...]] = [
            (c.name, c.modality, c.architecture.name, c.num_images, c.samples_seen, c.weights_sha256[:12])
            for _, c in find_foundations(workspace.foundations())
        ]
        return "Foundation checkpoints", columns, rows
    if what not in KINDS:
        raise UnknownName(unknown("list", what, KINDS))
    return what.capitalize(), ("name",), [(name,) for name in _registered(what)]


def _dataset(workspace: Workspace, name: str) -> tuple[str, str, str]:
    """Return a dataset, how far it is, and the next command."""
    number = name.split("_")[0].removeprefix("Dataset")
    prepared, results = workspace.prepared(name), workspace.results_of(name)
    if (results / "selection.json").exists():
        return name, "models chosen", "fmseg predict -i in -o out"
    if any(results.glob("*/fold_*/finished.json")):
        return name, "some folds trained", f"fmseg train {number}"
    if any(prepared.glob("*_images/store.json")):
        if not _has_labels(prepared):
            return name, "prepared", "fmseg pretrain"
        return name, "prepared", f"fmseg pretrain; fmseg train {number}"
    return name, "raw", f"fmseg plan_and_preprocess -d {number}"


def _has_labels(prepared: Path) -> bool:
    """Return whether there is something to train on; read without the rest of the plans, which may be old."""
    return any(read_json(path).get("task") != "unlabelled" for path in prepared.glob("plans.json"))


def _registered(what: str) -> list[str]:
    if what == "recipes":
        return recipes.names()
    if what == "readers":
        from fmseg.imaging.readers import readers

        return readers.names()
    if what == "planners":
        from fmseg.planning.planner import planners

        return planners.names()
    if what == "losses":
        from fmseg.tasks.segmentation_losses import losses

        return losses.names()
    if what == "heads":
        from fmseg.networks.classifier import heads

        return heads.names()
    from fmseg.networks.decoders import decoders

    return decoders.names()
