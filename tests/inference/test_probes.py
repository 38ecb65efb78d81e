"""Probes find what is there, and do not find what is not."""

import numpy as np
import pytest
import torch

from fmseg.errors import BadData
from fmseg.inference.probes import probe_images, probe_patches
from fmseg.networks.vit import ViT
from fmseg.records.labels import LabelScheme
from fmseg.records.plans import Architecture, Fold

ARCHITECTURE = Architecture(
    name="test",
    patch_size=8,
    width=24,
    depth=1,
    num_heads=2,
    mlp_ratio=2.0,
    ffn="mlp",
    num_registers=1,
    layer_scale=1.0,
    layer_norm_eps=1e-6,
    channels=1,
    image_size=(32, 32),
    position_interpolation="offset",
    position_antialias=False,
)
MOMENTS = ((0.5,), (0.25,))
CLASSES = LabelScheme(names=("a", "b"), values=((1,), (2,)), painted=(1, 2), has_regions=False, ignore=None)
REGIONS = LabelScheme(names=("ab", "b"), values=((1, 2), (2,)), painted=(1, 2), has_regions=True, ignore=None)


class Memory:
    """Prepared cases of one image each: patches of one grey value, which is their class where labels are true."""

    def __init__(self, num_cases: int, *, true_labels: bool = True, size: tuple[int, int] = (30, 44)) -> None:
        rng = np.random.default_rng(0)
        self.cases = {f"case{index}": range(index, index + 1) for index in range(num_cases)}
        self.images, self.labels = [], []
        for _ in range(num_cases):
            values, others = rng.integers(0, 3, (2, 4, 6))
            noise = rng.integers(0, 10, (4 * 8, 6 * 8))
            self.images.append(self._grow(values * 100, size) + noise[: size[0], : size[1]].astype(np.uint8))
            self.labels.append(self._grow(values if true_labels else others, size))

    def _grow(self, cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return cells.astype(np.uint8).repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]

    def image(self, index: int) -> np.ndarray:
        return self.images[index][None]

    def label(self, index: int) -> np.ndarray:
        return self.labels[index]

    @property
    def fold(self) -> Fold:
        names = tuple(self.cases)
        return Fold(train=names[: len(names) // 2], val=names[len(names) // 2 :])


@pytest.fixture
def vit() -> ViT:
    torch.manual_seed(0)
    return ViT(ARCHITECTURE)


@pytest.mark.parametrize("scheme", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_patches_are_told_apart_where_their_grey_is_the_class_and_not_where_it_is_not(vit, scheme):
    true, chance = (Memory(30, true_labels=true_labels) for true_labels in (True, False))
    assert probe_patches(vit, MOMENTS, true, true.fold, scheme) > 0.85
    assert probe_patches(vit, MOMENTS, chance, chance.fold, scheme) < 0.6


def test_images_are_told_apart_where_their_brightness_is_the_class_and_not_where_it_is_not(vit):
    store = Memory(80)
    patients = {case: f"p{index // 2}" for index, case in enumerate(store.cases)}
    bright = {case: str(store.images[index].mean() > 105) for index, case in enumerate(store.cases)}
    rng = np.random.default_rng(1)
    drawn = {case: str(rng.random() < 0.5) for case in store.cases}
    found = probe_images(vit, MOMENTS, store, store.fold, bright, patients)
    assert found["linear_f1"] > 0.8
    assert found["knn_f1"] > 0.6
    assert probe_images(vit, MOMENTS, store, store.fold, drawn, patients)["linear_f1"] < 0.75


def test_a_single_class_is_refused_and_not_scored(vit):
    store = Memory(8)
    same = dict.fromkeys(store.cases, "plane")
    with pytest.raises(BadData, match="one class alone"):
        probe_images(vit, MOMENTS, store, store.fold, same, {case: case for case in store.cases})


def test_the_same_features_have_the_same_score(vit):
    store = Memory(20)
    assert len({probe_patches(vit, MOMENTS, store, store.fold, CLASSES) for _ in range(2)}) == 1
