"""How often a pretraining is looked at, and on how many labelled cases: a small share of its time.

A look probes the teacher on labelled datasets, measures RankMe and draws pictures. What it costs is reckoned by the
same rule of thumb as the steps, so that the interval is a number of the plan and not of the machine's mood.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fmseg.planning.budget import area, forward_flop, predict_cost
from fmseg.planning.reasons import Decision
from fmseg.records.plans import Hardware, Pretraining
from fmseg.records.run import Watch

#: share of the time of a pretraining that looking may take
WATCH_SHARE = 0.03
#: so many looks draw a curve; more tell nothing new
MOST_LOOKS = 40
#: fewer cases a probe are taken for the sake of so many looks
ENOUGH_LOOKS = 8
#: labelled cases of a fold's training and validation each, at most
CASES = (300, 100, 50)
#: images of the whole corpus that RankMe is measured on
CORPUS_IMAGES = 256
#: drawing the pictures: 2.8 and 3.4 s on one core
PICTURES_S = 3.0
#: fitting the maps of one probe, a case; on the safe side: 291 images took some 2 s with a ViT-Ti on one core
FIT_S_PER_CASE = 0.025
#: share of a device's sustained speed that single images, forwards alone, reach; assumed
FORWARD_SHARE = 0.35


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """What the plan must know of a labelled dataset: its first fold and the size of its images."""

    name: str
    num_train: int
    num_val: int
    #: (height, width) of the prepared images
    size: tuple[int, int]


def plan_watch(
    recipe: Pretraining, hardware: Hardware, labelled: Sequence[LabelledSet], corpus_size: tuple[int, int]
) -> Decision[Watch]:
    """Return how often to look, and on how many cases. corpus_size: (height, width) of the images pretrained on."""
    total_s = recipe.iterations * predict_cost(recipe, hardware).step_s
    num_looks, cases = 0, CASES[-1]
    for cases in CASES:
        look_s = seconds_of_look(recipe, hardware, labelled, corpus_size, cases)
        num_looks = min(MOST_LOOKS, math.floor(WATCH_SHARE * total_s / look_s))
        if num_looks >= ENOUGH_LOOKS:
            break
    every = math.ceil(recipe.iterations / max(1, num_looks))
    because = (
        f"a look takes about {look_s:.0f} s: {max(1, num_looks)} of them, the one at the end among them, "
        + (f"stay below {WATCH_SHARE:.0%} of the time" if num_looks else "for the run is short")
        + f"; at most {cases} labelled cases to learn from and to score, of {len(labelled)} dataset(s)"
    )
    return Watch(every=every, cases=cases, datasets=tuple(each.name for each in labelled)), because


def seconds_of_look(
    recipe: Pretraining,
    hardware: Hardware,
    labelled: Sequence[LabelledSet],
    corpus_size: tuple[int, int],
    cases: int,
) -> float:
    """Return what one look takes, by rule of thumb."""
    speed = hardware.gflops * FORWARD_SHARE
    vit = recipe.architecture
    seconds = PICTURES_S + CORPUS_IMAGES * forward_flop(vit, corpus_size) / 1e9 / speed
    for each in labelled:
        train, val = min(each.num_train, cases), min(each.num_val, cases)
        seconds += (train + val) * forward_flop(vit, each.size) / 1e9 / speed + train * FIT_S_PER_CASE
    return seconds


def median_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the (height, width) of middle area."""
    return sorted(sizes, key=area)[len(sizes) // 2]
