"""Which pretraining recipe learns most from a site's own images? Many runs, unattended, scored alike.

    python -m benchmarks.pretraining.rig benchmarks/pretraining/screening.toml --data DATA --root WORK

The list names recipes: settings laid over the planned one (as ``fmseg pretrain --set``), a length in samples or a time
budget, seeds. Each run is pretrained on the images that are not held out, then scored on held-out patients; random
weights are scored as well, and training from scratch where few-shot Dice is asked for. A run that is in the table is
not run again, and one that was stopped goes on, so that the same command may be typed after any interruption.

``results.jsonl`` in WORK is the table, one line a run; ``results.png`` shows scores against samples and minutes.
"""

import argparse
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.few_shot import CORPUS, HEADS, fmseg, prepare
from benchmarks.pretraining.picture import draw
from benchmarks.pretraining.scores import score_features
from fmseg.cli.arguments import parse_duration
from fmseg.files import append_lines, read_lines
from fmseg.networks.vit import ViT
from fmseg.networks.weights import load_backbone, load_weights
from fmseg.records.foundation import CARD, Foundation
from fmseg.records.run import RunFolder
from fmseg.records.scores import Scores
from fmseg.stages.pretrain.finish import LAST
from fmseg.workspace import Workspace

#: the few-shot runs of a comparison are alike and short; the planned ones take three times as long
FEW_SHOT = {"iterations": "250"}
LABELLED = 20
SEEDS = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """One recipe with one seed."""

    name: str
    seed: int = 0
    #: images seen; None for the planned length
    samples: int | None = None
    #: time for the whole run, as in ``--budget``
    budget: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    #: whether to finetune on few labels too
    few_shot: bool = False
    finetuning: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name of the checkpoint."""
        return f"{self.name}-s{self.seed}"


def read_trials(path: Path) -> list[Trial]:
    """Return the trials of a list: ``[defaults]`` and ``[[runs]]``, each with the fields of ``Trial`` and ``seeds``.

    The settings of a run are laid over those of the defaults.
    """
    text = tomllib.loads(path.read_text())
    defaults, trials = text.get("defaults", {}), []
    for run in text["runs"]:
        values: dict[str, Any] = defaults | run
        seeds = values.pop("seeds", [0])
        for key in ("settings", "finetuning"):
            values[key] = dict(_flat(defaults.get(key, {}))) | dict(_flat(run.get(key, {})))
        trials += [replace(Trial(**values), seed=seed) for seed in seeds]
    return trials


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names and values as ``--set`` reads them."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value if isinstance(value, str) else json.dumps(value)


def run(root: Path, trial: Trial) -> dict[str, Any]:
    """Pretrain and score; return the line of the table."""
    workspace = Workspace.find(root)
    settings = dict(trial.settings) | {"seed": str(trial.seed)}
    length = ["--budget", trial.budget] if trial.budget else []
    if trial.samples is not None:
        batch = settings.get("batch_size") or str(planned_batch(root))
        settings["iterations"] = str(max(1, trial.samples // int(batch)))
    fmseg(root, "pretrain", "-d", str(CORPUS), "--name", trial.key, *length, *_set(settings))
    folder = next(workspace.foundations().glob(f"*/{trial.key}"))
    vit, card = load_backbone(folder)
    if (folder / LAST).exists():  # the best teacher was chosen on patients who are held out here
        load_weights(vit, load_file(folder / LAST), LAST)
    values = cost(folder, card) | score_features(workspace, vit, card, trial.seed)
    if trial.few_shot:
        values["few_shot_dice"] = few_shot(root, trial, trial.key)
    return values


def baseline(root: Path, trial: Trial, card: Foundation) -> dict[str, Any]:
    """Score random weights of the same network."""
    torch.manual_seed(trial.seed)
    values = {"samples": 0, "minutes": 0.0} | score_features(
        Workspace.find(root), ViT(card.architecture), card, trial.seed
    )
    if trial.few_shot:
        values["few_shot_dice"] = few_shot(root, trial, "scratch")
    return values


def few_shot(root: Path, trial: Trial, init: str) -> float:
    """Finetune on the seed's labelled images; return the Dice on held-out ones."""
    workspace = Workspace.find(root)
    settings = _set(FEW_SHOT | dict(trial.finetuning))
    fmseg(root, "train", str(HEADS), str(trial.seed), "-r", "upernet", "--init", init, *settings)
    runs = workspace.results_of(workspace.dataset_name(str(HEADS))) / f"upernet-{init}__fmsegPlans"
    return Scores.load(runs / f"fold_{trial.seed}" / "validation" / "scores.json").foreground_dice.mean


def planned_batch(root: Path) -> int:
    """Return the batch of the plan."""
    workspace = Workspace.find(root)
    folder = workspace.prepared(workspace.dataset_name(str(CORPUS)))
    return int(json.loads((folder / "plans.json").read_text())["pretraining"]["batch_size"])


def cost(folder: Path, card: Foundation) -> dict[str, Any]:
    """Return what a run saw, how long it took, and its last losses."""
    seconds = sum(json.loads(line)["seconds"] for line in read_lines(RunFolder(folder).timing))
    values = {"samples": card.samples_seen, "minutes": seconds / 60, "images_per_s": card.samples_seen / seconds}
    return values | {name: card.metrics[name] for name in ("loss", "dino_local", "ibot", "koleo")}


def _set(settings: Mapping[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path, help="TOML file of recipes")
    parser.add_argument("--data", type=Path, required=True, help="folder with hc18 and fetal_planes")
    parser.add_argument("--root", type=Path, required=True, help="workspace of the trials")
    options = parser.parse_args()
    options.root.mkdir(parents=True, exist_ok=True)
    trials = read_trials(options.list)
    for trial in trials:
        if trial.budget:
            parse_duration(trial.budget)  # refused before hours are spent on others
    prepare(options.root, options.data, LABELLED, SEEDS)
    table = options.root / "results.jsonl"
    for trial in trials:
        if not is_there(table, trial, trial.name):
            note(table, trial, trial.name, run(options.root, trial))
        card = Foundation.load(next(Workspace.find(options.root).foundations().glob(f"*/{trial.key}/{CARD}")))
        random = f"random {card.architecture.name}"
        if not is_there(table, trial, random):
            note(table, replace(trial, settings={}), random, baseline(options.root, trial, card))
        draw(table, options.root / "results.png")


def is_there(table: Path, trial: Trial, name: str) -> bool:
    """Return whether the table has a line of this name and seed, with all scores that the trial asks for."""
    rows = [json.loads(line) for line in read_lines(table)] if table.exists() else []
    mine = [row for row in rows if (row["name"], row["seed"]) == (name, trial.seed)]
    return any("few_shot_dice" in row or not trial.few_shot for row in mine)


def note(table: Path, trial: Trial, name: str, values: Mapping[str, Any]) -> None:
    """Add a line to the table, and show it."""
    row = {"name": name, "seed": trial.seed, "settings": dict(trial.settings)} | dict(values)
    append_lines(table, [json.dumps(row)])
    shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main()
