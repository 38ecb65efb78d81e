"""A .fmseg bundle opened: unpacked, and checked to the last tensor before anything of it is used.

What stands in a bundle was written by others. So its records are validated, names and numbers kept within what a model
can need, networks compared with their weights before memory is asked for, and plugins taken only if one has asked for
them.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from fmseg.archive import read_first, unpack
from fmseg.errors import BadData, BadRecord, UsageError
from fmseg.files import parse_json, read_json
from fmseg.inference.exposure import Exposure
from fmseg.inference.members import WEIGHTS, make_room, outputs_of
from fmseg.inference.sliding import AXES
from fmseg.inference.trained import SELECTION, chosen_runs
from fmseg.networks.build import build_network
from fmseg.networks.tensors import read_shapes
from fmseg.networks.weights import load_backbone
from fmseg.records.bundle import (
    ALLOWED,
    MANIFEST,
    SEEN_IN_PRETRAINING,
    SEEN_IN_TRAINING,
    Bundle,
    Kind,
    check_name,
    check_texts,
)
from fmseg.records.foundation import CARD, SEEN, Foundation
from fmseg.records.labels import LabelScheme
from fmseg.records.plans import Architecture
from fmseg.records.run import RunConfig
from fmseg.records.selection import Selection
from fmseg.registry import load_plugins
from fmseg.workspace import DATASET_NAME

#: more than any model needs, and little enough for any machine
MAX_BLOCKS, MAX_SIDE, MAX_BATCH, MAX_OUTPUTS, MAX_LABEL = 256, 16384, 65536, 4096, 65535
MAX_INPUT_PIXELS = 80_000_000
MIN_SPACING_MM = 1e-3


def read_manifest(path: Path) -> Bundle:
    """Return what a bundle says it holds. Raises BadData, naming the file, for anything else."""
    return _manifest(read_first(path, MANIFEST, ALLOWED), path)


def unpack_bundle(path: Path, folder: Path, plugins: Sequence[str]) -> Bundle:
    """Unpack a bundle into an empty folder and check all that is in it. Raises BadData naming file and problem."""
    unpack(path, folder, ALLOWED, lambda content: _manifest(content, path).digests(), MANIFEST)
    bundle = Bundle.load(folder / MANIFEST)
    try:
        for record in folder.rglob("*.json"):
            check_texts(read_json(record), record.name)
        for seen in folder.glob("*.npy"):
            _check_hashes(seen)
        if bundle.kind == "foundation":
            _check_foundation(folder)
        else:
            _check_models(folder, plugins)
    except BadData as error:
        raise BadData(f"{path}: {str(error).replace(f'{folder}/', '')}") from error
    return bundle


@contextmanager
def opened(path: Path, plugins: Sequence[str] = (), *, kind: Kind = "models") -> Iterator[Path]:
    """Yield a temporary folder that holds a bundle's models as the results of their dataset would.

    plugins: modules that it may import. kind: what is wanted; "foundation" yields the checkpoint's folder. Raises
    UsageError for a bundle of the other kind.
    """
    with tempfile.TemporaryDirectory(prefix="fmseg_") as temporary:
        bundle = read_manifest(path)
        if bundle.kind != kind:
            mends = {
                "foundation": "a foundation checkpoint, which predicts nothing by itself. Import it, and train from "
                f"it with --init {bundle.name}.",
                "models": "trained models, and no foundation checkpoint. Predict with them: fmseg predict -m, or "
                "Predictor.from_bundle.",
            }
            raise UsageError(f"{path} holds {mends[bundle.kind]}")
        folder = Path(temporary) / bundle.name
        unpack_bundle(path, folder, plugins)
        yield folder


def bundled_exposure(results: Path) -> Exposure:
    """Return what the models of an unpacked bundle have met."""
    bundle = Bundle.load(results / MANIFEST)
    names = ", ".join(origin.name for origin in bundle.origins)
    unknown = () if bundle.is_seen_complete else (f"not all of what {names} has seen came with the model",)
    return Exposure(_hashes(results / SEEN_IN_PRETRAINING), _hashes(results / SEEN_IN_TRAINING), unknown)


def _manifest(content: bytes, path: Path) -> Bundle:
    value = parse_json(content, f"{path}: {MANIFEST}")
    bundle = Bundle.read(value, f"{path}: {MANIFEST}")
    check_texts(value, f"{path}: {MANIFEST}")
    check_name(bundle.name, f"{path}: {MANIFEST}")
    check_name(bundle.modality, f"{path}: {MANIFEST}")
    if bundle.kind == "models" and not DATASET_NAME.fullmatch(bundle.name):
        raise BadRecord(f"{path}: {MANIFEST}: '{bundle.name}' is no dataset name, as in Dataset501_Heads.")
    return bundle


def _hashes(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _check_hashes(path: Path) -> None:
    """Check a list of hashes: sorted 64-bit numbers and nothing else. Raises BadData."""
    problem = f"{path.name}: this is no sorted list of 64-bit numbers."
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise BadData(problem)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            left = path.stat().st_size - file.tell()
    except (ValueError, EOFError) as error:
        raise BadData(problem) from error
    if dtype != np.uint64 or len(shape) != 1 or left != 8 * shape[0]:
        raise BadData(problem)
    numbers = _hashes(path)
    if (numbers[1:] <= numbers[:-1]).any():
        raise BadData(problem)


def _check_foundation(folder: Path) -> None:
    card = Foundation.load(folder / CARD)
    check_name(card.name, CARD)
    check_name(card.modality, CARD)
    for name in (CARD, "backbone.safetensors", SEEN):
        if not (folder / name).exists():
            raise BadData(f"{name} is missing.")
    _check_architecture(card.architecture, CARD)
    load_backbone(folder)


def _check_models(folder: Path, plugins: Sequence[str]) -> None:
    for name in (SEEN_IN_TRAINING, SEEN_IN_PRETRAINING):
        if not (folder / name).exists():
            raise BadData(f"{name} is missing.")
    configs = {path.parent: RunConfig.load(path) for path in sorted(folder.glob("*/fold_*/run.json"))}
    for run, config in configs.items():
        source = f"{run.relative_to(folder)}/run.json"
        foreign = sorted(set(config.plugins) - set(plugins))
        if foreign:
            raise UsageError(
                f"{source} needs the plugin '{foreign[0]}', which is code. If you have it from someone you trust, type "
                f"--plugin {foreign[0]}."
            )
        load_plugins(config.plugins)
        _check_numbers(config, source)
        if not (run / WEIGHTS).exists():
            raise BadData(f"{run.relative_to(folder)}/{WEIGHTS} is missing.")
        _check_weights(config, run / WEIGHTS)
    if (folder / SELECTION).exists():
        _check_selection(Selection.load(folder / SELECTION), configs, folder)
    for run, _ in chosen_runs(folder).runs:
        if run not in configs:
            raise BadData(f"{run.relative_to(folder)}/run.json is missing.")


def _check_selection(selection: Selection, configs: dict[Path, RunConfig], folder: Path) -> None:
    """Check that a selection speaks of the runs that are there, under their one plan. Raises BadData."""
    for member in selection.members:
        for fold in member.folds:
            if folder / member.runs / f"fold_{fold}" not in configs:
                raise BadData(f"{SELECTION} names fold {fold} of '{member.runs}', which is missing.")
        _check_range(len(member.folds), 1, MAX_OUTPUTS, "folds", SELECTION)
        _check_range(member.weight, 1, MAX_OUTPUTS, "weight", SELECTION)
    _check_range(len(selection.members), 1, MAX_OUTPUTS, "members", SELECTION)
    _check_range(selection.temperature, 1e-3, 1e3, "temperature", SELECTION)
    for config in configs.values():
        if config.plans.digest() != selection.plans_digest:
            raise BadData(f"{SELECTION} was made for another plan than its runs have.")
        outputs = {rule.output for rule in selection.clean_up} - set(outputs_of(config).names)
        if outputs:
            raise BadData(f"{SELECTION} cleans up '{min(outputs)}', which no network draws.")


def _check_numbers(config: RunConfig, source: str) -> None:
    """Check that a run asks for no more than a model needs. Raises BadRecord."""
    _check_architecture(config.architecture, source)
    preparation, recipe, outputs = config.plans.preprocessing, config.recipe, outputs_of(config)
    for name, (height, width) in (("image_size", preparation.image_size), ("input_size", recipe.input_size)):
        _check_range(height, 1, MAX_SIDE, name, source)
        _check_range(width, 1, MAX_SIDE, name, source)
        _check_range(height * width, 1, MAX_INPUT_PIXELS, name, source)
    for spacing in preparation.spacing_mm or ():
        _check_range(spacing, MIN_SPACING_MM, 1e6, "spacing_mm", source)
    _check_range(recipe.batch_size, 1, MAX_BATCH, "batch_size", source)
    _check_range(recipe.decoder_channels, 0, MAX_SIDE, "decoder_channels", source)
    if recipe.unet is not None:
        _check_range(len(recipe.unet.features), 1, MAX_BLOCKS, "stages", source)
        for number in (*recipe.unet.features, *sum((*recipe.unet.kernels, *recipe.unet.strides), ())):
            _check_range(number, 1, MAX_SIDE, "unet", source)
    _check_range(recipe.head_blocks, 1, MAX_BLOCKS, "head_blocks", source)
    _check_range(outputs.num_outputs, 1, MAX_OUTPUTS, "outputs", source)
    if isinstance(outputs, LabelScheme):
        for value in outputs.declared:
            _check_range(value, 0, MAX_LABEL, "label value", source)
        if not len(outputs.names) == len(outputs.values) == len(outputs.painted):
            raise BadRecord(f"{source}: names, values and painted of its labels are not equally many.")
    channels = {config.architecture.channels, preparation.channels, len(config.mean), len(config.std)}
    if (
        len(channels) > 1
        or not all(std > 0 for std in config.std)
        or not np.isfinite([*config.mean, *config.std]).all()
    ):
        raise BadRecord(f"{source}: the numbers of channels differ, or mean and std are no numbers.")
    if set(config.plans.mirror_axes) - set(AXES):
        raise BadRecord(f"{source}: 'mirror_axes' are {config.plans.mirror_axes}; there are {', '.join(AXES)}.")


def _check_architecture(architecture: Architecture, source: str) -> None:
    _check_range(architecture.depth, 1, MAX_BLOCKS, "depth", source)
    _check_range(architecture.channels, 1, MAX_BLOCKS, "channels", source)
    for name in ("patch_size", "width", "num_heads"):
        _check_range(getattr(architecture, name), 1, MAX_SIDE, name, source)
    _check_range(architecture.num_registers, 0, MAX_SIDE, "num_registers", source)
    _check_range(architecture.mlp_ratio, 0.01, 64, "mlp_ratio", source)
    for side in architecture.image_size:
        _check_range(side, architecture.patch_size, MAX_SIDE, "image_size", source)
        if side % architecture.patch_size:
            raise BadRecord(f"{source}: 'image_size' is {side}, no multiple of the patch of {architecture.patch_size}.")
    if architecture.width % architecture.num_heads:
        raise BadRecord(f"{source}: 'width' is {architecture.width}, no multiple of {architecture.num_heads} heads.")


def _check_range(value: float, low: float, high: float, name: str, source: str) -> None:
    if not low <= value <= high:
        raise BadRecord(f"{source}: '{name}' is {value}, and must be from {low:g} to {high:g}.")


def _check_weights(config: RunConfig, path: Path) -> None:
    """Check that the tensors of a file are those of the run's network, from its header alone. Raises BadData."""
    where = f"{path.parent.parent.name}/{path.parent.name}/{path.name}"
    found = read_shapes(path, where)
    with torch.device("meta"):  # shapes without memory
        network = build_network(config.recipe, config.architecture, outputs_of(config))
        make_room(network, {name: torch.empty(shape) for name, shape in found.items()})
    wanted = network.state_dict()
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found or name not in wanted or found[name] != tuple(wanted[name].shape):
            raise BadData(f"{where}: the tensor '{name}' is missing, too many, or of another shape than run.json says.")
