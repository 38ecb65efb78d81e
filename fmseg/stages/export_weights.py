"""Export a foundation checkpoint under other people's names."""

import logging
from pathlib import Path

from safetensors.torch import save_file

from fmseg.errors import UsageError
from fmseg.files import write_json, writing
from fmseg.networks.sources.export import FORMATS, exported
from fmseg.networks.weights import load_backbone
from fmseg.records.foundation import find_foundations, named_foundation
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)


def export_weights(workspace: Workspace, name: str, to: str, folder: Path) -> list[Path]:
    """Write weights, and the JSON files that go with them, into a folder; return the files.

    Raises UsageError if the format does not exist or cannot hold such a ViT, UnknownName for an unknown checkpoint.
    """
    if to not in FORMATS:
        raise UsageError(f"--to {to}: there are {', '.join(FORMATS)}.")
    place, card = named_foundation(find_foundations(workspace.foundations()), name)
    vit, _ = load_backbone(place)
    made = exported(to, vit, card)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / made.file]
    with writing(files[0]) as temporary:
        save_file(made.state, temporary, {"format": "pt"})
    for file, value in made.configs.items():
        write_json(folder / file, value)
        files.append(folder / file)
    _, terms = card.foreign
    note = {"name": card.name, "licence": card.licence, "mean": list(card.mean), "std": list(card.std)}
    write_json(folder / "about.json", note | {"notes": list(made.notes)})
    files.append(folder / "about.json")
    for text in made.notes:
        logger.info("%s", text)
    if terms:
        logger.warning("It is made from other people's weights, so their licence holds: %s.", terms)
    return files
