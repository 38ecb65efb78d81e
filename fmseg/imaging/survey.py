"""What a dataset's images say together: odd ones out, mixed colours, images that are there twice.

One pass over the facts is enough, and nothing is kept of a single image but its keys; so it serves sets of millions.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fmseg.imaging.alike import NEAR_BITS, ImageKeys, is_repeated
from fmseg.imaging.looks import num_alike
from fmseg.records.fingerprint import CaseFacts, Finding, Fingerprint, Remedy, Severity

MAX_NAMES = 5
#: of an unlabelled set may be unreadable; more of them point to something else than bad files
MAX_SKIPPED_SHARE = 0.05
ALWAYS_SKIPPED = 10
#: findings of one kind about single files of an unlabelled set
MAX_ALIKE = 20
MIXED = "A network sees one kind of image; what only some have is no sign of anything."
ONE_NUMBER = "A network has one number of channels."
OTHER_VALUES = "Its grey values mean something else."
NUMBER = re.compile(r"\d[\d.,]*")


class Colours:
    """How many images are grey and how many are coloured."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._names: dict[str, list[str]] = {"grey": [], "coloured": []}

    def add(self, fact: CaseFacts) -> None:
        """Count one case."""
        kind = "grey" if fact.channels == 1 or fact.is_grey else "coloured" if fact.channels == 3 else ""
        self._counts[kind] += 1
        if kind and len(self._names[kind]) < MAX_NAMES:
            self._names[kind].append(fact.case)

    def findings(self, declared: int, used: int) -> Iterator[Finding]:
        """Find sets that mix grey and colour, or are declared as one and are the other. Both are channels."""
        num_grey, num_coloured = self._counts["grey"], self._counts["coloured"]
        if used == 1 and num_coloured:
            problem = f"{self._told('coloured')}, {num_grey} are grey"
            mend = "Nothing to do: only their brightness is used."
            yield finding("warning", "imagesTr", problem, mend, MIXED)
        if used == 3 and declared == 1:
            problem = f"'channel_names' has one channel, but {self._told('coloured')}; three channels are used"
            mend = 'Write {"0": "red", "1": "green", "2": "blue"}.'
            yield finding("warning", "dataset.json", problem, mend, "The declaration says something else.")
        elif used == 3 and num_grey:
            problem = f"{self._told('grey')}, {num_coloured} are coloured"
            mend = "Nothing to do: grey is used as three equal channels."
            yield finding("note", "imagesTr", problem, mend, MIXED)

    def _told(self, kind: str) -> str:
        number = self._counts[kind]
        names = listed(self._names[kind], number)
        return f"{number} {'image is' if number == 1 else 'images are'} {kind} ({names})"


def odd_kind(fact: CaseFacts, declared: int, measured: Fingerprint) -> Iterator[Finding]:
    """Find an image of other channels or another type than the set's."""
    if not fact.shape[0]:
        return
    if fact.channels != declared and not {fact.channels, declared} <= {1, 3}:
        has = f"{fact.channels} {'channel' if fact.channels == 1 else 'channels'}"
        problem = f"it has {has}, dataset.json declares {declared}"
        mend = "Give one file per channel, or correct 'channel_names'."
        yield finding("error", fact.case, problem, mend, ONE_NUMBER, [fact.case], "leave_out")
    if fact.dtype != measured.dtype == "uint8":
        problem = f"its values are {fact.dtype}, those of most images uint8"
        mend = "Save it with 8 bits per channel, as the others."
        yield finding("error", fact.case, problem, mend, OTHER_VALUES, [fact.case], "leave_out")


def is_too_many(num_bad: int, num_cases: int) -> bool:
    """Return whether too many images of an unlabelled set cannot be used to go on without them."""
    return num_bad > max(ALWAYS_SKIPPED, MAX_SKIPPED_SHARE * num_cases)


def summed_up(findings: Iterable[Finding], where: Path) -> Iterator[Finding]:
    """Yield the first findings of each kind as they are, and of the others how many there are."""
    counts: Counter[str] = Counter()
    for each in findings:
        kind = NUMBER.sub("N", each.problem)
        counts[kind] += 1
        if counts[kind] <= MAX_ALIKE:
            yield each
    for kind, count in counts.items():
        if count > MAX_ALIKE:
            problem = f"{count - MAX_ALIKE} more files are like those listed: {kind}"
            mend = "Mend them alike; cases.jsonl lists all of them."
            yield finding("warning", where, problem, mend, "They are not told one by one.")


def repetitions(keys: ImageKeys, where: Path) -> Iterator[Finding]:
    """Count images that are there more than once, and those that nearly are."""
    repeated = is_repeated(keys.content)
    if repeated.any():
        problem = f"{repeated.sum():,} of {len(repeated):,} images are equal to another one"
        mend = "Nothing to do: each is pretrained on once."
        yield finding("note", where, problem, mend, "Copies teach nothing new.")
    num_near = num_alike(keys.looks[np.logical_and(~repeated, keys.looks > 0)], NEAR_BITS)
    if num_near:
        problem = f"{num_near:,} of {len(repeated):,} images look{'s' if num_near == 1 else ''} nearly like another one"
        mend = "Those of one patient are thinned in pretraining. If there are many others, look for copies."
        yield finding("note", where, problem, mend, "Images that are nearly alike teach little that is new.")


def listed(names: Sequence[str], count: int | None = None) -> str:
    """Return the first of ``count`` names; by default of those given."""
    more = (len(names) if count is None else count) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def finding(
    severity: Severity,
    where: str | Path,
    problem: str,
    mend: str,
    why: str,
    cases: Sequence[str] = (),
    remedy: Remedy = "",
) -> Finding:
    """Return a finding; ``where`` may be a path."""
    return Finding(
        severity=severity,
        where=str(where),
        problem=problem,
        mend=mend,
        why=why,
        cases=tuple(cases),
        remedy=remedy,
    )
