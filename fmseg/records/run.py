"""A run's folder: run.json (provenance), metrics.jsonl, checkpoints, progress.png.

run.json is written once, before the first step, and holds all that ``predict`` needs. metrics.jsonl holds no
times, so that two equal runs give equal bytes; times go to timing.jsonl.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field

from fmseg._version import __version__
from fmseg.errors import UsageError
from fmseg.files import append_lines, read_lines, write_bytes
from fmseg.records.plans import Architecture, Fold, Plans, Pretraining, Reason
from fmseg.records.ranges import Ranges
from fmseg.records.recipe import Recipe
from fmseg.records.record import Part, Record, differing

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "timm", "monai", "numpy", "opencv-python-headless", "batchgenerators", "pydantic")


class Provenance(Part):
    """What made a result; it does not change the result of a run that goes on."""

    fmseg: str
    commit: str
    packages: dict[str, str]
    command: str
    #: whether only algorithms were used that give the same bytes again; None where nobody has noted it
    deterministic: bool | None = None
    #: what computed it: cpu, cuda or mps, and how many; empty and 0 where nobody has noted it
    device: str = ""
    num_devices: int = 0

    @classmethod
    def here(cls, *, deterministic: bool | None = None, device: str = "", num_devices: int = 0) -> Self:
        """Return the provenance of this process."""
        return cls(
            fmseg=__version__,
            commit=_commit(),
            packages={name: _version(name) for name in PACKAGES},
            command=" ".join(["fmseg", *map(_without_place, sys.argv[1:])]),
            deterministic=deterministic,
            device=device,
            num_devices=num_devices,
        )


class Initialisation(Part):
    """Where a run's backbone came from."""

    #: scratch, or the name of a foundation checkpoint
    name: str
    #: SHA-256 of its weights; empty for scratch
    sha256: str
    #: why it was taken, in words
    because: str
    #: of the other people's weights that it was made from; empty for what was made here
    terms: str = ""


class RunRecord(Record):
    """What every kind of run records about itself (run.json)."""

    VERSION: ClassVar[int] = 1

    plugins: tuple[str, ...]
    provenance: Provenance

    def determining(self) -> str:
        """Return the digest of all that determines the result: everything but the provenance."""
        return self.evolve(provenance=Provenance(fmseg="", commit="", packages={}, command="")).digest()


class Source(Part):
    """A dataset that was pretrained on."""

    dataset: str
    #: of its fingerprint
    content_hash: str
    num_images: int


class Watch(Part):
    """How a pretraining is watched: what is looked at, and how often."""

    #: steps between two looks at the teacher; 0: none before the end
    every: int = 0
    #: labelled cases that a probe learns on, and is scored on, at most
    cases: int = 0
    #: labelled datasets that are probed, pretrained on or not
    datasets: tuple[str, ...] = ()


class Parent(Part):
    """The checkpoint that a pretraining goes on from."""

    name: str
    modality: str
    #: of its backbone.safetensors
    sha256: str
    #: samples that it has seen, those of its own parents among them
    samples_seen: int
    #: whether its heads go on too, or new ones are learned
    keeps_heads: bool
    #: source and terms of the other people's weights that it was made from; empty for what was made here
    source: str = ""
    terms: str = ""


class PretrainConfig(RunRecord):
    """All that determines one pretraining run."""

    modality: str
    recipe: Pretraining
    because: tuple[Reason, ...]
    sources: tuple[Source, ...]
    watch: Watch = Watch()
    #: None for random weights
    parent: Parent | None = None
    #: seconds that it was planned for; None where its steps were typed, or by a release that did not note it
    budget_s: float | None = None

    def determining(self) -> str:
        """Return the digest of all that determines the result: neither whether layers are compiled, nor the budget."""
        plain = self.evolve(recipe=self.recipe.evolve(compile=False), budget_s=None)
        return super(PretrainConfig, plain).determining()


class RunConfig(RunRecord):
    """All that determines one finetuning run, and all that ``predict`` needs."""

    plans: Plans
    recipe: Recipe
    fold: int
    cases: Fold
    init: Initialisation
    #: of the backbone: the foundation checkpoint's where there is one, else the plan's
    architecture: Architecture
    #: of the images in [0, 1], likewise: the network sees (value - mean) / std
    mean: tuple[float, ...]
    std: tuple[float, ...]
    #: digest of what its cases are trained and scored toward; empty where nobody has noted it
    labels: str = ""
    #: of the training cases those by which the run ends early, which it does not learn from; empty without ``patience``
    watched: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    #: what its labelled cases are like, as ``predict`` compares new ones with; None in runs that were begun before
    ranges: Ranges | None = Field(default=None, exclude_if=lambda value: value is None)

    def determining(self) -> str:
        """Return the digest of all that determines the result: neither why this start was chosen, nor the ranges."""
        return super(RunConfig, self.evolve(init=self.init.evolve(because=""), ranges=None)).determining()


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run, of training or of pretraining."""

    path: Path

    @property
    def metrics(self) -> Path:
        """One JSON object per line: step and values, no times."""
        return self.path / "metrics.jsonl"

    @property
    def timing(self) -> Path:
        """One JSON object per line: step, seconds, images per second."""
        return self.path / "timing.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of what is needed to resume."""
        return self.path / "checkpoints"

    @property
    def validation(self) -> Path:
        """Folder of the out-of-fold predictions and their summary.json."""
        return self.path / "validation"

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / "finished.json").exists()

    def finish(self, values: dict[str, Any]) -> None:
        """Mark the run as done, with its last values."""
        write_bytes(self.path / "finished.json", (json.dumps(values, sort_keys=True) + "\n").encode())

    def log(self, step: int, values: dict[str, float]) -> None:
        """Append one line to metrics.jsonl."""
        append_lines(self.metrics, [json.dumps({"step": step} | values)])

    def log_timing(self, step: int, values: dict[str, float]) -> None:
        """Append one line to timing.jsonl."""
        append_lines(self.timing, [json.dumps({"step": step} | values)])

    def history(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl."""
        return [json.loads(line) for line in read_lines(self.metrics)]

    def rewind(self, step: int) -> None:
        """Drop the log lines after ``step``, which a resumed run writes again, and what a kill left half written."""
        for path in (*self.path.glob(".*.tmp"), *self.validation.glob(".*.tmp")):
            path.unlink()
        for path in (self.metrics, self.timing):
            lines = [line for line in read_lines(path) if json.loads(line)["step"] <= step]
            if path.exists():
                write_bytes(path, "".join(line + "\n" for line in lines).encode())

    def clear(self) -> None:
        """Remove everything in the folder (``--fresh``) but the lock that this process holds."""
        for path in self.path.iterdir() if self.path.exists() else ():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink()

    def claim(self, config: RunRecord) -> None:
        """Write run.json, or check that the one there is of the same run.

        Raises UsageError if the folder holds a run with other settings, naming them.
        """
        path = self.path / "run.json"
        if not path.exists():
            config.save(path)
            return
        there = type(config).load(path)
        if isinstance(there, RunConfig) and isinstance(config, RunConfig):
            _need_same_labels(self.path, there, config)
            config = config.evolve(labels=there.labels)
        if there.determining() != config.determining():
            raise UsageError(
                f"{self.path} holds a run with other settings ({_differences(there, config)}). Type --fresh to start "
                f"over, or go on with what it was begun with: {there.provenance.command}"
            )
        before, now = there.provenance.deterministic, config.provenance.deterministic
        if before is not None and now is not None and before != now:
            ways = ("deterministic", "fast") if before else ("fast", "deterministic")
            logger.warning("%s began with %s algorithms, and goes on with %s ones.", self.path, *ways)


def _need_same_labels(path: Path, there: RunConfig, config: RunConfig) -> None:
    if there.labels and config.labels and there.labels != config.labels:
        raise UsageError(
            f"{path} holds a run on other labels: label maps or classes of its cases were changed since it began. "
            "Type --fresh to start over, or restore them."
        )


def _differences(one: RunRecord, other: RunRecord) -> str:
    found = []
    for name in [key for key in type(one).model_fields if key not in ("provenance", "because", "ranges")]:
        first, second = getattr(one, name), getattr(other, name)
        if first == second:
            continue
        if isinstance(first, Part) and type(first) is type(second):
            found += [f"{name}.{each}" for each in differing(first, second)]
        else:
            found.append(name)
    return ", ".join(found[:5]) + (" ..." if len(found) > 5 else "")


def _commit() -> str:
    folder = Path(__file__).parent
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _without_place(argument: str) -> str:
    """Return an argument without the folders of this machine: runs are handed on, and users have names."""
    option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    if not os.path.isabs(value):
        return argument
    here = os.path.relpath(value)
    return option + equals + (os.path.basename(value.rstrip("/")) if here.startswith("..") else here)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
