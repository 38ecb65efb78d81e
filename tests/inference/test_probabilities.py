import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fmseg.errors import BadData
from fmseg.inference.probabilities import load_probabilities, save_probabilities

HALF_STEP = 1 / 255 / 2 + 1e-6


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(0, 1, width=32),
    )
)
def test_what_is_loaded_is_what_was_saved_within_half_a_step(tmp_path_factory, probabilities):
    path = tmp_path_factory.getbasetemp() / "x.prob"
    save_probabilities(path, probabilities)
    loaded = load_probabilities(path)
    assert loaded.shape == probabilities.shape and loaded.dtype == np.float32
    assert np.abs(loaded - probabilities).max() <= HALF_STEP


def test_saving_what_was_loaded_gives_the_same_bytes(tmp_path):
    save_probabilities(tmp_path / "a.prob", np.random.default_rng(0).random((2, 1, 30, 40)))
    save_probabilities(tmp_path / "b.prob", load_probabilities(tmp_path / "a.prob"))
    assert (tmp_path / "a.prob").read_bytes() == (tmp_path / "b.prob").read_bytes()


def test_a_smooth_map_is_small_on_disk(tmp_path):
    y, x = np.mgrid[:224, :224]
    disc = 1 / (1 + np.exp((np.hypot(y - 112, x - 112) - 60) / 3))
    save_probabilities(tmp_path / "x.prob", np.stack([1 - disc, disc])[:, None])
    assert (tmp_path / "x.prob").stat().st_size < 0.1 * 2 * 224 * 224


@pytest.mark.parametrize("damage", [lambda b: b[:10], lambda b: b[:-5], lambda b: b"x" * len(b), lambda b: b""])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "x.prob"
    save_probabilities(path, np.random.default_rng(0).random((2, 1, 30, 40)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadData, match=r"x\.prob"):
        load_probabilities(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadData, match=r"y\.prob"):
        load_probabilities(tmp_path / "y.prob")
