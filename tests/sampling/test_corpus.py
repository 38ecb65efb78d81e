"""Views and masks of a batch."""

import numpy as np
import pytest
from memory_store import PRETRAINING, made_store

from fmseg.errors import BadData
from fmseg.imaging.views import make_views
from fmseg.sampling.corpus import ViewDataset, step_masks
from fmseg.sampling.order import Draw, Purpose, generator, sample_order


def test_stores_follow_one_another():
    stores = [made_store(3), made_store(2, seed=1), made_store(4, seed=2, per_case=2)]
    corpus = ViewDataset(stores, PRETRAINING, seed=1)
    assert len(corpus) == 9
    rng = generator(Purpose.VIEWS, 1, 6, 4)
    expected = make_views(stores[1].image(1), PRETRAINING.views, (0.2,), (0.2,), rng)
    item = corpus.item(Draw(0, 0, 6, 4))
    np.testing.assert_array_equal(item["globals"], expected[0])
    np.testing.assert_array_equal(item["locals"], expected[1])
    assert corpus.describe(Draw(0, 0, 0, 2)) == "case_002"
    assert corpus.describe(Draw(0, 0, 0, 8)) == "case_002, image 2 of 2"


def test_a_batch_is_crop_major():
    corpus = ViewDataset([made_store(20)], PRETRAINING, seed=1)
    draws = sample_order(20, 8, 0, 0)
    items = [corpus.item(draw) for draw in draws]
    batch = corpus.collate(draws, items)
    assert {name: array.shape for name, array in batch.items()} == {
        "globals": (16, 1, 32, 48),
        "locals": (24, 1, 16, 16),
        "masks": (16, 24),
    }
    np.testing.assert_array_equal(batch["globals"][8 + 3], items[3]["globals"][1])
    np.testing.assert_array_equal(batch["locals"][2 * 8 + 5], items[5]["locals"][2])
    assert batch["masks"].any(axis=1).sum() == 8


def test_micro_batches_of_all_ranks_share_out_the_masks_of_the_step():
    corpus = ViewDataset([made_store(20)], PRETRAINING, seed=1)
    draws = sample_order(20, 8, 0, 3)
    items = [corpus.item(draw) for draw in draws]
    whole = corpus.collate(draws, items)["masks"].reshape(2, 8, -1)
    halves = [corpus.collate(draws[part], items[part])["masks"].reshape(2, 4, -1) for part in np.s_[:4, 4:]]
    np.testing.assert_array_equal(np.concatenate(halves, axis=1), whole)
    assert (step_masks(PRETRAINING, 1, 4) != whole.reshape(16, -1)).any()


def test_no_local_views_are_an_empty_array():
    recipe = PRETRAINING.model_copy(update={"views": PRETRAINING.views.evolve(num_locals=0)})
    corpus = ViewDataset([made_store(8)], recipe, seed=1)
    draws = sample_order(8, 8, 0, 0)
    assert corpus.collate(draws, [corpus.item(draw) for draw in draws])["locals"].shape == (0, 1, 16, 16)


def test_other_channels_than_the_backbones_are_refused():
    with pytest.raises(BadData, match="it has 3 channels, the backbone 1"):
        ViewDataset([made_store(1, channels=3)], PRETRAINING, seed=1).item(Draw(0, 0, 0, 0))
