"""Pretraining samples: the views of unlabelled images from any number of stores, and the masks of a batch."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np

from fmseg.errors import BadData
from fmseg.imaging.masking import sample_masks
from fmseg.imaging.views import make_views
from fmseg.records.plans import Pretraining
from fmseg.sampling.distinct import Images
from fmseg.sampling.order import Draw, Purpose, generator
from fmseg.sampling.patches import describe_image


class ViewDataset:
    """The images of several stores, one after the other.

    The masks of a step are drawn once for the whole batch of all ranks and micro-batches (stratified over
    it), and each micro-batch takes the masks of its samples. So its own masks differ from those of the
    others, and two ranks hide together exactly what one rank would. A small micro-batch may hide nothing.
    """

    def __init__(
        self, stores: Sequence[Images], recipe: Pretraining, *, seed: int, numbers: np.ndarray | None = None
    ) -> None:
        """numbers: of the images to be used, through all stores; None uses all."""
        self.stores = tuple(stores)
        self.recipe = recipe
        self.seed = seed
        self.ends = list(accumulate(len(store) for store in stores))
        self.numbers = numbers

    def __len__(self) -> int:
        if self.numbers is not None:
            return len(self.numbers)
        return self.ends[-1] if self.ends else 0

    def item(self, draw: Draw) -> dict[str, np.ndarray]:
        """Return globals (2, C, H, W) and locals (L, C, h, w) float32, normalised.

        Raises BadData if the image's channels are not those of the recipe.
        """
        store, index = self._locate(draw.index)
        image, recipe = store.image(index), self.recipe
        if len(image) != recipe.architecture.channels:
            raise BadData(
                f"it has {len(image)} channels, the backbone {recipe.architecture.channels}. "
                "Pretrain on datasets with the same channels only."
            )
        rng = generator(Purpose.VIEWS, self.seed, draw.epoch, draw.index)
        global_views, local_views = make_views(image, recipe.views, recipe.mean, recipe.std, rng)
        return {"globals": global_views, "locals": local_views}

    def collate(self, draws: Sequence[Draw], items: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return globals (2B, C, H, W), locals (L*B, C, h, w), and masks (2B, N) bool of the globals.

        All are crop-major: the first crops of all samples, then all second ones, and so on. The draws are of
        one step, and of batches of ``recipe.batch_size`` over all ranks and micro-batches.
        """
        crops = {name: np.stack([item[name] for item in items], axis=1) for name in ("globals", "locals")}
        batch = {name: views.reshape(-1, *views.shape[2:]) for name, views in crops.items()}
        masks = step_masks(self.recipe, self.seed, draws[0].step)
        own = masks.reshape(2, self.recipe.batch_size, -1)[:, [draw.position for draw in draws]]
        return batch | {"masks": own.reshape(2 * len(draws), -1)}

    def describe(self, draw: Draw) -> str:
        """Return which image a draw is, for messages."""
        return describe_image(*self._locate(draw.index))

    def _locate(self, index: int) -> tuple[Images, int]:
        index = index if self.numbers is None else int(self.numbers[index])
        number = bisect_right(self.ends, index)
        return self.stores[number], index - (self.ends[number - 1] if number else 0)


def mask_grid(recipe: Pretraining) -> tuple[int, int]:
    """Return (rows, columns) of patches of a global view."""
    height, width = recipe.views.global_size
    patch = recipe.architecture.patch_size
    return height // patch, width // patch


@lru_cache(maxsize=2)
def step_masks(recipe: Pretraining, seed: int, step: int) -> np.ndarray:
    """Return the masks of a whole step, (2 * batch_size, N) bool; kept for its other micro-batches."""
    rng = generator(Purpose.MASKS, seed, step)
    return sample_masks(rng, 2 * recipe.batch_size, mask_grid(recipe), recipe.mask_probability, recipe.mask_ratio)
