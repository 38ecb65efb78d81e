import numpy as np
import pytest
from memory_store import RECIPE, STILL, made_store

from fmseg.imaging.prepare import centred, to_network
from fmseg.sampling.order import Draw
from fmseg.sampling.whole_images import WholeImageDataset, sample_box

TARGETS = {f"case_{start:03d}": np.eye(3)[index] for index, start in enumerate((0, 2, 4))}


def dataset(store=None, seed=0, **changes):
    store = store or made_store(6, per_case=2)
    return WholeImageDataset(store, TARGETS, RECIPE.evolve(**changes), mean=[0.3], std=[0.2], seed=seed)


def item(data, index, epoch=0):
    return data.item(Draw(0, 0, epoch, index))


def test_every_image_is_of_its_cases_class():
    data = dataset()
    assert len(data) == 6
    assert [int(item(data, index)["target"].argmax()) for index in range(6)] == [0, 0, 1, 1, 2, 2]


def test_a_sample_depends_on_seed_epoch_and_index_alone():
    one, again = (item(dataset(), 3) for _ in range(2))
    assert np.array_equal(one["image"], again["image"])
    assert not np.array_equal(one["image"], item(dataset(), 3, epoch=1)["image"])
    assert not np.array_equal(one["image"], item(dataset(seed=1), 3)["image"])


@pytest.mark.parametrize("size", [(20, 56), (40, 28), (32, 48), (60, 60)])
def test_unchanged_images_look_as_they_do_in_prediction(size):
    store = made_store(6, size=size, per_case=2)
    seen = item(dataset(store, augmentation=STILL.model_dump(mode="json")), 0)["image"]
    expected = to_network(centred(store.image(0), RECIPE.input_size), (0.3,), (0.2,))
    assert np.allclose(seen, expected, atol=1e-5)


def test_mixup_mixes_images_and_targets_alike():
    still = {"augmentation": STILL.model_dump(mode="json")}
    data = dataset(mixup=0.5, **still)
    plain = [item(dataset(**still), index) for index in range(6)]
    shares = []
    for index in range(6):
        found = item(data, index)
        assert found["target"].sum() == pytest.approx(1)
        # which of the others, and how much of it, is found by trying all of them
        residuals = []
        for other in plain:
            own, theirs = plain[index]["image"].ravel(), other["image"].ravel()
            difference = own - theirs
            share = float(difference @ (found["image"].ravel() - theirs) / max(difference @ difference, 1e-9))
            mixed = share * plain[index]["target"] + (1 - share) * other["target"]
            misfit = np.abs(share * own + (1 - share) * theirs - found["image"].ravel()).max()
            residuals.append((misfit, np.abs(mixed - found["target"]).max(), share))
        misfit, wrong, share = min(residuals)
        assert misfit < 1e-4 and wrong < 1e-4
        shares.append(share)
    assert len({round(share, 3) for share in shares}) > 1


def test_batches_are_stacked():
    data = dataset()
    items = [item(data, index) for index in range(4)]
    batch = data.collate([], items)
    assert batch["image"].shape == (4, 1, 32, 48) and batch["target"].shape == (4, 3)
    assert batch["target"].dtype == np.float32


def test_cutmix_puts_a_box_of_another_image_in_and_counts_its_pixels():
    still = {"augmentation": STILL.model_dump(mode="json")}
    data, plain = dataset(cutmix=1.0, **still), dataset(**still)
    images = [item(plain, index)["image"] for index in range(6)]
    for index in range(6):
        for epoch in range(3):
            found = item(data, index, epoch)
            others = [np.where(found["image"] == images[index], found["image"], image) for image in images]
            other = next(number for number, image in enumerate(others) if np.array_equal(image, found["image"]))
            share = 1 - (found["image"] != images[index]).any(axis=0).mean()
            expected = share * plain.targets[index] + (1 - share) * plain.targets[other]
            assert found["target"].sum() == pytest.approx(1)
            assert np.abs(found["target"] - expected).max() < 0.15  # some pixels of a box may be equal in both


def test_a_box_covers_its_area_and_stays_inside():
    rng = np.random.default_rng(0)
    for area in (0.0, 0.1, 0.5, 1.0):
        for _ in range(20):
            rows, columns = sample_box(rng, (48, 64), area)
            assert 0 <= rows.start <= rows.stop <= 48 and 0 <= columns.start <= columns.stop <= 64
            assert (rows.stop - rows.start) * (columns.stop - columns.start) <= area * 48 * 64 + 1e-6


def test_with_both_each_image_is_mixed_in_one_way():
    still = {"augmentation": STILL.model_dump(mode="json")}
    data, plain = dataset(mixup=1.0, cutmix=1.0, **still), dataset(**still)
    untouched = []
    for epoch in range(40):
        same = item(data, 0, epoch)["image"] == item(plain, 0)["image"]
        untouched.append(same.mean())
    # CutMix leaves the outside of its box as it is, mixup next to nothing
    assert 8 < sum(share > 0.3 for share in untouched) < 38
