"""Features of a whole store on disk: a frozen backbone sees each image once, for all folds and heads.

They lie in parts of some images each, written whole; so a killed run goes on with the part that it was at.
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from fmseg.console import track
from fmseg.files import sha256, writing
from fmseg.inference.classes import features_of
from fmseg.networks.classifier import Classifier
from fmseg.records.run import RunConfig

#: images of one file
PART = 256


class StoredImages(Protocol):
    """What is needed of a store."""

    digest: str

    def __len__(self) -> int:
        """Return the number of images."""

    def image(self, index: int) -> np.ndarray:
        """Return (C, h, w), uint8 or float16."""


def cached_features(model: Classifier, config: RunConfig, store: StoredImages, folder: Path) -> np.ndarray:
    """Return what the head sees of each image of a store: (N, F) float32; computed unless it is in ``folder``.

    A folder holds the features of one store, backbone and way to look at images; those of another are below another
    name.
    """
    place = folder / features_key(config, store.digest)
    firsts = range(0, len(store), PART)
    parts = []
    for first in track(firsts, "features", len(firsts)):
        path = place / f"{first:09d}.npy"
        if not path.exists():
            images = [store.image(index) for index in range(first, min(first + PART, len(store)))]
            found = features_of(model, config, images).astype(np.float32)
            with writing(path) as temporary, open(temporary, "wb") as file:
                np.lib.format.write_array(file, found, allow_pickle=False)
        parts.append(np.load(path, allow_pickle=False))
    return np.concatenate(parts)


def features_key(config: RunConfig, store_digest: str) -> str:
    """Return a name for all that decides the features."""
    recipe = config.recipe
    # random weights have no file of their own, but follow from the seed
    weights = config.init.sha256 or f"seed {recipe.seed}"
    facts = (recipe.input_size, recipe.batch_size, recipe.precision, recipe.head_blocks, config.mean, config.std)
    return sha256(f"{store_digest} {weights} {config.architecture.digest()} {facts}".encode())[:16]
