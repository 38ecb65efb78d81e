"""Which 20 images to label? Those that a checkpoint's features choose, or any: what a network then learns from them.

    python -m benchmarks.label_choice --root WORK --checkpoint NAME --recipe unet

WORK is the workspace of ``few_shot.py``, NAME a checkpoint in it that has not seen its held-out exams. Each draw takes
half of the other exams, at random, as the images that could be labelled, and of these 20, one an exam

- at random;
- by ``fmseg suggest``'s rule (k centres) on the checkpoint's CLS tokens;
- by the same rule on those of random weights.

A network is trained on each choice and scored on all held-out heads. It goes on where it was stopped.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.few_shot import HEADS, held_out, row
from fmseg.cli.arguments import parse_settings
from fmseg.console import print_json, print_table
from fmseg.inference.coverage import choose_centres, make_unit
from fmseg.inference.features import embed
from fmseg.networks.vit import ViT
from fmseg.networks.weights import load_backbone
from fmseg.planning.assignment import Assignment
from fmseg.planning.regimes import fit_to_regime
from fmseg.records.dataset import Dataset
from fmseg.records.foundation import choose_foundation
from fmseg.records.plans import Fold, Plans
from fmseg.records.run import RunFolder
from fmseg.records.scores import Scores
from fmseg.sampling.store import Store
from fmseg.stages.train import TrainOptions, train_on
from fmseg.workspace import Workspace


def pools(rest: Sequence[str], patients: Mapping[str, str], draws: int) -> list[list[str]]:
    """Return, for each draw, one image of each exam of a random half."""
    first: dict[str, str] = {}
    for case in rest:
        first.setdefault(patients[case], case)
    exams = sorted(first.values())
    halves = [np.random.default_rng((2, draw)).permutation(exams)[: len(exams) // 2] for draw in range(draws)]
    return [sorted(half.tolist()) for half in halves]


class Chooser:
    """Takes some images of a pool."""

    def __init__(self, store: Store, checkpoint: Path, count: int) -> None:
        self.store, self.count = store, count
        vit, card = load_backbone(checkpoint)
        torch.manual_seed(0)
        self.networks = {"checkpoint": vit, "random weights": ViT(card.architecture)}
        self.card = card

    def choose(self, how: str, pool: Sequence[str], draw: int) -> list[str]:
        """Return the images chosen. how: ``any``, or the name of a network."""
        if how == "any":
            return sorted(np.random.default_rng((3, draw)).permutation(pool)[: self.count].tolist())
        rows = [self.store.cases[case].start for case in pool]
        features = embed(self.networks[how], self.store, rows, mean=self.card.mean, std=self.card.std)
        tokens = make_unit(features[:, : self.card.architecture.width].copy())
        return sorted(pool[centre.index] for centre in choose_centres(tokens, self.count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="Workspace of few_shot.py.")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--recipe", default="unet")
    parser.add_argument("--init", default="scratch")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="As of fmseg train.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    workspace = Workspace.find(options.root)
    name = workspace.dataset_name(str(HEADS))
    plans = Plans.load(workspace.prepared(name) / "plans.json")
    store = Store.of(workspace.prepared(name), plans)
    rest, test, patients = held_out(Dataset.load(workspace.raw_dataset(name)))
    chooser = Chooser(store, choose_foundation(workspace.foundations(), options.checkpoint)[0], options.images)
    assert plans.finetuning is not None
    planned = fit_to_regime(plans.finetuning, plans.task, options.images)
    found: dict[str, list[float]] = {}
    for draw, pool in enumerate(pools(rest, patients, options.draws)):
        for how in ("any", *chooser.networks):
            cases = Fold(train=tuple(chooser.choose(how, pool, draw)), val=tuple(test))
            settings = {"seed": str(draw)} | parse_settings(options.set)
            folder = f"{options.recipe}-{options.init}_{options.checkpoint}_{how.replace(' ', '_')}"
            run = RunFolder(options.root / "label_choice" / folder / f"fold_{draw}")
            work = Assignment(plans, cases, draw, planned)
            train_on(workspace, work, run, TrainOptions(recipe=options.recipe, init=options.init, settings=settings))
            score = Scores.load(run.validation / "scores.json").foreground_dice.mean
            assert score is not None
            found.setdefault(how, []).append(score)
            print(json.dumps({"draw": draw, "chosen by": how, "dice": score}), flush=True)
    if options.json:
        print_json(found)
    else:
        rows = [row(f"Dice, {options.images} labelled images", how, values) for how, values in found.items()]
        print_table("Labelled images chosen by", ("score", "chosen by", "mean", "standard error", "draws"), rows)


if __name__ == "__main__":
    main()
