"""Take a .fmseg bundle in: checked in a temporary folder, then in its place with one rename."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmseg.errors import UsageError
from fmseg.files import locked, sync_folder, writable
from fmseg.inference.bundles import read_manifest, unpack_bundle
from fmseg.records.bundle import ENDING, MANIFEST, Bundle, check_name
from fmseg.records.foundation import CARD, Foundation, find_foundations
from fmseg.workspace import DATASET_NAME, Workspace, dataset_id

#: beside the folders of datasets, where nothing else looks
UNDER_WAY, REPLACED = ".import", ".replaced"


@dataclass(frozen=True, slots=True)
class Imported:
    """What was taken in, and where."""

    folder: Path
    bundle: Bundle

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "kind": self.bundle.kind,
            "name": self.folder.name,
            "modality": self.bundle.modality,
            "licence": self.bundle.licence,
            "folder": str(self.folder),
            "next": self.next_command,
        }

    @property
    def next_command(self) -> str:
        """What to type next."""
        if self.bundle.kind == "foundation":
            return f"fmseg train 501 --init {self.folder.name}"
        return f"fmseg predict -d {dataset_id(self.folder.name)} -i in -o out"


def import_bundle(
    workspace: Workspace, path: Path, *, name: str | None = None, overwrite: bool = False, plugins: tuple[str, ...] = ()
) -> Imported:
    """Unpack a bundle into the workspace: models as results of a dataset, a checkpoint among the foundations.

    name: another name, or number, than the bundle's. overwrite: replace what was imported under this name; what was
    trained here is never replaced. Raises UsageError if the name is taken, BadData for a file that is not in order.
    """
    if not path.name.endswith(ENDING):
        raise UsageError(f"{path}: only {ENDING} files, as 'fmseg export' writes them, are imported.")
    bundle = read_manifest(path)
    folder = _place(workspace, bundle, name)
    under_way, old = workspace.results / UNDER_WAY, workspace.results / REPLACED
    temporary = under_way / folder.name
    with locked(workspace.results, "an import"), writable(folder.parent):
        _check_place(workspace, bundle, folder, overwrite=overwrite)
        shutil.rmtree(under_way, ignore_errors=True)  # of an import that was killed
        try:
            temporary.mkdir(parents=True)
            bundle = unpack_bundle(path, temporary, plugins)
            if bundle.kind == "foundation" and folder.name != bundle.name:
                Foundation.load(temporary / CARD).evolve(name=folder.name).save(temporary / CARD)
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                folder.rename(old)
            temporary.rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(under_way, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    return Imported(folder, bundle)


def _place(workspace: Workspace, bundle: Bundle, name: str | None) -> Path:
    """Return the folder that a bundle is to have."""
    if bundle.kind == "foundation":
        return workspace.foundation(bundle.modality, check_name(name or bundle.name, "--as"))
    if name is not None and name.isdecimal():
        match = DATASET_NAME.fullmatch(bundle.name)
        name = f"Dataset{int(name):03d}_{match[2]}" if match else None
    if name is not None:
        dataset_id(check_name(name, "--as"))
    return workspace.results_of(name or bundle.name)


def _check_place(workspace: Workspace, bundle: Bundle, folder: Path, *, overwrite: bool) -> None:
    mend = "Give it another name with --as." if bundle.kind == "foundation" else "Give it another number: --as 601."
    if bundle.kind == "foundation":
        others = [place for place, card in find_foundations(workspace.foundations()) if card.name == folder.name]
    else:
        number = f"Dataset{dataset_id(folder.name):03d}_*"
        others = [*workspace.results.glob(number), *workspace.raw.glob(number), *workspace.preprocessed.glob(number)]
    if folder.exists() and not (folder / MANIFEST).exists():
        raise UsageError(f"{folder} was made here, and is not replaced. {mend}")
    if folder.exists() and not overwrite:
        raise UsageError(f"{folder} was imported before. Type --overwrite to replace it. {mend}")
    for other in others:
        if other != folder:
            raise UsageError(f"The name or number is taken by {other}. {mend}")
