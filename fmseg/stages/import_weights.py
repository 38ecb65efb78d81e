"""Import other people's weights: their file in, a foundation checkpoint with its card out."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import save_file

from fmseg.errors import UsageError
from fmseg.files import locked, sha256_file, write_bytes, writing
from fmseg.networks.cnn import TIMM_MODELS, TimmClassifier, load_timm_weights
from fmseg.networks.foreign_files import ForeignFile, read_config, read_foreign, weights_file
from fmseg.networks.sources.adapt import fit_channels, fit_patch
from fmseg.networks.sources.convert import Conversion, convert
from fmseg.networks.sources.timm_files import BY_NAME, file_of
from fmseg.networks.weights import built, save_backbone
from fmseg.records.foundation import CARD, Foundation, Origin, find_foundations, moments_for
from fmseg.records.run import Provenance
from fmseg.reporting.model_card import model_card
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the user may choose."""

    #: of the checkpoint; by default from the file's name
    name: str | None = None
    #: a name in the table of sources, timm:MODEL, or auto
    source: str = "auto"
    modality: str | None = None
    num_heads: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    #: to be made for so many channels, and for patches of this side in pixels
    channels: int | None = None
    patch: int | None = None


def import_weights(workspace: Workspace, file: str, options: ImportOptions) -> Foundation:
    """Make a foundation checkpoint of a file, or of what timm keeps under a name, ``timm:MODEL``.

    The same file under the same name is imported once. Raises BadData if a tensor does not fit.
    """
    path, source = locate(file, options.source)
    foreign = read_foreign(path)
    found = convert(foreign, source, num_heads=options.num_heads, moments=_moments(options))
    made, changes = _adapted(found, options)
    name = options.name or default_name(foreign.path)
    folder = workspace.foundation(options.modality or found.source.modality, name)
    with locked(folder, "this checkpoint"):
        card = _card(folder, foreign, made, changes)
        if not (folder / CARD).exists():
            weights_sha256 = save_backbone(built(made.architecture, made.state), folder)
            card = card.evolve(weights_sha256=weights_sha256)
            write_bytes(folder / "card.md", model_card(card, ()).encode())
            card.save(folder / CARD)
        else:
            card = _same(folder, card)
    tell(card)
    return card


def cnn_of(file: str, source: str) -> str | None:
    """Return timm's name of the CNN that a file is of, if a network here is built as it; else None."""
    path, source = locate(file, source)
    said = source.removeprefix(BY_NAME) if source.startswith(BY_NAME) else read_config(path).get("architecture", "")
    name = str(said).split(".")[0]
    return name if name in TIMM_MODELS.values() else None


def import_cnn(workspace: Workspace, file: str, source: str, model: str) -> Path:
    """Put the weights of a CNN of timm where ``--init timm`` finds them, safe to open; return their file.

    Raises BadData naming the first tensor that is missing or misshapen.
    """
    path, _ = locate(file, source)
    network = TimmClassifier(model, 3, 1, dropout=0.0)
    load_timm_weights(network, path)
    head = network.net.pretrained_cfg["classifier"]
    state = {name: tensor for name, tensor in network.net.state_dict().items() if not name.startswith(f"{head}.")}
    target = workspace.foundations() / "timm" / f"{model}.safetensors"
    with writing(target) as temporary:
        save_file(state, temporary)
    logger.info("%s: %s of timm, for --init timm; not taken: %s.* (its classifier)", path, model, head)
    return target


def checkpoint_of(workspace: Workspace, file: str) -> str | None:
    """Return the name of the checkpoint that was made of a file, or ``modality/name``; None before it is imported."""
    path, _ = locate(file, "auto")
    sha256 = sha256_file(weights_file(path))
    cards = [card for _, card in find_foundations(workspace.foundations())]
    for card in cards:
        if card.origin is not None and card.origin.sha256 == sha256:
            is_alone = sum(other.name == card.name for other in cards) == 1
            return card.name if is_alone else f"{card.modality}/{card.name}"
    return None


def locate(file: str, source: str) -> tuple[Path, str]:
    """Return the path of what was typed, and its source; of ``timm:MODEL`` the file that timm keeps."""
    if not file.startswith(BY_NAME):
        return Path(file), source
    return file_of(file.removeprefix(BY_NAME)), file


def default_name(path: Path) -> str:
    """Return a name for the checkpoint of a file; of one with a usual name, that of its folder."""
    usual = path.stem in ("model", "pytorch_model", "open_clip_model", "open_clip_pytorch_model", "checkpoint")
    text = path.absolute().parent.name if usual else path.stem
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_") or "imported"


def tell(card: Foundation) -> None:
    """Log what was found, what was not taken, and loudly what its licence forbids."""
    vit, origin = card.architecture, card.origin
    assert origin is not None
    logger.info(
        "%s: %s, %s/%d, positions for %d x %d px, %d channel(s), mean %s, std %s",
        *(origin.file, origin.title, vit.name, vit.patch_size, *vit.image_size, vit.channels, card.mean, card.std),
    )
    for name, reason in origin.dropped:
        logger.info("not taken: %s (%s)", name, reason)
    for note in origin.notes:
        logger.info("%s", note)
    level = logging.WARNING if origin.commercial is False else logging.INFO
    logger.log(level, "Licence of %s and of all that is made from it: %s.", card.name, origin.terms)


def _moments(options: ImportOptions) -> tuple[Sequence[float], Sequence[float]] | None:
    if bool(options.mean) != bool(options.std):
        raise UsageError("--mean and --std belong together: type both, a number for each channel.")
    return (options.mean, options.std) if options.mean else None


def _adapted(found: Conversion, options: ImportOptions) -> tuple[Conversion, list[str]]:
    """Return the conversion for the channels and patches asked for, and what that changed."""
    changes = []
    state, architecture = found.state, found.architecture
    if options.patch is not None and options.patch != architecture.patch_size:
        changes.append(f"patches of {architecture.patch_size} px resampled to {options.patch}: close, not exact")
        state, architecture = fit_patch(state, architecture, options.patch)
    mean, std = found.mean, found.std
    if options.channels is not None and options.channels != architecture.channels:
        state = fit_channels(state, mean, std, options.channels)
        mean, std = moments_for(mean, std, options.channels)
        changes.append(f"{architecture.channels} channels became {options.channels}: exact for grey images")
        architecture = architecture.evolve(channels=options.channels)
    return replace(found, state=state, architecture=architecture, mean=mean, std=std), changes


def _card(folder: Path, foreign: ForeignFile, found: Conversion, changes: list[str]) -> Foundation:
    source = found.source
    origin = Origin(
        source=found.name,
        title=source.title,
        where=source.where,
        licence=source.licence,
        commercial=source.commercial,
        file=foreign.path.name,
        sha256=sha256_file(foreign.path),
        input_px=source.input_px,
        dropped=found.dropped,
        notes=(*found.notes, *changes),
    )
    return Foundation(
        name=folder.name,
        modality=folder.parent.name,
        architecture=found.architecture,
        mean=found.mean,
        std=found.std,
        recipe=None,
        datasets=(),
        num_images=0,
        iterations=0,
        samples_seen=0,
        metrics={},
        weights_sha256="",
        seen_count=0,
        licence=origin.terms,
        origin=origin,
        provenance=Provenance.here(),
    )


def _same(folder: Path, card: Foundation) -> Foundation:
    """Return the card that is there. Raises UsageError if it is of something else."""
    there = Foundation.load(folder / CARD)
    fields = ("origin", "architecture", "mean", "std")
    if any(getattr(there, name) != getattr(card, name) for name in fields):
        raise UsageError(f"{folder} holds another checkpoint. Choose another name with --as.")
    return there
