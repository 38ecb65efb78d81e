"""What ran, for whoever must trust a result: versions, command, time, energy."""

from collections.abc import Sequence
from typing import NamedTuple

from fmseg.console import duration
from fmseg.records.run import Provenance

#: of a whole busy machine with one such device, by rule of thumb: nobody measured it
WATTS = {"cpu": 100.0, "cuda": 500.0, "mps": 60.0}
SHORT = 12


class Spent(NamedTuple):
    """A time of computing, and on what; no device where nobody has noted it."""

    seconds: float
    device: str
    num_devices: int

    @property
    def watts(self) -> float:
        """Return what the machine draws, by assumption."""
        return WATTS[self.device] * self.num_devices


def provenance_rows(made: Provenance) -> list[tuple[str, str]]:
    """Return what made a result, as (what, value)."""
    algorithms = {True: "deterministic", False: "fast: rounding may differ", None: "not noted"}
    packages = ", ".join(f"{name} {version}" for name, version in made.packages.items() if version)
    rows = [
        ("fmseg", f"{made.fmseg}{f', commit {made.commit[:SHORT]}' if made.commit else ''}"),
        ("command", without_paths(made.command)),
        ("algorithms", algorithms[made.deterministic]),
        ("computed on", f"{made.num_devices} x {made.device}" if made.device else ""),
        ("packages", packages),
    ]
    return [(what, value) for what, value in rows if value]


def spent_rows(title: str, spent: Sequence[Spent]) -> list[tuple[str, str]]:
    """Return how long something took and what energy that was, as (what, value); title: of the first."""
    seconds = sum(each.seconds for each in spent)
    rows = [(title, duration(seconds) if seconds else "not noted")]
    energy = energy_words(spent)
    return [*rows, ("energy, estimated", energy)] if energy else rows


def energy_words(spent: Sequence[Spent]) -> str:
    """Return the energy of times of computing, and what that assumes; empty where not all is known."""
    known = [each for each in spent if each.seconds and each.device]
    if not known or len(known) < len(spent):
        return ""
    kwh = sum(each.watts * each.seconds for each in known) / 3.6e6
    watts = " or ".join(f"{each:,.0f} W" for each in sorted({each.watts for each in known}))
    return f"about {kwh:.2g} kWh, if the machine drew {watts}"


def without_paths(command: str) -> str:
    """Return a command line with absolute paths cut to their last part: where things lie on a machine is its own."""
    return " ".join(f"…/{word.rstrip('/').rpartition('/')[2]}" if word.startswith("/") else word
                    for word in command.split())  # fmt: skip
