"""The name of a case: what ``convert`` makes of a file's name, and which of two lists of names mean the same case.

Whoever gives a case its name, or looks for one under the name of its original file, asks here.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from fmseg.errors import BadData
from fmseg.records.endings import strip_ending


def plain_name(text: str) -> str:
    """Return a text as the name of a case: letters of any language with their accents, digits, dots, - and _."""
    # accents come apart from their letters in archives made on a Mac
    return re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text)).strip("_") or "case"


def match_names(names: Iterable[str], known: Collection[str], place: Path) -> dict[str, str]:
    """Return name -> the known one that it means: itself, or else the one of which ``convert`` makes the same.

    Names may have the ending of an image. Those that mean none are left out. place: where the names
    stand. Raises BadData if two may mean one case.
    """
    names = set(names)
    alike = defaultdict(list)
    for case in known:
        if case not in names or case == _case_of(case):
            alike[_case_of(case)].append(case)
    matched = {name: [name] if name in known else alike[_case_of(name)] for name in sorted(names)}
    owners: dict[str, str] = {}
    for name, cases in matched.items():
        if len(cases) > 1:
            raise BadData(f"{place}: '{name}' may be '{cases[0]}' or '{cases[1]}'. Give it the name of one of them.")
        other = owners.setdefault(cases[0], name) if cases else name
        if other != name:
            raise BadData(
                f"{place}: '{other}' and '{name}' may both be '{cases[0]}', which convert makes of either. "
                "Leave the one that it is."
            )
    return {name: cases[0] for name, cases in matched.items() if cases}


def _case_of(name: str) -> str:
    return plain_name(strip_ending(name))


def near_name(case: str, others: Iterable[str]) -> str | None:
    """Return a name that holds another one, in whole words, whatever their case: a folder's name in front, say."""

    def words(name: str) -> str:
        return f"_{re.sub(r'[.-]', '_', plain_name(name)).casefold()}_"

    return next((other for other in others if words(case) in words(other) or words(other) in words(case)), None)
