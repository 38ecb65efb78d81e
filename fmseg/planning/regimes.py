"""How much of a training set a benchmark's run learns from: all, some images, some patients, a share of it.

All samples of one seed come from one order of the cases, so a smaller one lies within each larger one: 10 images
are the first of the 20, a tenth of the images the first of a quarter. The first cases show each class once where they
can, then each patient once before any comes a second time: twenty images of twenty patients say more than of two.
"""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np

from fmseg.errors import BadData, UsageError
from fmseg.files import natural_key
from fmseg.planning.classification import for_cases
from fmseg.planning.finetuning import CLASSIFICATION, MIN_ITERATIONS, SEGMENTATION
from fmseg.planning.length import of_length
from fmseg.records.labels import ClassScheme, OutputScheme
from fmseg.records.plans import Fold
from fmseg.records.recipe import Recipe
from fmseg.records.record import Part

FULL = "full"
#: any other number would do; apart from the seeds of trainings
SEED = 20250619


class Regime(Part):
    """How much of the training cases is learned from."""

    #: as it is typed and shown: ``full``, ``n=20``, ``p=4x10``, ``25%``
    name: str
    kind: Literal["full", "images", "patients", "share"]
    #: images, patients, or per cent of the images
    amount: float = 100.0
    #: of each patient, at most; of ``patients`` alone
    images_each: int = 0

    @property
    def folder(self) -> str:
        """Return a name for a folder."""
        return self.name.replace("=", "").replace("%", "percent")


def parse_regime(text: str) -> Regime:
    """Return the regime of ``full``, ``n=20``, ``p=4x10`` or ``25%``. Raises UsageError for anything else."""
    compact = text.replace(" ", "").lower()
    if compact in (FULL, "100%"):
        return Regime(name=FULL, kind="full")
    if (match := re.fullmatch(r"n=(\d+)", compact)) and int(match[1]):
        return Regime(name=f"n={int(match[1])}", kind="images", amount=float(match[1]))
    if (match := re.fullmatch(r"p=(\d+)x(\d+)", compact)) and int(match[1]) and int(match[2]):
        name = f"p={int(match[1])}x{int(match[2])}"
        return Regime(name=name, kind="patients", amount=float(match[1]), images_each=int(match[2]))
    if (match := re.fullmatch(r"(\d+(?:\.\d+)?)%", compact)) and 0 < float(match[1]) < 100:
        return Regime(name=compact, kind="share", amount=float(match[1]))
    raise UsageError(f"'{text}' is no regime. Type full, n=20 (images), p=4x10 (patients x images) or 25%.")


def sample_cases(
    regime: Regime,
    pool: Sequence[str],
    patients: Mapping[str, str],
    classes: Mapping[str, Collection[str]],
    *,
    seed: int,
) -> tuple[str, ...]:
    """Return the cases that a run learns from, in natural order: a function of pool, regime and seed alone.

    patients, classes: of each case; the classes that it shows. Raises BadData if the pool has fewer than asked for.
    """
    cases = sorted(pool, key=natural_key)
    if regime.kind == "full":
        return tuple(cases)
    generator = np.random.default_rng((SEED, seed))
    shuffled = [cases[index] for index in generator.permutation(len(cases))]
    if regime.kind == "patients":
        return _of_patients(regime, shuffled, patients, generator)
    wanted = int(regime.amount) if regime.kind == "images" else math.ceil(len(cases) * regime.amount / 100)
    if wanted > len(cases):
        raise BadData(f"the regime {regime.name} wants more than the {len(cases)} training cases there are")
    return tuple(sorted(_ordered(shuffled, patients, classes)[:wanted], key=natural_key))


def _of_patients(
    regime: Regime, shuffled: Sequence[str], patients: Mapping[str, str], generator: np.random.Generator
) -> tuple[str, ...]:
    owned: dict[str, list[str]] = defaultdict(list)
    for case in shuffled:
        owned[patients[case]].append(case)
    names = sorted(owned, key=natural_key)
    if len(names) < regime.amount:
        raise BadData(f"the regime {regime.name} wants more than the {len(names)} training patients there are")
    chosen = [names[index] for index in generator.permutation(len(names))[: int(regime.amount)]]
    cases = [case for patient in chosen for case in owned[patient][: regime.images_each]]
    return tuple(sorted(cases, key=natural_key))


def _ordered(shuffled: Sequence[str], patients: Mapping[str, str], classes: Mapping[str, Collection[str]]) -> list[str]:
    """Return the cases, those first that show a class for the first time, then the first of each patient, and so on."""
    first: list[str] = []
    shown: set[str] = set()
    counts: dict[str, int] = defaultdict(int)
    for case in shuffled:
        if set(classes[case]) - shown:
            first.append(case)
            shown |= set(classes[case])
            counts[patients[case]] += 1
    taken = set(first)
    rounds = []
    for case in shuffled:
        if case not in taken:
            rounds.append((counts[patients[case]], case))
            counts[patients[case]] += 1
    # sorted is stable: within a round the cases stay in their random order
    return first + [case for _, case in sorted(rounds, key=lambda pair: pair[0])]


def held_out(cases: Sequence[str], patients: Mapping[str, str], share: float) -> Fold:
    """Return a fold whose ``val`` holds all cases of some patients, about ``share`` of the cases; always the same.

    Raises BadData if no patient is left on one side.
    """
    names = sorted({patients[case] for case in cases}, key=natural_key)
    counts: dict[str, int] = defaultdict(int)
    for case in cases:
        counts[patients[case]] += 1
    chosen: set[str] = set()
    reached = 0
    for index in np.random.default_rng(SEED).permutation(len(names)):
        name = names[index]
        # a patient joins if that comes nearer to the share than to leave it
        if reached + counts[name] / 2 <= share * len(cases):
            chosen.add(name)
            reached += counts[name]
    fold = Fold(
        train=tuple(case for case in cases if patients[case] not in chosen),
        val=tuple(case for case in cases if patients[case] in chosen),
    )
    if not fold.train or not fold.val:
        raise BadData(f"{len(names)} patients cannot be parted into training and {share:.0%} for the test")
    return fold


def check_apart(fold: Fold, patients: Mapping[str, str], where: str) -> None:
    """Raise BadData if a patient is trained and tested on."""
    owners = {patients[case]: case for case in fold.train}
    for case in fold.val:
        if patients[case] in owners:
            raise BadData(
                f"{where}: patient '{patients[case]}' is trained on (case '{owners[patients[case]]}') and tested on "
                f"(case '{case}'). Mend patients.csv or splits_final.json, then plan anew."
            )


def fit_to_regime(planned: Recipe, labels: OutputScheme, num_images: int, shown: Sequence[Collection[str]]) -> Recipe:
    """Return a planned recipe for fewer images: a batch no larger than they are, and no more passes than planned for.

    Label maps: where the whole training set is learned from, nothing changes. Classes: what depends on how many images
    there are, and of which classes, is derived from the training cases alone; the plan counted those of the test too.
    shown: the classes of each training case.
    """
    effort = CLASSIFICATION if isinstance(labels, ClassScheme) else SEGMENTATION
    batch = min(planned.batch_size, 2 ** max(1, math.floor(math.log2(num_images))))
    steps = min(planned.iterations, max(MIN_ITERATIONS, effort.most_passes * num_images // batch))
    fitted = of_length(planned.evolve(batch_size=batch), steps)
    return for_cases(fitted, labels, num_images, shown) if isinstance(labels, ClassScheme) else fitted
