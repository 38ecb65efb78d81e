"""Training samples for classification: one augmented image, whole, with the share of each class in it."""

from collections.abc import Mapping, Sequence

import numpy as np

from fmseg.imaging.augment import apply_augmentation, sample_augmentation
from fmseg.records.recipe import Recipe
from fmseg.sampling.order import Draw, Purpose, generator
from fmseg.sampling.patches import describe_image, to_unit
from fmseg.sampling.store import Store

# C channels, H W pixels, K classes


class WholeImageDataset:
    """The images of some cases, centred on black of ``recipe.input_size``; each is of its case's classes.

    With ``recipe.mixup`` an image is mixed with another one drawn for it alone, so that what is mixed depends
    neither on the batch nor on the number of ranks.
    """

    def __init__(
        self,
        store: Store,
        targets: Mapping[str, np.ndarray],
        recipe: Recipe,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
    ) -> None:
        """targets: case -> (K,), its share of each class. mean, std: per channel, in [0, 1]."""
        self.store = store
        pairs = [(index, target) for case, target in targets.items() for index in store.cases[case]]
        self.indices = tuple(index for index, _ in pairs)
        self.targets = tuple(np.asarray(target, np.float32) for _, target in pairs)
        self.recipe = recipe
        self.mean = np.asarray(mean, np.float32)[:, None, None]
        self.std = np.asarray(std, np.float32)[:, None, None]
        self.seed = seed

    def __len__(self) -> int:
        return len(self.indices)

    def item(self, draw: Draw) -> dict[str, np.ndarray]:
        """Return image (C, H, W) float32, normalised, and target (K,) float32."""
        rng = generator(Purpose.PATCHES, self.seed, draw.epoch, draw.index)
        image, target = self._changed(rng, draw.index), self.targets[draw.index]
        if self.recipe.mixup > 0:
            other, share = int(rng.integers(len(self))), np.float32(rng.beta(self.recipe.mixup, self.recipe.mixup))
            image = share * image + (1 - share) * self._changed(rng, other)
            target = share * target + (1 - share) * self.targets[other]
        return {"image": (image - self.mean) / self.std, "target": target}

    def collate(self, draws: Sequence[Draw], items: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return image (B, C, H, W) and target (B, K)."""
        return {name: np.stack([item[name] for item in items]) for name in ("image", "target")}

    def describe(self, draw: Draw) -> str:
        """Return which image a draw is, for messages."""
        return describe_image(self.store, self.indices[draw.index])

    def _changed(self, rng: np.random.Generator, index: int) -> np.ndarray:
        size = self.recipe.input_size
        parameters = sample_augmentation(rng, self.recipe.augmentation, size)
        return apply_augmentation(to_unit(self.store.image(self.indices[index])), None, parameters, size)[0]
