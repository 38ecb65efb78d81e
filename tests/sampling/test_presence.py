"""Which label values each image shows, and the images that show a class."""

import numpy as np
from memory_store import MemoryStore, made_store
from test_store import make_case, write

from fmseg.errors import EnvironmentProblem
from fmseg.sampling import presence
from fmseg.sampling.presence import find_values, images_by_class, values_shown
from fmseg.sampling.store import Store, shown_path


def pairs(shown):
    return [tuple(row) for row in shown.tolist()]


def test_what_is_found_is_what_each_label_map_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(presence, "CHUNK", 5)
    write(tmp_path)
    store = Store.open(tmp_path)
    expected = [(index, value) for index in range(len(store)) for value in np.unique(store.label(index)).tolist()]
    assert pairs(find_values(store)) == pairs(values_shown(store)) == expected


def test_images_without_a_label_map_and_wide_values():
    labels = [None, np.full((2, 3), 300, np.int16), np.array([[0, 7]], np.uint8)]
    assert pairs(find_values(MemoryStore([0, 0, 0], labels))) == [(1, 300), (2, 0), (2, 7)]
    assert pairs(find_values(MemoryStore([]))) == []


def test_it_is_kept_and_found_anew_where_it_is_missing(tmp_path, monkeypatch):
    write(tmp_path)
    first = pairs(values_shown(Store.open(tmp_path)))
    content = shown_path(tmp_path, "one").read_bytes()
    shown_path(tmp_path, "one").unlink()  # as in a store that an older release wrote
    assert pairs(values_shown(Store.open(tmp_path))) == first
    assert shown_path(tmp_path, "one").read_bytes() == content
    write(tmp_path)  # finished already
    monkeypatch.setattr(presence, "find_values", None)
    assert pairs(values_shown(Store.open(tmp_path))) == first


def test_a_store_of_other_images_forgets_it(tmp_path):
    write(tmp_path, "one")
    values_shown(Store.open(tmp_path))
    write(tmp_path, "two", stop=2)
    assert not list(tmp_path.glob("shown*"))
    assert {image for image, _ in pairs(values_shown(Store.open(tmp_path)))} == set(range(1 + 2))


def test_a_folder_that_may_only_be_read_does_not_stop_a_training(tmp_path, monkeypatch, caplog):
    write(tmp_path)
    store = Store.open(tmp_path)

    def refuse(*_):
        raise EnvironmentProblem(f"{tmp_path}: cannot write there.")

    monkeypatch.setattr(presence, "writing", refuse)
    np.testing.assert_array_equal(values_shown(store), find_values(store))
    assert "cannot write" in caplog.text and not list(tmp_path.glob("shown*"))


def lists(*values):
    return [list(images) for images in images_by_class(*values)]


def test_images_of_each_class_by_hand():
    shown = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 1], [2, 2], [3, 0], [4, 1], [4, 3], [5, 3]], np.uint32)
    assert lists(shown, range(4), [(1,), (2,), (3,)]) == [[0, 1, 2], [2]]
    # regions overlap, and the order is that of the classes; a value of none of them, as the ignore label's, is no class
    assert lists(shown, range(6), [(2,), (1, 2)]) == [[2], [0, 1, 2, 4]]
    # all of them show the same
    assert lists(shown, [0, 1], [(1,), (2,)]) == lists(shown, [3], [(1,)]) == lists(shown, [], [(1,)]) == []


def test_it_knows_slices_not_cases():
    store = made_store(12, per_case=4)
    store.labels[store.labels == 2] = 0
    store.labels[[0, 5, 11], -1, -1] = 2
    shown = find_values(store)
    assert lists(shown, range(12), [(1,), (2,)]) == [list(range(12)), [0, 5, 11]]
    assert lists(shown, [0, 5, 11], [(1,), (2,)]) == []


def test_a_label_map_of_a_case_counts_slice_by_slice(tmp_path):
    write(tmp_path)
    store = Store.open(tmp_path)
    for number, (case, images) in enumerate(store.cases.items()):
        labels = make_case(number)[1]
        own = images_by_class(values_shown(store), images, [(2,)])
        showing = [image for image, label in zip(images, labels, strict=True) if (label == 2).any()]
        assert (list(own[0]) if own else []) == (showing if 0 < len(showing) < len(images) else []), case
