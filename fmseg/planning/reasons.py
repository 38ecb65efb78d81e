"""Numbers and their reasons: every rule returns both, and a ``Reasons`` collects them while a part is planned."""

from typing import TypeVar

from fmseg.records.plans import Reason

T = TypeVar("T")

#: what a rule returns: the value, and why it is that value, with the facts it was derived from
Decision = tuple[T, str]


class Reasons:
    """The reasons of one part of the plans, under a common prefix such as ``pretraining``; the top has none."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = f"{prefix}." if prefix else ""
        self._items: list[Reason] = []

    def keep(self, key: str, decision: Decision[T]) -> T:
        """Note the reason of a number and return its value."""
        value, because = decision
        self.share((key,), because)
        return value

    def share(self, keys: tuple[str, ...], because: str) -> None:
        """Note one reason for several numbers that are chosen together."""
        for key in keys:
            self._items.append(Reason(key=f"{self.prefix}{key}", because=because))

    def all(self) -> tuple[Reason, ...]:
        """Return what was noted, in order."""
        return tuple(self._items)


def between(first: float, last: float, progress: float, digits: int) -> float:
    """Return the number that lies at ``progress`` in [0, 1] between two numbers, rounded."""
    return round(first + (last - first) * progress, digits)


def between_powers(first: float, last: float, progress: float) -> float:
    """Return the number at ``progress`` between two positive numbers on a logarithmic scale."""
    return float(first ** (1 - progress) * last**progress)
