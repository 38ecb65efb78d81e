"""Which labels speak of left or right, so that a mirrored image would be labelled wrongly.

A name does if a word of it says so, however the words are joined: ``left_kidney``, ``kidneyLeft``, ``LEFT-KIDNEY``,
``leftkidney``. A mere letter may mean anything, so ``kidney_L``, ``lkidney`` or ``LV`` do only where another label is
the same with the other side's letter.
"""

import re
from collections.abc import Iterator, Sequence

#: words of one side, in languages that labels are written in
SIDES = frozenset(
    (
        *("left", "right", "lt", "rt", "lft", "rgt", "lhs", "rhs"),
        *("sinister", "sinistra", "sinistrum", "sinistro", "dexter", "dextra", "dextrum", "destra", "destro"),
        *("links", "linke", "linker", "linkes", "rechts", "rechte", "rechter", "rechtes", "gauche", "droit", "droite"),
        *("izquierda", "izquierdo", "derecha", "derecho", "esquerda", "esquerdo", "direita", "direito"),
    )
)
#: what a side's word and letter are
MARKS = {"left": "l", "right": "r"}
#: words that begin or end like a side and mean none
OTHERS = re.compile(
    r"^(leftover|righteous|rightful)|(bright|cleft|fright|wright|upright|aright|alright|outright|downright|forthright"
    r"|copyright|birthright)s?$"
)
WORD_BREAK = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
WORD = re.compile(r"[^\W\d_]+|\d+")


def sided_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names that speak of left or right, in their order."""
    readings = {name: set(_readings(words_of(name))) for name in names}
    everything = set().union(*readings.values())
    opposite = {"left": "right", "right": "left"}
    return tuple(
        name
        for name in names
        if any(map(_is_side, words_of(name)))
        or any((opposite[side], rest) in everything for side, rest in readings[name])
    )


def why_unmirrored(sided: Sequence[str]) -> str:
    """Return why labels that speak of left or right forbid mirroring, in words."""
    named = ", ".join(sided[:4]) + (f" and {len(sided) - 4} more" if len(sided) > 4 else "")
    return f"labels speak of left or right ({named}), and a mirrored image would say the opposite"


def words_of(name: str) -> list[str]:
    """Return the words and numbers of a name in lower case: ``LungLower_2`` has lung, lower and 2."""
    return [word.lower() for word in WORD.findall(WORD_BREAK.sub(" ", name))]


def _is_side(word: str) -> bool:
    if word in SIDES:
        return True
    return not OTHERS.search(word) and (word.startswith(tuple(MARKS)) or word.endswith(tuple(MARKS)))


def _readings(words: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what a name may say of a side: the side, and its words without that, in any order."""
    for index, word in enumerate(words):
        for side, letter in MARKS.items():
            others = {word.replace(side, "*", 1)} if side in word else set()
            others |= {"*" + word[1:]} if word.startswith(letter) else set()
            others |= {word[:-1] + "*"} if word.endswith(letter) else set()
            for other in others:
                yield side, tuple(sorted([*words[:index], other, *words[index + 1 :]]))
