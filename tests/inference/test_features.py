import numpy as np
import pytest
import torch

from fmseg.inference.features import embed
from fmseg.networks.vit import ViT
from fmseg.records.plans import Architecture

ARCHITECTURE = Architecture(
    name="test",
    patch_size=8,
    width=32,
    depth=2,
    num_heads=2,
    mlp_ratio=2.0,
    ffn="mlp",
    num_registers=2,
    layer_scale=None,
    layer_norm_eps=1e-6,
    channels=1,
    image_size=(32, 32),
    position_interpolation="size",
    position_antialias=False,
)
NUMBERS = {"mean": (0.3,), "std": (0.2,)}


class Shelf:
    """Images of two sizes, one of them no multiple of the patch."""

    def __init__(self):
        rng = np.random.default_rng(0)
        sizes = [(32, 32), (30, 45), (32, 32), (32, 32), (30, 45)]
        self.images = [rng.integers(0, 256, (1, *size)).astype(np.uint8) for size in sizes]

    def image(self, index):
        return self.images[index]


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return ViT(ARCHITECTURE)


def test_features_keep_the_order_and_do_not_depend_on_the_batch(vit):
    together = embed(vit, Shelf(), [3, 0, 4, 1, 2], batch_size=2, **NUMBERS)
    alone = [embed(vit, Shelf(), [index], **NUMBERS)[0] for index in (3, 0, 4, 1, 2)]
    assert together.shape == (5, 64)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_float_images_in_unit_range_are_the_same_as_their_bytes(vit):
    shelf, unit = Shelf(), Shelf()
    unit.images = [image.astype(np.float32) / 255 for image in shelf.images]
    np.testing.assert_allclose(embed(vit, unit, [0, 1], **NUMBERS), embed(vit, shelf, [0, 1], **NUMBERS), atol=1e-5)
