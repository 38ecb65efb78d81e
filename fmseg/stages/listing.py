"""What is here: datasets and how far they are, foundation checkpoints, registered parts."""

from dataclasses import dataclass
from pathlib import Path

from fmseg.console import duration
from fmseg.errors import UnknownName
from fmseg.files import read_json
from fmseg.records.bundle import MANIFEST
from fmseg.records.foundation import CARD, Foundation, find_foundations
from fmseg.records.recipe import recipes
from fmseg.records.selection import Selection
from fmseg.registry import unknown
from fmseg.workspace import Workspace, dataset_id

#: states of a dataset
CHOSEN, IMPORTED, ONLY_MODELS = "models chosen", "models imported", "models, without their data"
UNPREPARED = ("raw", "being measured", "measured", "planned", "being prepared")

Table = tuple[str, tuple[str, ...], list[tuple[object, ...]]]

KINDS = (
    *(
        "datasets",
        "models",
        "foundations",
        "recipes",
        "networks",
        "decoders",
        "heads",
        "losses",
        "readers",
        "planners",
        "sources",
    ),
)


def listing(workspace: Workspace, what: str) -> Table:
    """Return title, columns and rows of one kind of thing. Raises UnknownName for an unknown kind."""
    if what == "datasets":
        datasets = ("dataset", "modality", "images", "state", "next")
        return "Datasets", datasets, [_dataset(workspace, name) for name in _names(workspace)]
    if what == "models":
        models = ("dataset", "from", "task", "networks", "measure", "score", "interval")
        return "Models", models, [_models(workspace, name) for name in workspace.trained_names()]
    if what == "foundations":
        columns = ("name", "modality", "network", "images", "samples seen", "took", "when", "probes", "weights")
        cards = [card for _, card in find_foundations(workspace.foundations())]
        return "Foundation checkpoints", columns, [_foundation(card) for card in cards]
    if what == "sources":
        from fmseg.networks.sources import sources

        found = [(name, sources[name]) for name in sources]
        rows: list[tuple[object, ...]] = [(name, each.title, each.licence, each.where) for name, each in found]
        return "Sources of weights", ("name", "what", "licence", "where"), rows
    if what not in KINDS:
        raise UnknownName(unknown("list", what, KINDS))
    return what.capitalize(), ("name",), [(name,) for name in _registered(what)]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where someone stands in a workspace."""

    where: str
    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]
    next_command: str
    #: one sentence
    why: str


def standing(workspace: Workspace) -> Standing:
    """Return what is here, and the one command that most likely comes next."""
    _, columns, rows = listing(workspace, "datasets")
    checkpoints = sorted(path.parent.name for path in workspace.foundations().glob(f"*/*/{CARD}"))
    made = f"foundation checkpoints: {', '.join(checkpoints)}" if checkpoints else "no foundation checkpoint yet"
    where = f"{workspace.raw.parent}: {len(rows)} dataset{'' if len(rows) == 1 else 's'}, {made}."
    command, why = _next(workspace, [str(row[0]) for row in rows], bool(checkpoints))
    return Standing(where, columns, rows, command, why)


def _next(workspace: Workspace, names: list[str], has_checkpoint: bool) -> tuple[str, str]:
    """Return the next command, and why: everything is prepared first, then one pretraining serves all."""
    if not names:
        return (
            "fmseg demo",
            f"Nothing is here yet: see the whole job on made images, or put a dataset into {workspace.raw}.",
        )
    states = {name: _state(workspace, name) for name in names}
    for name, (state, command) in states.items():
        if state in UNPREPARED:
            return command, f"{name} is {state}."
    without_data = [name for name in names if states[name][0] in (IMPORTED, ONLY_MODELS)]
    if len(without_data) == len(names):
        return (
            f"fmseg predict -i in -o out{_whose(workspace, names[0])}",
            f"{names[0]} can predict; there are no data here.",
        )
    labelled = [name for name in names if _has_labels(workspace.prepared(name))]
    if not has_checkpoint:
        return "fmseg pretrain", "All is prepared, and nothing is learned from the images themselves yet."
    for name in labelled:
        if states[name][0] != CHOSEN:
            return f"fmseg train {dataset_id(name)}", f"{name} is not trained to its end yet."
    if not labelled:
        return "fmseg convert --help", "A checkpoint is there; a labelled dataset is what it is for."
    number = dataset_id(labelled[0])
    if (workspace.results_of(labelled[0]) / "report.html").exists():
        return (
            f"fmseg predict -i in -o out{_whose(workspace, labelled[0])}",
            "All is trained: predict new images, or look at cases with fmseg view.",
        )
    return f"fmseg report {number}", "All is trained: read what came out."


def _names(workspace: Workspace) -> list[str]:
    """Return the names of datasets, those of which there are only models among them."""
    return sorted({*workspace.dataset_names(), *workspace.trained_names()}, key=lambda name: (dataset_id(name), name))


def _models(workspace: Workspace, name: str) -> tuple[object, ...]:
    """Return the models of a dataset: where they are from, what predicts, and how good it is out of fold."""
    results = workspace.results_of(name)
    runs = sorted(path.parent for path in results.glob("*__*/fold_*/finished.json"))
    task = read_json(runs[0] / "run.json")["plans"]["task"]
    source = "imported" if (results / MANIFEST).exists() else "trained here"
    if not (results / "selection.json").exists():
        return name, source, task, f"{len(runs)}, none chosen", None, None, None
    chosen = Selection.load(results / "selection.json")
    networks = " + ".join(f"{len(each.folds)} {each.runs.partition('__')[0]}" for each in chosen.members)
    score = chosen.score
    return name, source, task, networks, chosen.measure, round(score.mean, 4), f"{score.low:.3f} to {score.high:.3f}"


def _foundation(card: Foundation) -> tuple[object, ...]:
    """Return a checkpoint's row; a dash for what older ones have not noted."""
    probes = ", ".join(
        f"d{dataset_id(probe.dataset)} {probe.score:.3f} (random {probe.random:.3f})" for probe in card.probes
    )
    return (
        *(card.name, card.modality, f"{card.architecture.name}/{card.architecture.patch_size}"),
        *(card.num_images, card.total_samples, duration(card.seconds) if card.seconds else "-"),
        *(card.finished[:10] or "-", probes or "-", card.weights_sha256[:12]),
    )


def _dataset(workspace: Workspace, name: str) -> tuple[object, ...]:
    """Return a dataset, what was measured of it, how far it is, and the next command."""
    path = workspace.prepared(name) / "dataset_fingerprint.json"
    measured = read_json(path) if path.exists() else {}
    manifest = workspace.results_of(name) / MANIFEST
    modality = measured.get("modality") or (read_json(manifest)["modality"] if manifest.exists() else None)
    return name, modality, measured.get("num_images"), *_state(workspace, name)


def _state(workspace: Workspace, name: str) -> tuple[str, str]:
    number = name.split("_")[0].removeprefix("Dataset")
    prepared, results = workspace.prepared(name), workspace.results_of(name)
    if name not in workspace.dataset_names():
        state = IMPORTED if (results / MANIFEST).exists() else ONLY_MODELS
        return state, f"fmseg predict -i in -o out -d {number}"
    if (results / "selection.json").exists():
        return CHOSEN, f"fmseg predict -i in -o out{_whose(workspace, name)}"
    if any(results.glob("*/fold_*/finished.json")):
        return "some folds trained", f"fmseg train {number}"
    if any(prepared.glob("*_images/store.json")):
        if not _has_labels(prepared):
            return "prepared", "fmseg pretrain"
        return "prepared", f"fmseg pretrain; fmseg train {number}"
    states = {
        "*_images/journal.jsonl": "being prepared",
        "plans.json": "planned",
        "dataset_fingerprint.json": "measured",
        "cases.jsonl": "being measured",
    }
    state = next((state for file, state in states.items() if any(prepared.glob(file))), "raw")
    return state, f"fmseg plan_and_preprocess -d {number}"


def _whose(workspace: Workspace, name: str) -> str:
    """Return the option that names a dataset's models, where there are those of others too."""
    return f" -d {dataset_id(name)}" if len(workspace.trained_names()) > 1 else ""


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
    if what == "networks":
        from fmseg.networks.classifier import classifiers
        from fmseg.networks.segmenter import segmenters

        return sorted({*segmenters.names(), *classifiers.names()})
    from fmseg.networks.decoders import decoders

    return decoders.names()
