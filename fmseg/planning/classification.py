"""The numbers of a finetuning that classes of whole cases need: how much each class counts, how sure to become."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from fmseg.planning.reasons import Decision, Reasons, between_powers
from fmseg.records.labels import ClassScheme
from fmseg.records.plans import Reason
from fmseg.records.recipe import Recipe

#: classes whose frequencies differ by less than this factor count alike
ALIKE = 1.5
#: of the loss of a rare class
MOST_WEIGHT = 10.0
#: below so many training images, a head leans on single features
FEW_IMAGES = 1000
#: passes over the training images from which on they are learned by heart unless they are mixed
LONG_PASSES = 100
#: alpha of mixup and of CutMix
PAPERS_MIXING = (0.8, 1.0)
#: highest learning rates of weights that were pretrained a little, and well: of the first, found by trial (LOG.md)
WEAK_RATE, STRONG_RATE = 3e-4, 1e-4


def class_weights_of(share_of: Mapping[str, float], num_cases: int, scheme: ClassScheme) -> Decision[tuple[float, ...]]:
    """Return the factor on the loss of each class; none where classes are about as frequent as each other.

    share_of: of the cases, those that show each class.
    """
    # a class of no case has a loss of no account; it is still no division by zero
    shares = [max(share_of[name], 1 / num_cases) for name in scheme.names]
    counts = [round(share * num_cases) for share in shares]
    if not scheme.is_exclusive:
        weights = [min(MOST_WEIGHT, math.sqrt((1 - share) / share)) if share < 1 else 1.0 for share in shares]
        return tuple(round(weight, 3) for weight in weights), (
            f"the root of absent to present cases: a class is shown by {min(counts):,} to {max(counts):,} of "
            f"{num_cases:,}"
        )
    if max(shares) < ALIKE * min(shares):
        return (), f"classes are about equally frequent: {min(counts):,} to {max(counts):,} cases each"
    scale = sum(math.sqrt(share) for share in shares)
    weights = [min(MOST_WEIGHT, 1 / (math.sqrt(share) * scale)) for share in shares]
    return tuple(round(weight, 3) for weight in weights), (
        f"{min(counts):,} to {max(counts):,} cases a class: the inverse root of the frequency, half way between "
        "counting each case and counting each class alike; 1 on average over the cases"
    )


def label_smoothing_of(scheme: ClassScheme) -> Decision[float]:
    """Return the share of the target that is spread over all classes."""
    if not scheme.is_exclusive:
        return 0.0, "each class is a question of its own"
    return 0.1, "people disagree about some cases, so no network should be certain; the usual tenth"


def head_dropout_of(num_training: int) -> Decision[float]:
    """Return the share of the features that the head does not see in a step."""
    if num_training >= FEW_IMAGES:
        return 0.0, f"{num_training:,} training images keep the head honest"
    return 0.2, f"{num_training:,} training images, below {FEW_IMAGES:,}: the head should not lean on single features"


def mixing_of(passes: float) -> Decision[tuple[float, float]]:
    """Return mixup's and CutMix's alpha. passes: how often a run sees each training image."""
    if passes < LONG_PASSES:
        return (0.0, 0.0), f"{passes:.0f} passes over the training images, below {LONG_PASSES}: too few to need it"
    return PAPERS_MIXING, f"the paper's, in 200 passes; {passes:.0f} here. Each image gets one of them"


def mixed(recipe: Recipe, num_images: int) -> Recipe:
    """Return a recipe that mixes images as its passes over so many training images ask for."""
    (mixup, cutmix), _ = mixing_of(recipe.iterations * recipe.batch_size / num_images)
    return recipe.evolve(mixup=mixup, cutmix=cutmix)


def for_cases(recipe: Recipe, scheme: ClassScheme, num_images: int, shown: Sequence[Collection[str]]) -> Recipe:
    """Return a planned recipe with what follows from the training cases, for these alone.

    num_images: of all of them. shown: the classes of each case.
    """
    counts = Counter(name for classes in shown for name in set(classes))
    share_of = {name: counts[name] / len(shown) for name in scheme.names}
    return mixed(recipe, num_images).evolve(
        class_weights=class_weights_of(share_of, len(shown), scheme)[0], head_dropout=head_dropout_of(num_images)[0]
    )


def careful_with_classes(recipe: Recipe, strength: float) -> tuple[Recipe, tuple[Reason, ...]]:
    """Return a planned recipe for pretrained weights. strength: how far that went, from 0 to 1.

    Label maps correct every patch; one label an image lets weights run away from features that a linear head reads.
    """
    reasons = Reasons("finetuning")
    rate = min(recipe.learning_rate, float(f"{between_powers(WEAK_RATE, STRONG_RATE, strength):.2g}"))
    because = (
        f"pretrained weights: {WEAK_RATE:g} for weak ones, for which 1e-3 took three times the steps in trials, "
        f"{STRONG_RATE:g} (the paper's) for well pretrained ones"
    )
    return recipe.evolve(learning_rate=reasons.keep("learning_rate", (rate, because))), reasons.all()
