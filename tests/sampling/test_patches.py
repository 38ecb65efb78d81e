"""Training windows: place, normalisation, forced foreground."""

import numpy as np
import pytest
from memory_store import RECIPE, STILL, MemoryStore, made_store

from fmseg.errors import BadData
from fmseg.sampling.order import Draw
from fmseg.sampling.patches import PatchDataset, sample_window, to_unit
from fmseg.sampling.presence import find_values, images_by_class

STILL_RECIPE = RECIPE.model_copy(update={"augmentation": STILL})


def dataset(store, recipe=RECIPE, indices=None, **options):
    indices = range(len(store)) if indices is None else indices
    return PatchDataset(store, indices, recipe, mean=[0.25], std=[0.5], seed=7, **options)


def test_an_item_is_normalised_and_of_the_input_size():
    item = dataset(made_store(3)).item(Draw(0, 0, 0, 1))
    assert item["image"].shape == (1, 32, 48)
    assert item["image"].dtype == np.float32
    assert item["label"].shape == (32, 48)
    assert item["label"].dtype == np.int64
    unit = item["image"] * 0.5 + 0.25
    assert unit.min() >= -1e-6
    assert unit.max() <= 1 + 1e-6


def test_a_small_image_is_shown_whole_on_black_background():
    store = made_store(2, size=(20, 24))
    item = dataset(store, STILL_RECIPE, indices=[1]).item(Draw(0, 7, 0, 0))
    np.testing.assert_allclose(item["image"][:, 6:26, 12:36] * 0.5 + 0.25, store.images[1] / 255, atol=1e-6)
    np.testing.assert_array_equal(item["label"][6:26, 12:36], store.labels[1])
    assert (item["image"][0, :6] == -0.5).all()
    assert (item["label"][:6] == 0).all()


def test_windows_of_a_large_image_are_cut_everywhere():
    image = np.arange(60 * 70, dtype=np.float16).reshape(1, 60, 70) / 4200
    store = MemoryStore([image], [np.arange(60 * 70, dtype=np.int16).reshape(60, 70)])
    corners = {int(dataset(store, STILL_RECIPE).item(Draw(0, 0, epoch, 0))["label"][0, 0]) for epoch in range(300)}
    rows, columns = {corner // 70 for corner in corners}, {corner % 70 for corner in corners}
    assert min(rows) == 0
    assert max(rows) == 60 - 32
    assert min(columns) == 0
    assert max(columns) == 70 - 48


def test_the_last_positions_of_a_batch_show_each_class_equally_often():
    store = made_store(1, size=(200, 240))
    found = dataset(store, STILL_RECIPE)
    forced = [set(np.unique(found.item(Draw(0, 7, epoch, 0))["label"])) - {0} for epoch in range(200)]
    assert all(forced)
    assert np.mean([2 in classes for classes in forced]) == pytest.approx(0.5, abs=0.12)
    free = [set(np.unique(found.item(Draw(0, 5, epoch, 0))["label"])) - {0} for epoch in range(200)]
    assert np.mean([bool(classes) for classes in free]) < 0.7
    assert [position for position in range(8) if position >= found.first_forced] == [6, 7]


def test_ignored_pixels_are_no_class_but_pass_through():
    label = np.zeros((100, 100), np.uint8)
    label[:50] = 5
    label[90:92, 3:5] = 1
    store = MemoryStore([np.full((1, 100, 100), 99, np.uint8)], [label])
    labels = [dataset(store, STILL_RECIPE, ignore=5).item(Draw(0, 7, epoch, 0))["label"] for epoch in range(40)]
    assert all((found == 1).any() for found in labels)
    free = [dataset(store, STILL_RECIPE, ignore=5).item(Draw(0, 0, epoch, 0))["label"] for epoch in range(40)]
    assert any((found == 5).any() for found in free)


def test_an_image_without_foreground_is_cut_anywhere():
    store = MemoryStore([np.full((1, 100, 100), 99, np.uint8)], [np.zeros((100, 100), np.uint8)])
    assert not dataset(store).item(Draw(0, 7, 0, 0))["label"].any()


def test_the_result_depends_on_epoch_and_index_alone():
    found = dataset(made_store(3))
    first, again = found.item(Draw(4, 0, 2, 1)), found.item(Draw(9, 3, 2, 1))
    np.testing.assert_array_equal(first["image"], again["image"])
    assert (first["image"] != found.item(Draw(4, 0, 3, 1))["image"]).any()


def test_an_image_without_label_map_is_refused():
    store = MemoryStore([np.zeros((1, 40, 40), np.uint8)])
    with pytest.raises(BadData, match="no label map"):
        dataset(store).item(Draw(0, 0, 0, 0))


def test_windows_stay_inside_the_image():
    rng = np.random.default_rng(0)
    assert sample_window(rng, (20, 30), (32, 48), (0, 0)) == (-6, -9)
    assert sample_window(rng, (100, 100), (32, 48), (0, 99)) == (0, 52)
    assert sample_window(rng, (100, 100), (32, 48), (50, 50)) == (34, 26)


def test_both_kinds_of_stored_values_come_back_in_the_unit_range():
    assert to_unit(np.array([0, 255], np.uint8)).tolist() == [0, 1]
    assert to_unit(np.array([0, 0.5], np.float16)).tolist() == [0, 0.5]


def rare_store():
    """Twenty images that fit into the window: all show class 1, one shows class 2."""
    store = made_store(20, size=(24, 40))
    store.labels[:, -2:, -3:] = 0
    store.labels[7, -2:, -3:] = 2
    return store


def test_rare_classes_are_shown_as_often_as_others_in_the_last_positions():
    store = rare_store()
    data = dataset(store, STILL_RECIPE, showing=images_by_class(find_values(store), range(20), [(1,), (2,)]))
    forced = [(data.item(Draw(0, 7, epoch, 3))["label"] == 2).any() for epoch in range(200)]
    assert np.mean(forced) == pytest.approx(0.5 + 0.5 / 20, abs=0.1)
    free = [(data.item(Draw(0, 0, epoch, 3))["label"] == 2).any() for epoch in range(20)]
    assert not any(free)
    names = {data.describe(Draw(0, 7, epoch, 3)) for epoch in range(20)}
    assert "case_007" in names and data.describe(Draw(0, 0, 0, 3)) == "case_003"


def test_slices_of_volumes_are_drawn_by_what_they_show_themselves():
    """Every volume shows the class, and few of its slices do: all forced draws show it, whatever a case is."""
    label = np.zeros((60, 32, 48), np.uint8)
    label[::20, 4:9, 6:12] = 1
    for per_case in (1, 20):
        store = MemoryStore(np.full((60, 1, 32, 48), 90, np.uint8), label, per_case)
        data = dataset(store, STILL_RECIPE, showing=images_by_class(find_values(store), range(60), [(1,)]))
        assert all(data.item(Draw(0, 7, epoch, epoch % 60))["label"].any() for epoch in range(60))
        free = [data.item(Draw(0, 0, epoch, epoch))["label"].any() for epoch in range(60)]
        assert sum(free) == 3
