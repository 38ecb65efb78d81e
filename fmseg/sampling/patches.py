"""Training samples for segmentation: one augmented window of one stored image, with its label map."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fmseg.errors import BadData
from fmseg.imaging.augment import apply_augmentation, sample_augmentation
from fmseg.imaging.case import Array
from fmseg.records.recipe import Recipe
from fmseg.sampling.distinct import Images
from fmseg.sampling.order import Draw, Purpose, generator
from fmseg.sampling.store import Store


class PatchDataset:
    """The images of one fold.

    Images larger than ``recipe.input_size`` are cut at a random place, smaller ones centred on black. There
    the label is background: nothing is shown, and the network has to say so, as it does outside the sector.
    The last ``recipe.foreground_share`` of each batch show a class drawn at random, rare ones as often as others: their
    images are drawn anew among those that show it (``showing``), windows around a pixel of a class that is there.
    """

    def __init__(
        self,
        store: Store,
        indices: Sequence[int],
        recipe: Recipe,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        ignore: int | None = None,
        showing: Sequence[Array] = (),
    ) -> None:
        """indices: of the store. mean, std: per channel, in [0, 1]. ignore: label value that is no class.

        showing: the indices that show each class, as of ``presence``; empty to take images as they come.
        """
        self.store = store
        self.indices = tuple(indices)
        self.recipe = recipe
        self.mean = np.asarray(mean, np.float32)[:, None, None]
        self.std = np.asarray(std, np.float32)[:, None, None]
        self.seed = seed
        self.ignore = ignore
        self.showing = tuple(showing)
        self.first_forced = recipe.batch_size - round(recipe.batch_size * recipe.foreground_share)

    def __len__(self) -> int:
        return len(self.indices)

    def item(self, draw: Draw) -> dict[str, np.ndarray]:
        """Return image (C, H, W) float32, normalised, and label (H, W) int64.

        Raises BadData if the image has no label map.
        """
        rng = generator(Purpose.PATCHES, self.seed, draw.epoch, draw.index)
        index, size = self._image_of(draw, rng), self.recipe.input_size
        image, label = to_unit(self.store.image(index)), self.store.label(index)
        if label is None:
            raise BadData("it has no label map. Add one to labelsTr, or leave the case out of the folds.")
        parameters = sample_augmentation(rng, self.recipe.augmentation, size)
        shown = foreground_pixel(rng, label, self.ignore) if self._is_forced(draw, label) else None
        origin = sample_window(rng, (label.shape[0], label.shape[1]), size, shown)
        image, label = apply_augmentation(image, label, replace(parameters, origin=origin), size)
        return {"image": (image - self.mean) / self.std, "label": label}

    def collate(self, draws: Sequence[Draw], items: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return image (B, C, H, W) and label (B, H, W)."""
        return {name: np.stack([item[name] for item in items]) for name in ("image", "label")}

    def describe(self, draw: Draw) -> str:
        """Return which image a draw is, for messages."""
        rng = generator(Purpose.PATCHES, self.seed, draw.epoch, draw.index)
        return describe_image(self.store, self._image_of(draw, rng))

    def _image_of(self, draw: Draw, rng: np.random.Generator) -> int:
        """Return the image of a draw: its own, or another one that shows a class."""
        if draw.position < self.first_forced or not self.showing:
            return self.indices[draw.index]
        images = self.showing[int(rng.integers(len(self.showing)))]
        return int(images[rng.integers(len(images))])

    def _is_forced(self, draw: Draw, label: np.ndarray) -> bool:
        """Whether the window must show a class; an image that fits into it is shown whole anyway."""
        height, width = self.recipe.input_size
        return draw.position >= self.first_forced and (label.shape[0] > height or label.shape[1] > width)


def foreground_pixel(rng: np.random.Generator, label: np.ndarray, ignore: int | None) -> tuple[int, int] | None:
    """Return (row, column) of a random pixel of a random class of the label map; None if it has none."""
    present = np.flatnonzero(np.bincount(label.ravel())).tolist()
    classes = [value for value in present if value not in (0, ignore)]
    if not classes:
        return None
    pixels = np.flatnonzero(label == classes[rng.integers(len(classes))])
    row, column = divmod(int(pixels[rng.integers(len(pixels))]), label.shape[1])
    return row, column


def sample_window(
    rng: np.random.Generator, image_hw: tuple[int, int], size: tuple[int, int], shown: tuple[int, int] | None
) -> tuple[int, int]:
    """Return (row, column) of the window's upper left pixel in the image.

    It is negative along an axis where the image is smaller, and so centred. shown: pixel that the window is
    centred on as far as the image reaches; None for anywhere.
    """
    origin = []
    for axis in (0, 1):
        room = image_hw[axis] - size[axis]
        if room <= 0:
            origin.append(room // 2)
        elif shown is None:
            origin.append(int(rng.integers(room + 1)))
        else:
            origin.append(min(max(shown[axis] - size[axis] // 2, 0), room))
    return origin[0], origin[1]


def to_unit(image: np.ndarray) -> np.ndarray:
    """Return a stored image as float32 in [0, 1]."""
    values = image.astype(np.float32)
    return values / np.float32(255) if image.dtype == np.uint8 else values


def describe_image(store: Images, index: int) -> str:
    """Return the case of a stored image and, for a stack, the number of the image in it."""
    for case, images in store.cases.items():
        if index in images:
            return f"{case}, image {index - images.start + 1} of {len(images)}" if len(images) > 1 else case
    return f"image {index}"
