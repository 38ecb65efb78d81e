"""attention.png and features.png: what a backbone sees in some images, for eyes.

attention.png shows where CLS looks in the last block, one column a head. features.png shows patch features by their
principal components: patches of one colour are alike to the network, and those of the background are left grey.

Legend: h w patches, H W pixels, D width, A heads.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import cv2
import numpy as np

INK, PAPER = "#333333", "white"
MOST_HEADS = 6
#: mean grey value of 255 below which a patch may be background
BLACK = 4


def attention_picture(images: Sequence[np.ndarray], maps: Sequence[np.ndarray]) -> bytes:
    """Return a PNG. images: grey (H, W) uint8 each. maps: (A, h, w) each; of more than six heads, six of them."""
    heads = range(0, len(maps[0]), -(-len(maps[0]) // MOST_HEADS))
    rows = []
    for image, attention in zip(images, maps, strict=True):
        shown = [np.stack([image] * 3, -1)]
        shown += [_heat(image, attention[head]) for head in heads]
        rows.append([*shown, _heat(image, attention.mean(0))])
    titles = ["image", *(f"head {head + 1}" for head in heads), "all heads"]
    return _sheet(rows, titles, "Where the class token looks in the last block", 2.2)


def feature_picture(images: Sequence[np.ndarray], features: Sequence[np.ndarray]) -> bytes:
    """Return a PNG. images: grey (H, W) uint8 each. features: (h, w, D) each."""
    colours = principal_colours(features, [_to_grid(i, f) for i, f in zip(images, features, strict=True)])
    rows = []
    for image, colour in zip(images, colours, strict=True):
        size = (image.shape[1], image.shape[0])
        coarse = (cv2.resize(colour, size, interpolation=cv2.INTER_NEAREST) * 255).astype(np.uint8)
        rows.append([np.stack([image] * 3, -1), coarse, _tinted(image, colour)])
    titles = ["image", "patch features", "on the image"]
    return _sheet(rows, titles, "Patches of one colour are alike to the network", 3.2)


def to_grey(image: np.ndarray) -> np.ndarray:
    """Return a stored image (C, H, W), uint8 or float16 in [0, 1], as (H, W) uint8: the mean of its channels."""
    mean = image.astype(np.float32).mean(0) * (1 if image.dtype == np.uint8 else 255)
    grey: np.ndarray = mean.clip(0, 255).astype(np.uint8)
    return grey


def principal_colours(features: Sequence[np.ndarray], grey: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return (h, w, 3) float32 in [0, 1] per image; the same colours mean the same in all of them.

    The first three components of all patches but the background are red, green and blue. Background is what is black
    from the border on, as beside an ultrasound's sector. DINOv2's authors part it off by the first component, which
    here may be the kind of image instead. grey: (h, w), mean grey value of each patch.
    """
    tokens = np.concatenate([part.reshape(-1, part.shape[-1]) for part in features]).astype(np.float64)
    is_front = np.concatenate([~_outside(part).ravel() for part in grey])
    is_front |= not is_front.any()
    colours = np.zeros((len(tokens), 3), np.float32)
    front = tokens[is_front] - tokens[is_front].mean(0)
    found = _components(front, 3)
    low, high = np.percentile(found, (2, 98), axis=0)
    colours[is_front] = ((found - low) / np.maximum(high - low, 1e-9)).clip(0, 1)
    sizes = [part.shape[:2] for part in features]
    parts = np.split(colours, np.cumsum([h * w for h, w in sizes])[:-1])
    return [part.reshape(*size, 3) for part, size in zip(parts, sizes, strict=True)]


def _outside(grey: np.ndarray) -> np.ndarray:
    """Return (h, w) bool: the black patches that hang together with the border."""
    _, regions = cv2.connectedComponents((grey < BLACK).astype(np.uint8), connectivity=4)
    border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    found: np.ndarray = np.isin(regions, border[border > 0])
    return found


def _components(points: np.ndarray, count: int) -> np.ndarray:
    """Return the coordinates (n, count) of centred points along their principal axes; the axes' signs are fixed."""
    _, axes = np.linalg.eigh(points.T @ points)
    axes = axes[:, ::-1][:, :count]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), range(axes.shape[1])])
    found: np.ndarray = points @ axes
    return found


def _to_grid(image: np.ndarray, features: np.ndarray) -> np.ndarray:
    grid: np.ndarray = cv2.resize(image, (features.shape[1], features.shape[0]), interpolation=cv2.INTER_AREA)
    return grid


def _tinted(image: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8: the image in the colours of its patches, grey where they are background."""
    size = (image.shape[1], image.shape[0])
    tint = cv2.resize(colour, size, interpolation=cv2.INTER_LINEAR)
    is_front = cv2.resize((colour.max(-1) > 0).astype(np.float32), size, interpolation=cv2.INTER_LINEAR)[..., None]
    light = image.astype(np.float32)[..., None] / 255
    mixed = light * (1 - is_front) + np.sqrt(light) * tint * is_front
    return (mixed.clip(0, 1) * 255).astype(np.uint8)


def _heat(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8: the image, glowing where the attention is."""
    from matplotlib import colormaps

    size = (image.shape[1], image.shape[0])
    low, high = np.percentile(attention, (40, 99.7))
    scaled = ((attention - low) / max(float(high - low), 1e-12)).clip(0, 1).astype(np.float32)
    heat = cv2.resize(scaled, size, interpolation=cv2.INTER_CUBIC).clip(0, 1)[..., None]
    glow = colormaps["inferno"](heat[..., 0])[..., :3]
    grey = image.astype(np.float32)[..., None] / 255
    mixed = grey * (1 - heat) * 0.8 + glow * heat
    return (mixed.clip(0, 1) * 255).astype(np.uint8)


def _sheet(rows: list[list[np.ndarray]], titles: Sequence[str], title: str, cell_in: float) -> bytes:
    """Return a PNG of pictures in rows and columns, each ``cell_in`` inches wide and in its own proportions."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    aspects = [row[0].shape[0] / row[0].shape[1] for row in rows]
    width, height = cell_in * len(titles), cell_in * sum(aspects) + 0.7
    figure = Figure(figsize=(width, height), dpi=100, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.005, ha="left", fontsize=12, fontweight="bold", color=INK)
    grid: Any = figure.subplots(len(rows), len(titles), squeeze=False, height_ratios=aspects)
    for places, pictures in zip(grid, rows, strict=True):
        for axes, picture in zip(places, pictures, strict=True):
            axes.imshow(picture, interpolation="antialiased", aspect="equal")
            axes.set_axis_off()
    for axes, text in zip(grid[0], titles, strict=True):
        axes.set_title(text, fontsize=9, color=INK)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
