"""Which labels to look at again: those that networks which have not learned from them doubt most.

After cross-validation each case was predicted by networks of other folds. Their probabilities are averaged as
``find_best`` chose, compared with the label, and the cases ranked. Writes review.csv and a sheet of the first ones.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmseg.console import track
from fmseg.errors import BadData, NotReady, UsageError
from fmseg.files import write_bytes
from fmseg.imaging.decode import decide, labels_from_probabilities, shown_classes, targets_from_classes
from fmseg.inference import out_of_fold_classes
from fmseg.inference.doubt import doubt_of_classes, doubt_of_map
from fmseg.inference.ensemble import dice_of_case, mean_dice, weighted_mean
from fmseg.inference.members import classes_of, scheme_of
from fmseg.inference.probabilities import ENDING, load_probabilities
from fmseg.inference.trained import chosen_runs
from fmseg.planning.patients import known_patients
from fmseg.records.dataset import Dataset
from fmseg.records.run import RunConfig
from fmseg.reporting.feature_pictures import to_grey
from fmseg.reporting.overlays import colour_of, contact_sheet, overlay
from fmseg.sampling.store import Store
from fmseg.workspace import Workspace, dataset_id

SHOWN = 24


@dataclass(frozen=True, slots=True)
class Doubt:
    """One case, and how much its label is doubted."""

    case: str
    patient: str
    doubt: float
    #: Dice with the label map, or the label
    label: str
    #: what is predicted; empty for label maps
    predicted: str
    #: the slice that is shown
    slice: int = 0


@dataclass(frozen=True, slots=True)
class Review:
    """All cases, the most doubtful first."""

    cases: tuple[Doubt, ...]
    columns: tuple[str, ...]
    table: Path
    sheet: Path


@dataclass(frozen=True, slots=True)
class _Trained:
    """A dataset with the runs that were chosen: case -> folders of validation, each with its share."""

    workspace: Workspace
    name: str
    config: RunConfig
    folders: Mapping[str, Sequence[tuple[Path, float]]]
    store: Store


def review(workspace: Workspace, name: str) -> Review:
    """Rank the cases of a trained dataset by how doubtful their labels are. Raises NotReady before it is trained."""
    trained = _open(workspace, name)
    is_maps = trained.config.plans.task == "segmentation"
    found = sorted(_maps(trained) if is_maps else _classes(trained), key=lambda each: (-each.doubt, each.case))
    columns = ("rank", "case", "patient", "doubt", *(("Dice",) if is_maps else ("label", "predicted")))
    folder = workspace.results_of(name) / "review"
    write_bytes(folder / "review.csv", _table(found, columns).encode())
    sheet = _sheet_of_maps(trained, found[:SHOWN]) if is_maps else _sheet_of_classes(trained, found[:SHOWN])
    write_bytes(folder / "review.png", sheet)
    return Review(tuple(found), columns, folder / "review.csv", folder / "review.png")


def _open(workspace: Workspace, name: str) -> _Trained:
    chosen = chosen_runs(workspace.results_of(name))
    folders: dict[str, list[tuple[Path, float]]] = {}
    configs = []
    for run, share in chosen.runs:
        config = RunConfig.load(run / "run.json")
        configs.append(config)
        for case in config.cases.val:
            folders.setdefault(case, []).append((run / "validation", share))
    if not folders:
        raise NotReady(
            f"{name} has no fold with predictions of cases that it was not trained on. "
            f"Train them with: fmseg train {dataset_id(name)}"
        )
    plans = configs[0].plans
    store = Store.of(workspace.prepared(name), plans)
    gone = [case for case in folders if case not in store.cases]
    if gone:
        raise BadData(f"{name}: '{gone[0]}' is no longer among the prepared cases ({len(gone)} in all). Train it anew.")
    return _Trained(workspace, name, configs[0], folders, store)


def _maps(trained: _Trained) -> Iterator[Doubt]:
    scheme = scheme_of(trained.config)
    patients = _patients(trained)
    for case in track(sorted(trained.folders), "compare", len(trained.folders)):
        probabilities, labels = _mean_map(trained, case), _label_map(trained, case)
        doubt, slices = doubt_of_map(probabilities, labels, scheme)
        dice = mean_dice(dice_of_case(labels_from_probabilities(probabilities, scheme), labels, scheme)[None])
        yield Doubt(case, patients[case], doubt, f"{dice:.4f}", "", int(slices.argmax()))


def _classes(trained: _Trained) -> Iterator[Doubt]:
    scheme, patients = classes_of(trained.config), _patients(trained)
    rows: dict[str, np.ndarray] = {}
    total: dict[str, float] = {}
    shares = {folder: share for found in trained.folders.values() for folder, share in found}
    for folder, share in shares.items():
        found = out_of_fold_classes.load_probabilities(folder / out_of_fold_classes.PROBABILITIES, scheme)
        for case, row in zip(found.cases, found.probabilities, strict=True):
            rows[case] = rows.get(case, 0.0) + share * row
            total[case] = total.get(case, 0.0) + share
    cases = sorted(rows)
    dataset = Dataset.load(trained.workspace.raw_dataset(trained.name))
    labels = dataset.classes_of_cases()
    targets = targets_from_classes(labels, cases, scheme, dataset.folder / "labelsTr.csv")
    probabilities = np.array([rows[case] / total[case] for case in cases])
    decided = decide(probabilities, scheme)
    doubts = doubt_of_classes(probabilities, targets, scheme)
    for case, doubt, row in zip(cases, doubts.tolist(), decided, strict=True):
        yield Doubt(case, patients[case], doubt, labels[case], ";".join(shown_classes(row, scheme)))


def _mean_map(trained: _Trained, case: str) -> np.ndarray:
    """Return (K, Z, h, w). Raises UsageError where predictions were removed."""
    found = trained.folders[case]
    missing = [folder for folder, _ in found if not (folder / f"{case}{ENDING}").exists()]
    if missing:
        raise UsageError(f"{missing[0]}: the prediction of '{case}' is gone. Train that fold again, with --fresh.")
    return weighted_mean(
        [load_probabilities(folder / f"{case}{ENDING}") for folder, _ in found], [share for _, share in found]
    )


def _label_map(trained: _Trained, case: str) -> np.ndarray:
    labels = [trained.store.label(index) for index in trained.store.cases[case]]
    return np.stack([label for label in labels if label is not None])


def _patients(trained: _Trained) -> Mapping[str, str]:
    dataset = Dataset.load(trained.workspace.raw_dataset(trained.name))
    return known_patients(trained.workspace, dataset, list(trained.folders))


def _table(found: Sequence[Doubt], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for rank, each in enumerate(found, start=1):
        cells = (rank, each.case, each.patient, f"{each.doubt:.4f}", each.label, each.predicted)
        writer.writerow(cells[: len(columns)])
    return text.getvalue()


def _sheet_of_maps(trained: _Trained, found: Sequence[Doubt]) -> bytes:
    scheme = scheme_of(trained.config)
    rows = []
    for rank, each in enumerate(found, start=1):
        image = to_grey(trained.store.image(trained.store.cases[each.case][each.slice]))
        label = _label_map(trained, each.case)[each.slice]
        predicted = labels_from_probabilities(_mean_map(trained, each.case), scheme)[each.slice]
        pictures = [image, overlay(image, label), overlay(image, predicted)]
        rows.append((f"{rank}. {each.case}: doubt {each.doubt:.2f}, Dice {float(each.label):.2f}", pictures))
    legend = {name: colour_of(value) for name, value in zip(scheme.names, scheme.painted, strict=True)}
    return contact_sheet(rows, ("image", "label", "prediction of other folds"), legend=legend)


def _sheet_of_classes(trained: _Trained, found: Sequence[Doubt]) -> bytes:
    """Return a sheet of pictures in rows, each with what it is labelled and what it is taken for."""
    rows = []
    for rank, each in enumerate(found, start=1):
        images = trained.store.cases[each.case]
        picture = to_grey(trained.store.image(images[len(images) // 2]))
        said = f"labelled {each.label}, taken for {each.predicted or 'none'}"
        rows.append((f"{rank}. {each.case}: {said} (doubt {each.doubt:.2f})", [picture]))
    return contact_sheet(rows, ("labels that networks of other folds doubt",), tile_px=256)
