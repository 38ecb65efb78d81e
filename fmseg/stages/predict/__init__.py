"""Predict a folder of images with what ``find_best`` chose.

Here is what all tasks share: which models, which files, what was done before. ``segmentation.py`` writes label maps
and report.csv, ``classification.py``, beside it, predictions.csv; both are listed in predict.json.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fmseg.console import track
from fmseg.errors import UsageError
from fmseg.files import read_json, remove_strays, sha256_file, write_json
from fmseg.inference.bundles import bundled_exposure, opened
from fmseg.inference.cases import Failure
from fmseg.inference.choice import load_choice
from fmseg.inference.exposure import Exposure, exposure_of, tell
from fmseg.inference.inputs import Inputs, find_inputs
from fmseg.inference.members import WEIGHTS, Member, outputs_of
from fmseg.inference.prediction_table import CARD
from fmseg.inference.trained import Chosen, chosen_runs, trained_results
from fmseg.records.bundle import MANIFEST
from fmseg.records.dataset import CaseFiles
from fmseg.records.run import Provenance, RunConfig
from fmseg.records.seen import Seen
from fmseg.stages.predict.classification import ClassWriter
from fmseg.stages.predict.segmentation import LabelMapWriter
from fmseg.stages.predict.writer import Writer
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

#: task -> what writes its predictions
WRITERS: dict[str, type[Writer]] = {"segmentation": LabelMapWriter, "classification": ClassWriter}


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a folder of images."""

    num_predicted: int
    #: predictions of an earlier run that were kept
    num_existing: int
    #: (file name, why it was skipped)
    failed: tuple[tuple[str, str], ...]
    #: what the models had met before, of all that is predicted
    seen: Seen
    #: how many of all that is predicted are unlike what the models were trained on, by their notes in the table
    num_unlike: int
    table: Path

    @property
    def exit_code(self) -> int:
        """5 if something was skipped, else 0."""
        return 5 if self.failed else 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self) | {
            "table": str(self.table),
            "seen": self.seen.model_dump(mode="json"),
            "exit_code": self.exit_code,
        }


def predict(
    workspace: Workspace,
    input_folder: Path,
    output_folder: Path,
    *,
    dataset: str | None = None,
    model: Path | None = None,
    overlays: bool = False,
    mirror: bool = True,
    overwrite: bool = False,
    plugins: Sequence[str] = (),
) -> Report:
    """Predict each case of ``input_folder``; label maps on its own grid and in its own format.

    dataset: number, name or part of it; not needed where only one is trained. model: a .fmseg bundle instead, which
    may import ``plugins`` and no others. Files that cannot be read are
    named in the report, the others done; what is there already from the same models is kept. Raises UsageError
    if the output folder is the input folder or holds what these models did not make.
    """
    if model is not None and dataset is not None:
        raise UsageError(f"Whose models: those of {model} (-m) or of {dataset} (-d)? Type one of them.")
    with opened(model, plugins) if model else nullcontext(trained_results(workspace, dataset)) as results:
        return _predict(
            workspace, results, input_folder, output_folder, overlays=overlays, mirror=mirror, overwrite=overwrite
        )


def _predict(
    workspace: Workspace,
    results: Path,
    input_folder: Path,
    output_folder: Path,
    *,
    overlays: bool,
    mirror: bool,
    overwrite: bool,
) -> Report:
    chosen = chosen_runs(results)
    kind = WRITERS[RunConfig.load(chosen.runs[0][0] / "run.json").plans.task]
    inputs = find_inputs(input_folder, kind.target)
    logger.info("%s: %s", results.name, chosen.because)
    members = load_choice(results).members
    exposure = _exposure(workspace, results, members)
    writer = kind(members, chosen, output_folder, exposure, mirror=mirror, overlays=overlays)
    _check_output(inputs, input_folder, output_folder, writer)
    card = _card(results, chosen, members[0].config.plans.digest(), writer)
    told = {"labels": outputs_of(members[0].config).model_dump(mode="json")}
    is_resumed = _claim(output_folder, inputs, card, told, writer, overwrite=overwrite)
    table = writer.table
    if is_resumed:
        table.resume()
    else:
        table.tidy()
    waiting = [case for case in inputs.cases if not (is_resumed and writer.is_done(case))]
    failed = list(inputs.refused)
    for file, problem in failed:
        logger.warning("skipped %s: %s", file, problem)
        table.add(writer.skipped(CaseFiles(file, (input_folder / file,), None), problem))
    for answer in track(writer.answers(waiting), "predict", len(waiting)):
        if isinstance(answer, Failure):
            failed.append((answer.files.images[0].name, answer.problem))
            logger.warning("skipped %s: %s", answer.files.images[0].name, answer.problem)
            files, cells = answer.files, writer.skipped(answer.files, answer.problem)
        else:
            files, cells = answer
        table.add([inputs.row_name(files), *cells[1:]])
    table.tidy()
    seen = table.seen()
    tell(seen, exposure)
    unlike = table.unlike()
    _warn_of(unlike, seen.num_cases, table.path)
    _write_card(output_folder, card, told | {"seen": seen.model_dump(mode="json")})
    num_predicted = len(waiting) + len(inputs.refused) - len(failed)
    return Report(num_predicted, len(inputs.cases) - len(waiting), tuple(failed), seen, len(unlike), table.path)


def _warn_of(unlike: Mapping[str, str], num_predicted: int, table: Path) -> None:
    """Say once how many images are unlike what the models were trained on. unlike: case -> how."""
    if unlike:
        case, how = next(iter(unlike.items()))
        logger.warning(
            "%d of %d images %s unlike those that the models were trained on: see 'note' in %s. For example %s: %s",
            *(len(unlike), num_predicted, "is" if len(unlike) == 1 else "are", table.name, case, how),
        )


def _check_output(inputs: Inputs, input_folder: Path, output_folder: Path, writer: Writer) -> None:
    """Refuse to write where the inputs lie."""
    sources = {path.resolve() for case in inputs.cases for path in case.images}
    targets = {path.resolve() for path in writer.targets(inputs.cases)}
    if output_folder.resolve() == input_folder.resolve() or sources & targets:
        raise UsageError(f"{output_folder}: predictions must not lie among the images. Type another folder after -o.")


def _exposure(workspace: Workspace, results: Path, members: Sequence[Member]) -> Exposure:
    """Return what the networks have met: what came with them if they are from elsewhere."""
    if (results / MANIFEST).exists():
        return bundled_exposure(results)
    return exposure_of(workspace, [member.config for member in members])


def _card(results: Path, chosen: Chosen, digest: str, writer: Writer) -> dict[str, Any]:
    """Return what determines the predictions."""
    runs = [
        {"run": str(folder.relative_to(results)), "share": share, "weights_sha256": sha256_file(folder / WEIGHTS)}
        for folder, share in chosen.runs
    ]
    return {"dataset": results.name, "plans_digest": digest, "runs": runs} | writer.card()


def _claim(
    folder: Path, inputs: Inputs, card: dict[str, Any], told: dict[str, Any], writer: Writer, *, overwrite: bool
) -> bool:
    """Write predict.json; return whether there are predictions to go on from, not with ``overwrite``.

    Raises UsageError if there are files of the same names that other models, or people, have made.
    """
    path = folder / CARD
    for place in (folder, *(each for each in folder.glob("*") if each.is_dir())):
        remove_strays(place)
    there = sorted(target.name for target in writer.targets(inputs.cases) if os.path.lexists(target))
    if there and not overwrite:
        before = read_json(path) if path.exists() else {}
        if any(before.get(key) != value for key, value in card.items()):
            whose = "other models or settings" if before else "something else than fmseg"
            raise UsageError(
                f"{folder}: {there[0]} is there already, made by {whose}. "
                "Type another folder after -o, or --overwrite to make it anew."
            )
    _write_card(folder, card, told)
    return bool(there) and not overwrite


def _write_card(folder: Path, card: dict[str, Any], told: dict[str, Any]) -> None:
    """Write predict.json; what is ``told`` determines nothing."""
    write_json(folder / CARD, card | told | {"provenance": Provenance.here().model_dump(mode="json")})
