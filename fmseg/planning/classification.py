"""The numbers of a finetuning that classes of whole cases need: how much each class counts, how sure to become."""

import math

from fmseg.planning.reasons import Decision
from fmseg.records.fingerprint import Fingerprint
from fmseg.records.labels import ClassScheme

#: classes whose frequencies differ by less than this factor count alike
ALIKE = 1.5
#: of the loss of a rare class
MOST_WEIGHT = 10.0
#: below so many training images, a head leans on single features
FEW_IMAGES = 1000


def class_weights_of(fingerprint: Fingerprint, scheme: ClassScheme) -> Decision[tuple[float, ...]]:
    """Return the factor on the loss of each class; none where classes are about as frequent as each other."""
    share_of = {facts.name: facts.case_share for facts in fingerprint.classes}
    # a class whose images cannot be read has none; its loss is still no division by zero
    shares = [max(share_of[name], 1 / fingerprint.num_cases) for name in scheme.names]
    counts = [round(share * fingerprint.num_cases) for share in shares]
    if not scheme.is_exclusive:
        weights = [min(MOST_WEIGHT, math.sqrt((1 - share) / share)) if share < 1 else 1.0 for share in shares]
        return tuple(round(weight, 3) for weight in weights), (
            f"the root of absent to present cases: a class is shown by {min(counts):,} to {max(counts):,} of "
            f"{fingerprint.num_cases:,}"
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


def mixup_of() -> Decision[float]:
    """Return the strength of mixup."""
    return 0.0, "two scans on top of each other are no scan; 0.2 is the usual value where it helps"
