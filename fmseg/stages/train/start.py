"""What a run starts from: a foundation checkpoint, timm's weights, or random ones."""

from dataclasses import dataclass
from pathlib import Path

from fmseg.errors import NotReady, UsageError
from fmseg.files import sha256
from fmseg.networks.cnn import TIMM_MODELS, find_weights, moments_of
from fmseg.planning.starting_point import choose_start
from fmseg.records.foundation import Foundation, find_foundations
from fmseg.records.plans import Plans
from fmseg.records.run import Initialisation, RunConfig
from fmseg.workspace import Workspace

#: what is typed after --init for the weights of timm
TIMM = "timm"


@dataclass(frozen=True, slots=True)
class Start:
    """Where the weights come from."""

    init: Initialisation
    #: folder of a checkpoint, or file of timm's weights; None for random ones
    weights: Path | None = None
    #: of a checkpoint
    card: Foundation | None = None
    #: mean and std that the weights expect; None for those of the plan
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def find_start(workspace: Workspace, plans: Plans, runs: Path, network: str, init: str) -> Start:
    """Return what a run starts from. runs: folder of the recipe's folds. network, init: of the recipe, and as typed.

    Raises UsageError if the network can take no such weights, NotReady if they are not there.
    """
    if network == "vit":
        name = init if init != "auto" else start_of_siblings(runs)
        found, note = choose_start(find_foundations(workspace.foundations()), plans, name)
        if found is None:
            return Start(note)
        card = found[1].for_channels(plans.preprocessing.channels)
        return Start(note, found[0], card, (card.mean, card.std))
    if init == TIMM and network in TIMM_MODELS:
        return _start_from_timm(workspace, network, plans.preprocessing.channels)
    if init not in ("auto", "scratch"):
        others = f"auto, scratch or {TIMM}" if network in TIMM_MODELS else "auto or scratch"
        raise UsageError(
            f"The network '{network}' has no ViT, so --init {init} has no weights for it. Type --init {others}, or "
            "choose a recipe with a ViT."
        )
    because = f"random weights: the network '{network}' has no ViT that a foundation checkpoint could give"
    return Start(Initialisation(name="scratch", sha256="", because=because))


def start_of_siblings(runs: Path) -> str:
    """Return what the folds of this recipe that are there started from, or ``auto`` if there is none.

    All folds of a recipe start alike, also when another checkpoint was pretrained between two of them.
    """
    for path in sorted(runs.glob("fold_*/run.json")):
        return RunConfig.load(path).init.name
    return "auto"


def _start_from_timm(workspace: Workspace, network: str, channels: int) -> Start:
    folder = workspace.foundations() / TIMM
    path = find_weights(network, folder)
    if path is None:
        raise NotReady(
            f"timm's weights of {network} are neither in the cache of the Hugging Face hub nor in {folder}. Put them "
            f"there as {TIMM_MODELS[network]}.safetensors; nothing is downloaded."
        )
    because = f"timm's weights of {TIMM_MODELS[network]}, as asked: {path.name}"
    init = Initialisation(name=TIMM, sha256=sha256(path.read_bytes()), because=because)
    return Start(init, path, moments=moments_of(network, channels))
