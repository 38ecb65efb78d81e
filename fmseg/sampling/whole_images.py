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
        if self.recipe.mixup > 0 or self.recipe.cutmix > 0:
            image, target = self._mixed(rng, image, target)
        return {"image": (image - self.mean) / self.std, "target": target}

    def collate(self, draws: Sequence[Draw], items: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return image (B, C, H, W) and target (B, K)."""
        return {name: np.stack([item[name] for item in items]) for name in ("image", "target")}

    def describe(self, draw: Draw) -> str:
        """Return which image a draw is, for messages."""
        return describe_image(self.store, self.indices[draw.index])

    def _mixed(self, rng: np.random.Generator, image: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return an image mixed with another one, or with a box of another one in it."""
        mixup, cutmix = self.recipe.mixup, self.recipe.cutmix
        other = int(rng.integers(len(self)))
        is_cut = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
        share = np.float32(rng.beta(cutmix, cutmix) if is_cut else rng.beta(mixup, mixup))
        if is_cut:
            rows, columns = sample_box(rng, (image.shape[1], image.shape[2]), 1 - float(share))
            changed = self._changed(rng, other)
            image = image.copy()
            image[:, rows, columns] = changed[:, rows, columns]
            # what a box that reached over the border really covers
            share = np.float32(1 - image[0, rows, columns].size / image[0].size)
        else:
            image = share * image + (1 - share) * self._changed(rng, other)
        return image, share * target + (1 - share) * self.targets[other]

    def _changed(self, rng: np.random.Generator, index: int) -> np.ndarray:
        size = self.recipe.input_size
        parameters = sample_augmentation(rng, self.recipe.augmentation, size)
        return apply_augmentation(to_unit(self.store.image(self.indices[index])), None, parameters, size)[0]


def sample_box(rng: np.random.Generator, size: tuple[int, int], area: float) -> tuple[slice, slice]:
    """Return rows and columns of a box with the image's aspect, around a random pixel; it ends at the border.

    size: (H, W). area: its share of the image, before that [1].
    [1] Yun et al., CutMix, 2019. https://arxiv.org/abs/1905.04899
    """
    slices = []
    for side in size:
        half, centre = int(side * area**0.5) // 2, int(rng.integers(side))
        slices.append(slice(max(0, centre - half), min(side, centre + half)))
    return slices[0], slices[1]
