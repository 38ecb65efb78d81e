"""Put trained models, or a foundation checkpoint, into a form that leaves the house.

A .fmseg bundle holds all that ``predict`` needs and nothing that tells of patients: no path, no name of a case, no
command line, no picture. Its bytes depend on the models alone.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmseg._version import __version__
from fmseg.archive import pack
from fmseg.errors import UsageError
from fmseg.files import read_json, sha256, sha256_file, to_json
from fmseg.inference.exposure import Exposure, exposure_of
from fmseg.inference.members import WEIGHTS
from fmseg.inference.trained import SELECTION, check_chosen, chosen_runs, trained_results
from fmseg.records import foundation as checkpoints
from fmseg.records.bundle import (
    ALLOWED,
    DECLARATION,
    MANIFEST,
    MODEL_CARD,
    PLANS,
    SEEN_IN_PRETRAINING,
    SEEN_IN_TRAINING,
    Bundle,
    Member,
    Origin,
    check_name,
)
from fmseg.records.foundation import find_foundations, named_foundation
from fmseg.records.plans import Fold
from fmseg.records.run import Provenance, RunConfig
from fmseg.records.selection import Selection
from fmseg.reporting.bundle_card import bundle_card
from fmseg.reporting.model_card import model_card
from fmseg.workspace import Workspace

#: of dataset.json; the others may hold paths, names of cases, or whatever its owner has written
PUBLIC_KEYS = ("channel_names", "labels", "regions_class_order", "file_ending", "task", "modality")
UNSTATED = "not stated; ask whoever made it"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: Path
    bundle: Bundle

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        num_bytes = sum(member.num_bytes for member in self.bundle.files.values())
        return {
            "path": str(self.path),
            "kind": self.bundle.kind,
            "name": self.bundle.name,
            "networks": sum(name.endswith(".safetensors") for name in self.bundle.files),
            "bytes": num_bytes,
            "licence": self.bundle.licence,
        }


def exported_name(workspace: Workspace, dataset: str | None) -> str:
    """Return the full name of the dataset whose models would be exported; raises as ``export_models``."""
    return trained_results(workspace, dataset).name


def export_models(
    workspace: Workspace, dataset: str | None, path: Path, *, licence: str | None = None, overwrite: bool = False
) -> Exported:
    """Write the models that predict a dataset into one file.

    dataset: as in ``predict``. licence: in words; None for that of the checkpoints that the models started from.
    Raises UsageError if the file is there and ``overwrite`` is not asked for.
    """
    _check_target(path, overwrite=overwrite)
    results = trained_results(workspace, dataset)
    if (results / MANIFEST).exists():
        return _again(results, path, licence)
    chosen = chosen_runs(results)
    runs = [run for run, _ in chosen.runs]
    configs = [RunConfig.load(run / "run.json") for run in runs]
    check_chosen(chosen, configs)
    exposure = exposure_of(workspace, configs)
    selection = Selection.load(results / SELECTION) if (results / SELECTION).exists() else None
    files: dict[str, Path | bytes] = {PLANS: configs[0].plans.content()}
    declaration = workspace.raw_dataset(results.name) / DECLARATION
    if declaration.exists():
        declared = read_json(declaration)
        files[DECLARATION] = to_json({key: declared[key] for key in PUBLIC_KEYS if key in declared})
    if selection is not None:
        files[SELECTION] = selection.content()
    files[SEEN_IN_TRAINING] = _hash_list(exposure.training)
    files[SEEN_IN_PRETRAINING] = _hash_list(exposure.pretraining)
    for run, config in zip(runs, configs, strict=True):
        name = str(run.relative_to(results))
        files[f"{name}/run.json"] = _without_people(config).content()
        files[f"{name}/finished.json"] = run / "finished.json"
        files[f"{name}/{WEIGHTS}"] = run / WEIGHTS
    bundle = describe_models(workspace, results, configs, exposure, licence)
    weights = [sha256_file(run / WEIGHTS) for run in runs]
    files[MODEL_CARD] = bundle_card(bundle, configs, selection, weights).encode()
    return _write(path, bundle, files)


def describe_models(
    workspace: Workspace, results: Path, configs: Sequence[RunConfig], exposure: Exposure, licence: str | None
) -> Bundle:
    """Return what there is to say about models, before the files are known."""
    origins = _origins(workspace, configs)
    return Bundle(
        kind="models",
        name=check_name(results.name, str(results)),
        modality=check_name(configs[0].plans.modality, str(results)),
        task=configs[0].plans.task,
        licence=licence or _common_licence(origins),
        origins=origins,
        is_seen_complete=not exposure.unknown,
        fmseg=__version__,
        files={},
    )


def export_foundation(
    workspace: Workspace, name: str, path: Path, *, licence: str | None = None, overwrite: bool = False
) -> Exported:
    """Write a foundation checkpoint into one file. Raises UnknownName for a name that is not there."""
    _check_target(path, overwrite=overwrite)
    folder, card = named_foundation(find_foundations(workspace.foundations()), name)
    card = card.evolve(provenance=_without_command(card.provenance), licence=licence or card.licence)
    files: dict[str, Path | bytes] = {
        checkpoints.CARD: card.content(),
        checkpoints.WEIGHTS: folder / checkpoints.WEIGHTS,
        checkpoints.SEEN: _hash_list(checkpoints.read_seen(folder)),
        MODEL_CARD: model_card(card, ()).encode(),  # its pictures show images
    }
    bundle = Bundle(
        kind="foundation",
        name=check_name(card.name, str(folder)),
        modality=check_name(card.modality, str(folder)),
        task="unlabelled",
        licence=card.licence,
        origins=(),
        is_seen_complete=True,
        fmseg=__version__,
        files={},
    )
    return _write(path, bundle, files)


def _again(results: Path, path: Path, licence: str | None) -> Exported:
    """Export what was imported: the same file."""
    bundle = Bundle.load(results / MANIFEST)
    if licence is not None:
        raise UsageError(f"{results} was imported, under: {bundle.licence}. That is not changed; leave --licence out.")
    return _write(path, bundle, {name: results / name for name in bundle.files})


def _write(path: Path, bundle: Bundle, files: Mapping[str, Path | bytes]) -> Exported:
    """Pack the files behind their manifest, in the order of their names."""
    for name in files:
        if not any(pattern.fullmatch(name) for pattern in ALLOWED):
            raise UsageError(
                f"'{name}' cannot be exported under this name. Letters, digits, '-', '+', '.' and '_' can."
            )
    listed = {name: _member(files[name]) for name in sorted(files)}
    bundle = bundle.evolve(files={name: member.model_dump() for name, member in listed.items()})
    pack(path, {MANIFEST: bundle.content()} | {name: files[name] for name in listed})
    return Exported(path, bundle)


def _member(source: Path | bytes) -> Member:
    if isinstance(source, bytes):
        return Member(sha256=sha256(source), num_bytes=len(source))
    return Member(sha256=sha256_file(source), num_bytes=source.stat().st_size)


def _check_target(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already. Type another file after -o, or --overwrite to write it anew.")


def _hash_list(hashes: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, hashes)
    return file.getvalue()


def _without_people(config: RunConfig) -> RunConfig:
    """Return a run without the names of its cases and the paths of its command line."""
    return config.evolve(cases=Fold(train=(), val=()), watched=(), provenance=_without_command(config.provenance))


def _without_command(provenance: Provenance) -> Provenance:
    return provenance.evolve(command="")


def _origins(workspace: Workspace, configs: Sequence[RunConfig]) -> tuple[Origin, ...]:
    """Return the checkpoints that runs started from, with their licences where they are still there."""
    starts = {config.init.sha256: config.init for config in configs if config.init.sha256}
    licences = {card.weights_sha256: card.licence for _, card in find_foundations(workspace.foundations())}
    return tuple(
        Origin(
            name=starts[digest].name, sha256=digest, licence=licences.get(digest) or starts[digest].terms or UNSTATED
        )
        for digest in sorted(starts)
    )


def _common_licence(origins: Sequence[Origin]) -> str:
    found = {origin.licence for origin in origins}
    return found.pop() if len(found) == 1 else UNSTATED
