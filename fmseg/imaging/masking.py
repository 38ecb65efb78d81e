"""Block masks for iBOT: which patches of a global view the student does not see.

A mask is a union of rectangles, drawn as in BEiT [1] and DINOv2. The share that is masked is stratified: the
range of ratios is cut into as many bins as there are masked images, so every batch holds easy and hard ones.
Here a mask is a Python integer whose bit r * columns + c stands for patch (r, c): placing a rectangle and
counting what it adds are then single operations, ten times as fast as on arrays of this size.
[1] Bao et al., BEiT, 2022. https://arxiv.org/abs/2106.08254
"""

import math
from collections.abc import Iterator

import numpy as np

TRIES = 10
MIN_BLOCK = 4
LOG_ASPECT = math.log(1 / 0.3)


def sample_masks(
    rng: np.random.Generator,
    num_images: int,
    grid: tuple[int, int],
    probability: float,
    ratio: tuple[float, float],
) -> np.ndarray:
    """Draw the masks of a batch of global views.

    grid: (rows, columns) of patches. probability: share of the images that are masked at all, rounded down.
    ratio: range of the share of their patches that is masked. Returns (num_images, rows * columns) bool,
    True = hidden; patches row by row. A masked image hides at least one patch, and may fall a few short of
    its count where no further rectangle fits.
    """
    num_patches = grid[0] * grid[1]
    num_masked = int(num_images * probability)
    edges = np.linspace(*ratio, num_masked + 1)
    counts = (num_patches * rng.uniform(edges[:-1], edges[1:])).astype(int)
    uniform = _uniforms(rng)
    masks = [_block_mask(uniform, grid, max(int(count), 1)) for count in counts]
    masks += [0] * (num_images - num_masked)
    num_bytes = -(-num_patches // 8)
    packed = np.frombuffer(b"".join(mask.to_bytes(num_bytes, "little") for mask in masks), np.uint8)
    bits = np.unpackbits(packed.reshape(num_images, num_bytes), axis=1, count=num_patches, bitorder="little")
    return bits.view(bool)[rng.permutation(num_images)]


def _block_mask(uniform: Iterator[float], grid: tuple[int, int], count: int) -> int:
    """Return a mask of ``count`` patches, or a few less."""
    num_patches = grid[0] * grid[1]
    mask = 0
    while (remaining := count - mask.bit_count()) > 0:
        for _ in range(TRIES):
            block = _block(uniform, grid, min(remaining, num_patches // 2))
            if 0 < (block & ~mask).bit_count() <= remaining:
                mask |= block
                break
        else:
            break
    return mask or 1 << int(next(uniform) * num_patches)


def _block(uniform: Iterator[float], grid: tuple[int, int], max_area: int) -> int:
    """Return one rectangle as a mask; 0 if it does not fit into the grid."""
    rows, columns = grid
    # with less than MIN_BLOCK left the range runs backwards, as published
    area = MIN_BLOCK + (max_area - MIN_BLOCK) * next(uniform)
    aspect = math.exp(LOG_ASPECT * (2 * next(uniform) - 1))
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    # a rectangle never spans the grid, unless the grid is a single row or column
    if height > max(rows - 1, 1) or width > max(columns - 1, 1):
        return 0
    top = int(next(uniform) * (rows - height + 1))
    left = int(next(uniform) * (columns - width + 1))
    line = ((1 << width) - 1) << left
    return sum(line << (columns * row) for row in range(top, top + height))


def _uniforms(rng: np.random.Generator) -> Iterator[float]:
    """Yield numbers in [0, 1); drawn in bulk, since one call a number would cost more than all the rest."""
    while True:
        yield from rng.random(512).tolist()
