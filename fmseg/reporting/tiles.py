"""Many small pictures on one sheet, each with a title and some words below it."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fmseg.console import printable
from fmseg.files import writing

COLUMNS = 4
TILE_PX, MARGIN_PX, LINE_PX, FONT_PX = 240, 12, 16, 13
WORDS_PER_LINE, MAX_LINES = 38, 5
PAPER, INK, NOTHING = (255, 255, 255), (30, 30, 30), (225, 225, 225)


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture and what is said about it."""

    #: (Y, X) or (Y, X, 3) uint8; None where there is nothing to show
    picture: np.ndarray | None
    title: str
    words: str
    #: RGB, of the bar above the picture
    colour: tuple[int, int, int]


def draw_tiles(tiles: Sequence[Tile], path: Path) -> None:
    """Write the tiles as a PNG, row by row."""
    columns = min(COLUMNS, len(tiles))
    height = TILE_PX + (MAX_LINES + 1) * LINE_PX + 2 * MARGIN_PX
    size = (columns * (TILE_PX + MARGIN_PX) + MARGIN_PX, -(-len(tiles) // columns) * height + MARGIN_PX)
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_PX)
    for number, tile in enumerate(tiles):
        left = MARGIN_PX + number % columns * (TILE_PX + MARGIN_PX)
        top = MARGIN_PX + number // columns * height
        draw.rectangle((left, top, left + TILE_PX - 1, top + MARGIN_PX // 2), tile.colour)
        _place(sheet, tile.picture, (left, top + MARGIN_PX // 2))
        lines = textwrap.wrap(printable(tile.words, ""), WORDS_PER_LINE)
        if len(lines) > MAX_LINES:
            lines = [*lines[: MAX_LINES - 1], lines[MAX_LINES - 1][: WORDS_PER_LINE - 4] + " ..."]
        title = textwrap.shorten(printable(tile.title, ""), WORDS_PER_LINE - 4, placeholder=" ...")
        for row, line in enumerate([title, *lines]):
            at = (left, top + TILE_PX + MARGIN_PX + row * LINE_PX)
            draw.text(at, line, INK, font, stroke_width=0.3 if row == 0 else 0)
    with writing(path) as temporary:
        sheet.save(temporary, format="PNG")


def _place(sheet: Image.Image, picture: np.ndarray | None, corner: tuple[int, int]) -> None:
    """Paste a picture, shrunk or enlarged to the tile, in its middle."""
    frame = Image.new("RGB", (TILE_PX, TILE_PX), NOTHING)
    if picture is not None:
        shown = Image.fromarray(np.ascontiguousarray(picture)).convert("RGB")
        scale = TILE_PX / max(shown.size)
        size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
        shown = shown.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
        frame.paste(shown, ((TILE_PX - size[0]) // 2, (TILE_PX - size[1]) // 2))
    sheet.paste(frame, corner)
