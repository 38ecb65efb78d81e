"""``--init FILE``: a file of other people's weights where the name of a checkpoint is expected."""

from pathlib import Path

from fmseg.cli.frame import Session
from fmseg.console import is_only_process
from fmseg.errors import UsageError

ENDINGS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")


def start_from(session: Session, init: str) -> str:
    """Return what ``--init`` means: of a file the name of its checkpoint, which is made if need be.

    Raises UsageError where it cannot be made now: in a dry run, or in one of several processes.
    """
    from fmseg.records.foundation import find_foundations

    is_file = init.startswith("timm:") or init.endswith(ENDINGS) or Path(init).is_dir()
    cards = [card for _, card in find_foundations(session.workspace.foundations())]
    if not is_file or any(init in (card.name, f"{card.modality}/{card.name}") for card in cards):
        return init
    from fmseg.stages.import_weights import ImportOptions, checkpoint_of
    from fmseg.stages.import_weights import import_weights as make

    name = checkpoint_of(session.workspace, init)
    if name is not None:
        return name
    if session.dry_run or not is_only_process():
        raise UsageError(f"--init {init}: import it first, with: fmseg import_weights {init}")
    make(session.workspace, init, ImportOptions())
    found = checkpoint_of(session.workspace, init)
    assert found is not None
    return found
