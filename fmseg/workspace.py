"""The three roots on disk, and where each thing lies in them.

The only file that knows folder names and environment variables. The roots are folders of the current
directory, or of ``--root``, or of the folder that holds ``fmseg.toml``, or nnU-Net-style variables
(``fmseg_raw``, ``fmseg_preprocessed``, ``fmseg_results``).
"""

import os
import re
import tomllib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fmseg.errors import BadRecord, NotReady, UnknownName, UsageError
from fmseg.registry import unknown

RAW, PREPROCESSED, RESULTS = "fmseg_raw", "fmseg_preprocessed", "fmseg_results"
DATASET_NAME = re.compile(r"Dataset(\d{3,})_(.+)")


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where raw data, prepared data and results lie, and which plugins are loaded."""

    raw: Path
    preprocessed: Path
    results: Path
    plugins: tuple[str, ...] = ()

    @classmethod
    def find(cls, root: Path | None = None) -> "Workspace":
        """Return the workspace of ``root``, or of the current directory.

        Each root: its environment variable wins if no ``--root`` was given, then fmseg.toml, then the
        default.
        Raises BadRecord for a broken fmseg.toml.
        """
        base = Path(root) if root is not None else Path.cwd()
        if root is not None and not base.is_dir():
            raise UsageError(f"--root {base}: there is no such folder. Make it first, or leave --root out.")
        settings = _read_settings(base / "fmseg.toml")
        roots = {
            name: Path((os.environ.get(name) if root is None else None) or base / settings.get(name, name)).absolute()
            for name in (RAW, PREPROCESSED, RESULTS)
        }
        plugins = settings.get("plugins", [])
        return cls(roots[RAW], roots[PREPROCESSED], roots[RESULTS], tuple(plugins))

    def dataset_names(self) -> list[str]:
        """Return the names of all datasets, raw or preprocessed, sorted by number."""
        names = {
            folder.name
            for root in (self.raw, self.preprocessed)
            if root.is_dir()
            for folder in root.iterdir()
            if folder.is_dir() and DATASET_NAME.fullmatch(folder.name)
        }
        return sorted(names, key=lambda name: (dataset_id(name), name))

    def trained_names(self) -> list[str]:
        """Return the names of all datasets of which there are models, trained here or imported, sorted by number."""
        finished = self.results.glob("Dataset*/*__*/fold_*/finished.json")
        names = {path.parents[2].name for path in finished if DATASET_NAME.fullmatch(path.parents[2].name)}
        return sorted(names, key=lambda name: (dataset_id(name), name))

    def dataset_name(self, text: str, among: Sequence[str] | None = None) -> str:
        """Return the full name for an id (``501``), a name, or a part of one.

        among: names to choose from; None for ``dataset_names()``. Raises UnknownName if there is none, UsageError if
        there are several.
        """
        names = self.dataset_names() if among is None else among
        found = _fitting(text, names)
        if len(found) > 1:
            raise UsageError(f"'{text}' fits several datasets: {', '.join(found)}. Type more of the name.")
        if not found:
            models = _fitting(text, self.trained_names()) if among is None else []
            if models:
                raise UnknownName(
                    f"{models[0]} is models only: its data are not in {self.raw}. They predict: fmseg predict -i in "
                    f"-o out -d {dataset_id(models[0])}. To evaluate them, make the labelled images a dataset of their "
                    "own, as docs/how-to/external-cohort.md says."
                )
            raise UnknownName(f"{unknown('dataset', text, names)} Datasets lie in {self.raw}.")
        return found[0]

    def raw_dataset(self, name: str) -> Path:
        """Return the folder of a raw dataset."""
        return self.raw / name

    def prepared(self, name: str) -> Path:
        """Return the folder of a dataset's fingerprint, plans, folds and store."""
        return self.preprocessed / name

    def results_of(self, name: str) -> Path:
        """Return the folder of a dataset's runs and selection."""
        return self.results / name

    def foundations(self) -> Path:
        """Return the folder that holds one folder per modality of foundation checkpoints."""
        return self.results / "foundation"

    def foundation(self, modality: str, name: str) -> Path:
        """Return the folder of one foundation checkpoint."""
        return self.foundations() / modality / name

    def benchmarks(self) -> Path:
        """Return the folder of the runs and tables of benchmarks, apart from the runs that predict."""
        return self.results / "benchmark"

    def features(self) -> Path:
        """Return the folder of the features of image files, by checkpoint."""
        return self.preprocessed / "features"

    def need(self, path: Path, command: str) -> Path:
        """Return ``path``, or raise NotReady naming the command that makes it."""
        if not path.exists():
            raise NotReady(f"{path} is not there yet. Make it with: {command}")
        return path


def _fitting(text: str, names: Sequence[str]) -> list[str]:
    """Return the names that are a text, or have it as their number, or as a part where it is no number."""
    if text in names:
        return [text]
    if text.isdecimal():
        return [name for name in names if dataset_id(name) == int(text)]
    return [name for name in names if text.lower() in name.lower()]


def dataset_id(name: str) -> int:
    """Return the number of ``DatasetNNN_Name``."""
    match = DATASET_NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"'{name}' is no dataset name. Call the folder DatasetNNN_Name, as in Dataset501_Heads.")
    return int(match[1])


def dataset_title(text: str) -> str:
    """Return a text as the second part of a dataset's name: letters without accents, digits, - and _."""
    match = DATASET_NAME.fullmatch(text)
    parts = unicodedata.normalize("NFKD", match[2] if match else text)
    bare = "".join(letter for letter in parts if not unicodedata.combining(letter))
    return re.sub(r"[^A-Za-z0-9_-]+", "_", bare).strip("_") or "Images"


def _read_settings(path: Path) -> dict:
    if not path.exists():
        return {}
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRecord(f"{path}: this is not valid TOML ({error}).") from error
    allowed = {RAW, PREPROCESSED, RESULTS, "plugins"}
    for key in settings:
        if key not in allowed:
            raise BadRecord(f"{path}: {unknown('setting', key, allowed)}")
    return settings
