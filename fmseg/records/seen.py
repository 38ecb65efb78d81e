"""What a model had met of some images before it was asked about them."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal, Self

from fmseg.records.record import Part

#: training: among the labelled cases that it was trained or validated on; pretraining: there, without its label
Sight = Literal["no", "pretraining", "training", "unknown"]


class Seen(Part):
    """How many of some cases a model had met before; a case counts once, with the more telling of two places."""

    num_cases: int
    #: among the labelled cases that it was trained or validated on
    training: int
    #: in the pretraining, without their labels
    pretraining: int
    #: neither here nor there as far as is known, but the lists of what was seen are not all at hand
    unknown: int

    @classmethod
    def of(cls, sights: Iterable[Sight]) -> Self:
        """Count the sights of some cases."""
        counts = Counter(sights)
        return cls(
            num_cases=counts.total(),
            training=counts["training"],
            pretraining=counts["pretraining"],
            unknown=counts["unknown"],
        )

    @property
    def sentence(self) -> str:
        """One sentence that says it."""
        parts = [
            *([f"{self.training} in training, with their labels"] if self.training else []),
            *([f"{self.pretraining} in pretraining, without their labels"] if self.pretraining else []),
            *([f"of {self.unknown} it is not known"] if self.unknown else []),
        ]
        return f"Seen before, of {self.num_cases} cases: {'; '.join(parts) or 'none'}."
