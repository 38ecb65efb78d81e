"""One page that carries all it shows: sections of text, figures, tables and pictures, made into a single HTML file.

It opens from a memory stick: style, charts and pictures are in it, and its policy forbids every request. It follows
light and dark, prints, and reads well to a screen reader. What a page says is decided where it is put together;
here is how it looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from fmseg._version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"

#: text, a number to sort by, or nothing
Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Words:
    """Paragraphs."""

    paragraphs: tuple[str, ...]
    kind: str = "words"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, side by side."""

    rows: tuple[tuple[str, str], ...]
    kind: str = "facts"


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart (SVG text) or a picture (data URI), with its title and what it says."""

    title: str
    caption: str
    svg: str = ""
    picture: str = ""
    #: of a picture; a chart has its own
    alt: str = ""
    is_wide: bool = False

    @property
    def drawing(self) -> Markup:
        """The chart, whose texts were escaped where it was drawn."""
        return Markup(self.svg)


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures side by side, where there is room."""

    figures: tuple[Figure, ...]
    kind: str = "figures"


@dataclass(frozen=True, slots=True)
class Table:
    """A table that can be sorted by each of its columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    #: shown only once it is asked for
    is_folded: bool = False
    kind: str = "table"

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers only."""
        return tuple(
            any(row[index] is not None for row in self.rows)
            and all(isinstance(row[index], int | float | None) for row in self.rows)
            for index in range(len(self.columns))
        )


@dataclass(frozen=True, slots=True)
class Matrix:
    """Counts of what is (rows) by what it was taken for (columns)."""

    title: str
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    note: str = ""
    kind: str = "matrix"

    @property
    def shares(self) -> list[list[float]]:
        """Each count as a share of its row."""
        return [[count / max(sum(row), 1) for count in row] for row in self.counts]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture as a data URI, and what it is."""

    uri: str
    caption: str
    alt: str


@dataclass(frozen=True, slots=True)
class Shown:
    """One case: its name, what there is to say, and its pictures."""

    name: str
    note: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Cases:
    """Cases with their pictures, under one title."""

    title: str
    cases: tuple[Shown, ...]
    #: (name, colour) of what is drawn
    legend: tuple[tuple[str, str], ...] = ()
    kind: str = "cases"


Block = Words | Facts | Figures | Table | Matrix | Cases


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter of the page; ``lead`` is what a reader in a hurry should know of it."""

    title: str
    lead: str
    blocks: tuple[Block, ...]

    @property
    def anchor(self) -> str:
        """The name that links use."""
        return "-".join(self.title.lower().split())


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page: what it is about, the figures one looks for first, and its sections."""

    title: str
    subtitle: str
    #: (figure, what it is, more about it)
    headlines: tuple[tuple[str, str, str], ...]
    sections: Sequence[Section]
    #: day it was made, as 2026-01-31
    date: str
    #: what should not be overlooked
    warnings: tuple[str, ...] = ()


def render(page: Page) -> bytes:
    """Return the HTML of a page."""
    return templates().get_template("page.html").render(page=page, version=__version__).encode()


@cache
def templates() -> "Environment":
    """Return the templates, which escape all that they are given."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["cell"] = show_cell
    return found


def show_cell(value: Cell) -> str:
    """Return the text of a table's cell."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else value
