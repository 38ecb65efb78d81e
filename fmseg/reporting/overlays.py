"""Label maps over images, and sheets of such pictures with captions.

Colours are Okabe and Ito's, which colour-blind people tell apart on grey images too.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: of label values 1, 2, ...; further ones begin again
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
#: strength of the filling; the contour is opaque
FILLING = 0.3

BACKGROUND, INK, FAINT = (255, 255, 255), (40, 40, 40), (120, 120, 120)
TEXT_PX, GAP_PX = 15, 8


def colour_of(value: int, colours: Sequence[Colour] = PALETTE) -> Colour:
    """Return the colour of a label value above 0."""
    return colours[(value - 1) % len(colours)]


def overlay(
    image: np.ndarray, labels: np.ndarray, colours: Sequence[Colour] = PALETTE, *, filling: float = FILLING
) -> np.ndarray:
    """Return the image with each label filled translucently and outlined: (h, w, 3) uint8.

    image: (h, w) grey or (h, w, 3) RGB, uint8. labels: (h, w), 0 stays as it is. Contours are as thick as
    the picture needs: 1 px in a patch, 3 px in a frame of 1000 px.
    """
    drawn = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image.copy()
    thickness = max(1, round(min(labels.shape) / 300))
    for value in np.unique(labels[labels != 0]).tolist():
        inside = labels == value
        colour = np.array(colour_of(value, colours), dtype=float)
        drawn[inside] = np.rint((1 - filling) * drawn[inside] + filling * colour).astype(np.uint8)
        drawn[contour(inside, thickness)] = colour.astype(np.uint8)
    return drawn


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]],
    columns: Sequence[str],
    *,
    legend: Mapping[str, Colour] | None = None,
    tile_px: int = 256,
) -> bytes:
    """Return a PNG with one captioned row of pictures per case, under the names of the columns.

    rows: a caption and as many pictures as there are columns, (h, w) or (h, w, 3) uint8, of any sizes: each is
    fitted into a square of ``tile_px``. legend: names and colours of the labels, shown at the bottom.
    """
    font = ImageFont.load_default(TEXT_PX)
    line = TEXT_PX + GAP_PX
    tiles = [[_tile(picture, tile_px) for picture in pictures] for _, pictures in rows]
    heights = [line + max(tile.height for tile in row) + 2 * GAP_PX for row in tiles]
    width = GAP_PX + len(columns) * (tile_px + GAP_PX)
    height = GAP_PX + line + sum(heights) + (line if legend else 0)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    lefts = [GAP_PX + column * (tile_px + GAP_PX) for column in range(len(columns))]
    for left, name in zip(lefts, columns, strict=True):
        draw.text((left, GAP_PX), _shortened(name, tile_px, font), FAINT, font)
    top = GAP_PX + line
    for (caption, _), row, row_height in zip(rows, tiles, heights, strict=True):
        draw.text((GAP_PX, top), _shortened(caption, width - 2 * GAP_PX, font), INK, font)
        for left, tile in zip(lefts, row, strict=True):
            sheet.paste(tile, (left, top + line))
        top += row_height
    _draw_legend(draw, top, legend or {}, font)
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _tile(picture: np.ndarray, size_px: int) -> Image.Image:
    return ImageOps.contain(Image.fromarray(picture).convert("RGB"), (size_px, size_px))


def _draw_legend(draw: ImageDraw.ImageDraw, top: int, legend: Mapping[str, Colour], font: Font) -> None:
    left = GAP_PX
    for name, colour in legend.items():
        draw.rectangle((left, top, left + TEXT_PX, top + TEXT_PX), colour)
        draw.text((left + TEXT_PX + GAP_PX, top), name, INK, font)
        left += TEXT_PX + 4 * GAP_PX + round(font.getlength(name))


def contour(inside: np.ndarray, thickness: int) -> np.ndarray:
    """Return the outermost pixels of a region; where it leaves the image, it has no contour."""
    import cv2

    core = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=thickness)
    return inside & (core == 0)


def _shortened(text: str, width_px: int, font: Font) -> str:
    """Return the text, its middle replaced by dots if it is wider than its place: ends tell names apart."""
    if font.getlength(text) <= width_px:
        return text
    kept = len(text)
    while kept > 2 and font.getlength(f"{text[: kept // 2]}...{text[len(text) - kept // 2 :]}") > width_px:
        kept -= 1
    return f"{text[: kept // 2]}...{text[len(text) - kept // 2 :]}"
