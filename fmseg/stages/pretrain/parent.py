"""A pretraining that goes on from a checkpoint: its weights, its heads where they are still there, what it has seen."""

import logging
import shutil
from pathlib import Path

import torch
from torch import Tensor

from fmseg.errors import BadData, UsageError
from fmseg.learning.checkpoints import load_latest
from fmseg.learning.state import TASK
from fmseg.networks.vit import ViT
from fmseg.networks.weights import load_backbone
from fmseg.records.foundation import SEEN, Foundation
from fmseg.records.run import Parent, RunFolder
from fmseg.stages.pretrain.fine import FOLDER as FINE
from fmseg.tasks.dino import DinoTask
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

BACKBONE = "teacher.backbone."


def parent_of(folder: Path, channels: int) -> tuple[Parent, Foundation]:
    """Return what to record of a checkpoint that a run goes on from, and its card, for images of so many channels."""
    vit, card = load_backbone(folder, channels)
    source, terms = card.foreign
    keeps_heads = card.recipe is not None and training_state(folder, vit) is not None
    parent = Parent(
        name=card.name,
        modality=card.modality,
        sha256=card.weights_sha256,
        samples_seen=card.total_samples,
        keeps_heads=keeps_heads,
        source=source,
        terms=terms,
    )
    return parent, card


def training_state(folder: Path, vit: ViT) -> dict[str, Tensor] | None:
    """Return student, teacher, heads and centres as the run left them; None if they are gone, or of other weights.

    They are of other weights where not the last teacher but the best became the backbone.
    """
    # the last phase of a run has a folder of its own
    last = folder / FINE / "checkpoints"
    try:
        found = load_latest(last if last.exists() else folder / "checkpoints")
    except BadData as error:
        logger.warning("%s The heads are learned anew.", error)
        return None
    if found is None:
        return None
    state = {name.removeprefix(TASK): tensor for name, tensor in found[1].items() if name.startswith(TASK)}
    own = vit.state_dict()
    same = all(torch.equal(own[name], state.get(BACKBONE + name, torch.empty(0))) for name in own)
    return state if same else None


def start_from(task: DinoTask, workspace: Workspace, parent: Parent) -> None:
    """Write the checkpoint's weights into student and teacher, and its heads if they go on.

    Raises UsageError if the checkpoint is another one by now.
    """
    folder = workspace.foundation(parent.modality, parent.name)
    vit, card = load_backbone(folder, task.model.backbone.architecture.channels)
    state = training_state(folder, vit) if parent.keeps_heads else None
    if card.weights_sha256 != parent.sha256 or (state is None) == parent.keeps_heads:
        raise UsageError(f"{folder}: this is no longer the checkpoint that the run was planned from. Type --fresh.")
    if state is not None:
        task.load_state_dict(state)
        return
    for network in (task.model, task.teacher):
        network.backbone.load_state_dict(vit.state_dict())


def inherit_seen(workspace: Workspace, run: RunFolder, parent: Parent | None) -> None:
    """Copy what the checkpoint has seen into the run, before the checkpoint can change."""
    if parent is None or (run.path / SEEN).exists():
        return
    source = workspace.foundation(parent.modality, parent.name) / SEEN
    if source.exists():
        shutil.copyfile(source, run.path / SEEN)
