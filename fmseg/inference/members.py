"""Trained networks, read back from the folders of their runs."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fmseg.errors import BadData, NotReady
from fmseg.inference.sliding import Sliding
from fmseg.networks.build import build_network
from fmseg.networks.heads import NearestHead
from fmseg.networks.tensors import read_tensors
from fmseg.networks.weights import need_weights_for
from fmseg.records.labels import ClassScheme, LabelScheme, OutputScheme
from fmseg.records.run import RunConfig
from fmseg.registry import load_plugins

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Member:
    """One trained network of an ensemble, in evaluation mode."""

    model: nn.Module
    config: RunConfig
    #: its share in the average, relative to the other members
    weight: float = 1.0

    @property
    def scheme(self) -> LabelScheme:
        """What its outputs mean."""
        return scheme_of(self.config)

    def sliding(self, *, mirror: bool) -> Sliding:
        """Return how it is run over images."""
        return sliding_of(self.config, mirror=mirror)


def find_device() -> torch.device:
    """Return the accelerator that prediction uses, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def outputs_of(config: RunConfig) -> OutputScheme:
    """Return what the outputs of a run's network mean."""
    assert config.plans.labels is not None, "a run without outputs"
    return config.plans.labels


def scheme_of(config: RunConfig) -> LabelScheme:
    """Return what the outputs of a segmentation network mean. Raises BadData for another run."""
    if not isinstance(config.plans.labels, LabelScheme):
        raise BadData(f"The run of {config.plans.dataset} is a {config.plans.task}: it draws no label maps.")
    return config.plans.labels


def classes_of(config: RunConfig) -> ClassScheme:
    """Return what the outputs of a classification network mean. Raises BadData for another run."""
    if not isinstance(config.plans.labels, ClassScheme):
        raise BadData(
            f"The run of {config.plans.dataset} is a {config.plans.task}: it tells no classes of whole cases."
        )
    return config.plans.labels


def sliding_of(config: RunConfig, *, mirror: bool) -> Sliding:
    """Return how a run's network is run over images."""
    return Sliding(
        input_size=config.recipe.input_size,
        mirror_axes=config.plans.mirror_axes if mirror else (),
        has_regions=scheme_of(config).has_regions,
        black=tuple(-mean / std for mean, std in zip(config.mean, config.std, strict=True)),
        batch_size=config.recipe.batch_size,
        precision=config.recipe.precision,
    )


def load_member(run_folder: Path, device: torch.device) -> Member:
    """Read a finished run: run.json says what to build, model.safetensors what it has learned.

    Raises NotReady if one of them is missing, BadData that names a tensor that is missing, too many or
    misshapen.
    """
    return load_members([(run_folder, 1.0)], device)[0]


def load_members(runs: Sequence[tuple[Path, float]], device: torch.device) -> list[Member]:
    """Read several finished runs, each with its share in the average; raises as ``load_member``."""
    built: dict[str, nn.Module] = {}
    members = []
    for folder, weight in runs:
        for name in ("run.json", WEIGHTS):
            if not (folder / name).exists():
                raise NotReady(f"{folder / name} is not there: the run has not come to its end. Train that fold first.")
        config = RunConfig.load(folder / "run.json")
        load_plugins(config.plugins)
        scheme = outputs_of(config)
        key = f"{config.recipe.digest()} {config.architecture.digest()} {scheme.num_outputs}"
        if config.recipe.network == "vit":
            need_weights_for(config.architecture, folder / WEIGHTS)
        if key not in built:
            built[key] = build_network(config.recipe, config.architecture, scheme)
        # copied, since drawing random weights takes seconds, and folds of a recipe differ in nothing else
        model = deepcopy(built[key])
        load_weights(model, folder / WEIGHTS)
        members.append(Member(model.eval().requires_grad_(False).to(device), config, weight))
    return members


def load_weights(model: nn.Module, path: Path) -> None:
    """Copy a safetensors file into a model, exactly. Raises BadData naming the file and the first wrong tensor."""
    tensors = read_tensors(path, must_be_finite=False)
    make_room(model, tensors)
    _check_tensors(tensors, model.state_dict(), path)
    model.load_state_dict(tensors)


def make_room(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give those parts of a model the sizes of tensors that are about to be loaded whose sizes depend on the data."""
    for name, module in model.named_modules():
        if isinstance(module, NearestHead):
            module.make_room(tensors, f"{name}.")


def _check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    mend = "The file belongs to another network than its run.json says; train or import it again."
    for name, tensor in wanted.items():
        if name not in found:
            raise BadData(f"{path}: the tensor '{name}' is missing. {mend}")
        if found[name].shape != tensor.shape:
            shapes = f"{tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
            raise BadData(f"{path}: the tensor '{name}' is {shapes}. {mend}")
        if not torch.isfinite(found[name]).all():
            raise BadData(f"{path}: the tensor '{name}' holds values that are no numbers. {mend}")
    for name in found:
        if name not in wanted:
            raise BadData(f"{path}: the tensor '{name}' is one too many. {mend}")
