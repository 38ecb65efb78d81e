"""What is wrong with a pretraining, in words, with what to do about it: read from what the run has logged.

Each check looks at the last tenth of the lines, so that one odd interval is no trouble. The thresholds lie between
runs that learned and runs that were made to fail; docs/explanation/dinov2.md has the figures of both.

Legend: K prototypes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from fmseg.records.foundation import Trouble
from fmseg.records.plans import Pretraining

Line = Mapping[str, float]

#: number of times in a run that it is asked
NUM_TIMES = 20
#: lines that must be there before anything is said
MIN_LINES = 10
#: spread of the normalised CLS tokens, and RankMe, as shares of those of random weights
MIN_SPREAD_SHARE, MIN_RANK_SHARE = 0.7, 0.25
#: fewer prototypes than this are used by a batch, or than this share of its rows if they are few
MIN_PROTOTYPES, MIN_PROTOTYPES_A_ROW = 8, 0.3
#: entropy of one target, as a share of log K
MAX_ENTROPY_SHARE, MIN_ENTROPY_SHARE = 0.98, 0.1
#: by so much, as a share, the student must be better than one that calls all prototypes equally likely
MIN_GUESS_SHARE = 0.01
#: share of the time in which training waits for views
MAX_WAIT_SHARE = 0.3
#: share of a run after which what is normal at the start is trouble; the teacher's temperature has then warmed up
SETTLED, HALF = 0.35, 0.5

SHARPER = "Lower the teacher's temperature (--set 'teacher_temperature=[0.04, 0.04]'), or pretrain longer"
SOFTER = (
    "Stop it; start anew with a higher teacher temperature (--set 'teacher_temperature=[0.045, 0.045]') or with "
    "--set centering=sinkhorn"
)


@dataclass(frozen=True, slots=True)
class Signs:
    """What the checks look at."""

    recipe: Pretraining
    #: the lines of metrics.jsonl that hold losses, those that hold looks, and the line of step 0
    steps: Sequence[Line]
    looks: Sequence[Line]
    start: Line
    #: the lines of timing.jsonl
    timing: Sequence[Line]

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        return self.steps[-1]["step"] / self.recipe.iterations

    @property
    def log_k(self) -> float:
        """Entropy of a target that says nothing."""
        return math.log(self.recipe.num_prototypes)

    def recent(self, name: str) -> float:
        """Return the mean of a value over the last tenth of the lines."""
        return fmean(line[name] for line in self.steps[-max(3, len(self.steps) // 10) :])


def find_troubles(history: Sequence[Line], timing: Sequence[Line], recipe: Pretraining) -> tuple[Trouble, ...]:
    """Return what is wrong now, worst first. history, timing: the lines of metrics.jsonl and timing.jsonl."""
    steps = [line for line in history if "loss" in line]
    if len(steps) < MIN_LINES:
        return ()
    looks = [line for line in history if "rankme_cls" in line]
    start = next((line for line in history if line["step"] == 0), {})
    signs = Signs(recipe, steps, looks, start, timing)
    step = int(steps[-1]["step"])
    found = ((name, check(signs)) for name, check in CHECKS.items())
    return tuple(Trouble(name=name, text=text, step=step) for name, text in found if text is not None)


def all_troubles(history: Sequence[Line], timing: Sequence[Line], recipe: Pretraining) -> tuple[Trouble, ...]:
    """Return what was wrong at any time, each as it was first found, and whether it had gone at the end."""
    first: dict[str, Trouble] = {}
    for part in range(1, NUM_TIMES + 1):
        last = part * recipe.iterations / NUM_TIMES
        until = [[line for line in lines if line["step"] <= last] for lines in (history, timing)]
        for trouble in find_troubles(until[0], until[1], recipe):
            first.setdefault(trouble.name, trouble)
    still = {trouble.name for trouble in find_troubles(history, timing, recipe)}
    return tuple(trouble.evolve(is_over=name not in still) for name, trouble in first.items())


def _one_point(signs: Signs) -> str | None:
    spread, first = signs.recent("feature_std"), signs.steps[0]["feature_std"]
    if spread >= MIN_SPREAD_SHARE * first:
        return None
    return (
        f"collapse: all images come to look alike (spread of their features {spread:.2f}, at the start {first:.2f}). "
        f"{SOFTER}, and with koleo_weight above 0"
    )


def _few_dimensions(signs: Signs) -> str | None:
    random = signs.start.get("random_rankme_cls")
    if random is None or not signs.looks or signs.progress < SETTLED:
        return None
    rank = signs.looks[-1]["rankme_cls"]
    if rank >= MIN_RANK_SHARE * random:
        return None
    return (
        f"collapse: features have fewer dimensions (RankMe {rank:.1f}) than those of random weights ({random:.1f}). "
        f"{SOFTER}, and with koleo_weight above 0"
    )


def _few_prototypes(signs: Signs) -> str | None:
    used = signs.recent("prototype_usage") * signs.recipe.num_prototypes
    rows = 2 * signs.recipe.batch_size / signs.recipe.accumulation
    if used >= min(MIN_PROTOTYPES, MIN_PROTOTYPES_A_ROW * rows):
        return None
    return (
        f"collapse: the teacher says of all images one of {used:.1f} of {signs.recipe.num_prototypes} prototypes. "
        f"{SOFTER}"
    )


def _one_word(signs: Signs) -> str | None:
    entropy = signs.recent("target_entropy")
    if entropy >= MIN_ENTROPY_SHARE * signs.log_k:
        return None
    return (
        f"the teacher is too sure: an answer's entropy is {entropy:.2f} of at most {signs.log_k:.2f}, which comes "
        f"before a collapse. {SOFTER}"
    )


def _says_nothing(signs: Signs) -> str | None:
    entropy = signs.recent("target_entropy")
    if signs.progress < SETTLED or entropy <= MAX_ENTROPY_SHARE * signs.log_k:
        return None
    return (
        f"the teacher says nothing yet: to it all prototypes are alike (entropy {entropy:.2f} of at most "
        f"{signs.log_k:.2f}). {SHARPER}"
    )


def _learns_nothing(signs: Signs) -> str | None:
    guess, loss = guessing_loss(signs.recipe), sum(signs.recent(name) for name in ("dino_local", "dino_global", "ibot"))
    if signs.progress < SETTLED or loss <= (1 - MIN_GUESS_SHARE) * guess:
        return None
    return (
        f"the loss does not fall below that of guessing: {loss:.2f} where calling all prototypes equally likely gives "
        f"{guess:.2f}. Pretrain longer, raise the learning rate, or see whether the images differ at all"
    )


def _waits(signs: Signs) -> str | None:
    if not signs.timing:
        return None
    share = median(line["data_wait_share"] for line in signs.timing[-10:])
    if share <= MAX_WAIT_SHARE:
        return None
    return (
        f"training waits for images {share:.0%} of the time. Give it more loader processes (--num-workers), or a "
        "faster disk for fmseg_preprocessed"
    )


def _no_better_than_random(signs: Signs) -> str | None:
    gains = {
        name: signs.looks[-1][name] - signs.start[f"random_{name}"]
        for name in (signs.looks[-1] if signs.looks else ())
        if name.startswith("probe_") and f"random_{name}" in signs.start
    }
    if not gains or signs.progress < HALF or fmean(gains.values()) > 0:
        return None
    told = ", ".join(f"{name.removeprefix('probe_').replace('_', ' ')} {gain:+.3f}" for name, gain in gains.items())
    return f"its features are no better than those of random weights ({told}). Pretrain longer, or on more images"


#: worst first
CHECKS: dict[str, Callable[[Signs], str | None]] = {
    "one_point": _one_point,
    "few_dimensions": _few_dimensions,
    "few_prototypes": _few_prototypes,
    "one_word": _one_word,
    "says_nothing": _says_nothing,
    "learns_nothing": _learns_nothing,
    "no_better_than_random": _no_better_than_random,
    "waits": _waits,
}


def guessing_loss(recipe: Pretraining) -> float:
    """Return the sum of the cross-entropies, as they are logged, of a student that knows nothing."""
    pairs = 2 * recipe.views.num_locals
    # with the weights of DINOv2's denominators: see tasks/dino.py
    return math.log(recipe.num_prototypes) * ((pairs + 2) / (max(pairs, 1) + 2) + recipe.mask_probability)
