"""The networks of a bundle as one torch module, and what stands around it: for programs that bring their own loop.

MONAI's bundles name these classes (``fmseg export --to monai``). They work on 2D images: of a volume one gives slices.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmseg.errors import BadData
from fmseg.imaging.decode import labels_from_probabilities
from fmseg.imaging.prepare import centred, prepare, restore
from fmseg.imaging.readers import read_case, write_label
from fmseg.inference.bundles import opened
from fmseg.inference.choice import Choice, load_choice
from fmseg.inference.inputs import output_name
from fmseg.inference.members import outputs_of
from fmseg.inference.postprocess import apply_clean_up
from fmseg.inference.sliding import mirrorings
from fmseg.records.dataset import CaseFiles
from fmseg.records.labels import ClassScheme, LabelScheme

# B batch, C channels, K outputs, H W the networks' input, h w a prepared image


class Joined(nn.Module):
    """Images in [0, 1], (B, C, H, W), to probabilities: (B, K, H, W), or (B, K) of classes of whole images.

    Normalisation, mirroring and the average over the networks are inside.
    """

    shares: Tensor

    def __init__(self, choice: Choice, *, mirror: bool = True) -> None:
        super().__init__()
        configs = [member.config for member in choice.members]
        outputs = outputs_of(configs[0])
        self.networks = nn.ModuleList(member.model for member in choice.members)
        self.flips = mirrorings(configs[0].plans.mirror_axes if mirror else ())
        self.is_exclusive = outputs.is_exclusive if isinstance(outputs, ClassScheme) else not outputs.has_regions
        self.draws = isinstance(outputs, LabelScheme)
        shares = torch.tensor([member.weight for member in choice.members])
        self.register_buffer("shares", shares / shares.sum())
        for number, config in enumerate(configs):
            self.register_buffer(f"mean_{number}", torch.tensor(config.mean)[:, None, None])
            self.register_buffer(f"std_{number}", torch.tensor(config.std)[:, None, None])
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Return probabilities."""
        total: Tensor | None = None
        for number, network in enumerate(self.networks):
            scaled = (image - self.get_buffer(f"mean_{number}")) / self.get_buffer(f"std_{number}")
            for axes in self.flips:
                logits = network(scaled.flip(axes) if axes else scaled)
                found = logits.softmax(dim=1) if self.is_exclusive else logits.sigmoid()
                found = found.flip(axes) if axes and self.draws else found
                found = found * (self.shares[number] / len(self.flips))
                total = found if total is None else total + found
        assert total is not None, "no network"
        return total


def load_joined(path: str | os.PathLike[str]) -> Joined:
    """Load the models of a .fmseg file. Raises BadData as ``opened`` does."""
    with opened(Path(path)) as results:
        return Joined(load_choice(results))


@torch.inference_mode()
def infer_all(
    batches: Iterable[Mapping[str, Any]],
    infer: Callable[[Tensor, nn.Module], Tensor],
    network: nn.Module,
    finish: Callable[[dict[str, Any]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return what ``finish`` makes of each image. batches: of ``Prepare``, an image each; infer: a MONAI inferer."""
    device = next(network.parameters()).device
    answers = []
    for batch in batches:
        pred = infer(torch.as_tensor(batch["image"]).to(device), network)
        answers.append(finish({"pred": torch.as_tensor(pred)[0].cpu(), "source": batch["source"][0]}))
    return answers


class Prepare:
    """A transform: {"image": file} -> its prepared pixels (C, h, w) float32 in [0, 1], and the file as "source"."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        with opened(Path(path)) as results:
            config = load_choice(results).members[0].config
        self.plans = config.plans
        self.input_size = config.recipe.input_size
        self.centres = isinstance(config.plans.labels, ClassScheme)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return the item prepared. Raises BadData for a volume, or what cannot be read."""
        source = Path(item["image"])
        case = read_case(CaseFiles(source.name, (source,), None), self.plans.reader)
        if case.voxels.shape[1] != 1:
            raise BadData(f"{source}: it has {case.voxels.shape[1]} slices. Give each by itself, or use fmseg predict.")
        (image,) = prepare(case.voxels, case.geometry, self.plans.preprocessing)
        image = centred(image, self.input_size) if self.centres else image
        full = 255.0 if image.dtype == np.uint8 else 1.0
        return item | {"image": torch.from_numpy(image.astype(np.float32) / full), "source": str(source)}


class Finish:
    """A transform: {"pred": probabilities (K, h, w), "source": file} -> a label map on the file's own grid, written."""

    def __init__(self, path: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
        with opened(Path(path)) as results:
            choice = load_choice(results)
        self.plans, self.clean_up = choice.members[0].config.plans, choice.chosen.clean_up
        self.output = Path(output)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return the item with the file as "written"."""
        source = Path(item["source"])
        files = CaseFiles(source.name.split(".")[0], (source,), None)
        case = read_case(files, self.plans.reader)
        scheme = self.plans.labels
        assert isinstance(scheme, LabelScheme), "classes of whole images are not drawn"
        _, depth, height, width = case.voxels.shape
        maps = restore(np.asarray(item["pred"], np.float32)[:, None], (depth, height, width))
        labels = apply_clean_up(labels_from_probabilities(maps, scheme), self.clean_up, scheme)
        target = self.output / output_name(files)
        write_label(labels, case.geometry, target)
        return item | {"written": str(target)}
