"""Predict a folder of images with what ``find_best`` chose: label maps, report.csv, predict.json, overlays."""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fmseg.console import track
from fmseg.errors import NotReady, UsageError
from fmseg.files import read_json, sha256_file, write_bytes, write_json
from fmseg.imaging.readers import write_label
from fmseg.inference.inputs import Inputs, find_inputs, output_name
from fmseg.inference.members import WEIGHTS, find_device, load_members
from fmseg.inference.prediction_table import PredictionTable, Row
from fmseg.inference.predictor import Failure, Prediction, Predictor
from fmseg.inference.trained import Chosen, chosen_runs, trained_recipes
from fmseg.records.dataset import CaseFiles
from fmseg.records.run import Provenance
from fmseg.workspace import DATASET_NAME, Workspace

logger = logging.getLogger(__name__)

TABLE, CARD, OVERLAYS = "report.csv", "predict.json", "overlays"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a folder of images."""

    num_predicted: int
    #: predictions of an earlier run that were kept
    num_existing: int
    #: (file name, why it was skipped)
    failed: tuple[tuple[str, str], ...]
    table: Path

    @property
    def exit_code(self) -> int:
        """5 if something was skipped, else 0."""
        return 5 if self.failed else 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {"table": str(self.table), "exit_code": self.exit_code}


def predict(
    workspace: Workspace,
    input_folder: Path,
    output_folder: Path,
    *,
    dataset: str | None = None,
    overlays: bool = False,
    mirror: bool = True,
    overwrite: bool = False,
) -> Report:
    """Predict each case of ``input_folder`` on its own grid and in its own format.

    dataset: number, name or part of it; not needed where only one is trained. Files that cannot be read are
    named in the report, the others done; what is there already from the same models is kept. Raises UsageError
    if the output folder is the input folder or holds what these models did not make.
    """
    results = _trained_results(workspace, dataset)
    inputs = find_inputs(input_folder)
    _check_output(inputs, input_folder, output_folder)
    chosen = chosen_runs(results)
    logger.info("%s: %s", results.name, chosen.because)
    predictor = _load(chosen, mirror=mirror)
    table = PredictionTable(output_folder / TABLE, predictor.scheme)
    existing = _claim(output_folder, inputs, _card(results, chosen, predictor), overwrite=overwrite)
    if existing:
        table.resume()
    else:
        table.tidy()
    kept = [case for case in inputs.cases if output_name(case) in existing & table.done]
    if overlays:
        kept = [case for case in kept if _overlay_path(output_folder, case).exists()]
    waiting = [case for case in inputs.cases if case not in kept]
    failed = list(inputs.refused)
    answers = predictor.predict_cases(waiting, lambda done: _write(done, predictor, output_folder, overlays=overlays))
    for answer in track(answers, "predict", len(waiting)):
        if isinstance(answer, Failure):
            failed.append((answer.files.images[0].name, answer.problem))
            logger.warning("skipped %s: %s", answer.files.images[0].name, answer.problem)
            table.add(Row(answer.files.name, "", None, None, (), f"skipped: {answer.problem}"))
        else:
            table.add(answer[1])
    table.tidy()
    num_predicted = len(waiting) + len(inputs.refused) - len(failed)
    return Report(num_predicted, len(kept), tuple(failed), table.path)


def _trained_results(workspace: Workspace, dataset: str | None) -> Path:
    """Return the results of the dataset asked for, or of the only one that has any."""
    if dataset is not None:
        # an imported model has results but no data, so names are looked up among the results
        there = replace(workspace, raw=workspace.results, preprocessed=workspace.results)
        return workspace.results_of(there.dataset_name(dataset))
    folders = sorted(workspace.results.glob("Dataset*")) if workspace.results.is_dir() else []
    trained = [path for path in folders if DATASET_NAME.fullmatch(path.name) and trained_recipes(path)]
    if not trained:
        raise NotReady(f"{workspace.results} holds no trained model yet. Train one with: fmseg train 501")
    if len(trained) > 1:
        names = ", ".join(path.name for path in trained)
        raise UsageError(f"Several datasets are trained ({names}). Say whose models predict, as in -d 501.")
    return trained[0]


def _check_output(inputs: Inputs, input_folder: Path, output_folder: Path) -> None:
    """Refuse to write where the inputs lie."""
    sources = {path.resolve() for case in inputs.cases for path in case.images}
    targets = {(output_folder / output_name(case)).resolve() for case in inputs.cases}
    if output_folder.resolve() == input_folder.resolve() or sources & targets:
        raise UsageError(f"{output_folder}: predictions must not lie among the images. Type another folder after -o.")


def _load(chosen: Chosen, *, mirror: bool) -> Predictor:
    members = load_members(chosen.runs, find_device())
    digests = {member.config.plans.digest() for member in members}
    if chosen.plans_digest is not None and digests != {chosen.plans_digest}:
        folder = chosen.runs[0][0].parents[1]
        raise NotReady(
            f"{folder}: models were trained again under another plan since find_best chose. "
            f"Choose anew with: fmseg find_best {folder.name}"
        )
    return Predictor(members, clean_up=chosen.clean_up, mirror=mirror)


def _card(results: Path, chosen: Chosen, predictor: Predictor) -> dict[str, Any]:
    """Return what determines the predictions."""
    runs = [
        {"run": str(folder.relative_to(results)), "share": share, "weights_sha256": sha256_file(folder / WEIGHTS)}
        for folder, share in chosen.runs
    ]
    clean_up = [rule.model_dump(mode="json") for rule in chosen.clean_up]
    digest = predictor.members[0].config.plans.digest()
    return {
        "dataset": results.name,
        "plans_digest": digest,
        "runs": runs,
        "clean_up": clean_up,
        "mirror": predictor.mirror,
    }


def _claim(folder: Path, inputs: Inputs, card: dict[str, Any], *, overwrite: bool) -> set[str]:
    """Write predict.json and return the predictions that are there already; none with ``overwrite``.

    Raises UsageError if there are files of the same names that other models, or people, have made.
    """
    path = folder / CARD
    there = {name for case in inputs.cases if (folder / (name := output_name(case))).exists()}
    if there and not overwrite:
        before = read_json(path) if path.exists() else {}
        if any(before.get(key) != value for key, value in card.items()):
            whose = "other models or settings" if before else "something else than fmseg"
            raise UsageError(
                f"{folder}: {sorted(there)[0]} is there already, made by {whose}. "
                "Type another folder after -o, or --overwrite to make it anew."
            )
    write_json(path, card | {"provenance": Provenance.here().model_dump(mode="json")})
    return set() if overwrite else there


def _write(done: Prediction, predictor: Predictor, folder: Path, *, overlays: bool) -> Row:
    """Write one prediction, and its overlay; return its line of the report."""
    name = output_name(done.files)
    write_label(done.labels, done.case.geometry, folder / name)
    if overlays:
        _write_overlay(done, _overlay_path(folder, done.files))
    shares = tuple(float(np.isin(done.labels, values).mean()) for values in predictor.scheme.values)
    notes = list(done.case.notes)
    if not done.labels.any():
        notes.append("nothing was found")
    return Row(done.files.name, name, done.confidence, done.disagreement, shares, "; ".join(notes))


def _overlay_path(folder: Path, case: CaseFiles) -> Path:
    return folder / OVERLAYS / f"{output_name(case)}.png"


def _write_overlay(done: Prediction, path: Path) -> None:
    """Draw the contours on the image; of a stack, on the slice with most foreground."""
    import cv2

    from fmseg.reporting.overlays import overlay

    z = int((done.labels > 0).sum(axis=(1, 2)).argmax())
    drawn = overlay(_picture(done.case.voxels[:, z]), done.labels[z])
    _, encoded = cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    write_bytes(path, encoded.tobytes())


def _picture(channels: np.ndarray) -> np.ndarray:
    """Turn (C, Y, X) of any type into uint8: (Y, X, 3) of RGB, else (Y, X) of the first channel."""
    shown = np.moveaxis(channels, 0, -1) if len(channels) == 3 else channels[0]
    if shown.dtype == np.uint8:
        return shown
    low, high = np.percentile(shown, (0.5, 99.5))
    return (np.clip((shown - low) / max(float(high - low), 1e-6), 0, 1) * 255).astype(np.uint8)
