"""Batches are the same bytes whoever makes them."""

import itertools
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from memory_store import PRETRAINING, RECIPE, MemoryStore, made_store

from fmseg.errors import BadData, UsageError
from fmseg.sampling.corpus import ViewDataset
from fmseg.sampling.loaders import batches
from fmseg.sampling.patches import PatchDataset
from fmseg.sampling.store import Store
from fmseg.sampling.store_writer import StoreWriter

NUM = 11
SAMPLES = {
    "patches": PatchDataset(made_store(NUM), range(NUM), RECIPE, mean=[0.2], std=[0.2], seed=3),
    "views": ViewDataset([made_store(NUM)], PRETRAINING, seed=3),
}


def made(samples, **options):
    defaults = {"num_samples": NUM, "batch_size": 8, "seed": 3, "start": 0, "stop": 7, "num_workers": 0}
    return list(batches(samples, **(defaults | options)))


def assert_same(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("kind", SAMPLES)
def test_workers_change_nothing(kind):
    assert_same(made(SAMPLES[kind]), made(SAMPLES[kind], num_workers=2))


@pytest.mark.parametrize("kind", SAMPLES)
def test_starting_later_is_skipping(kind):
    assert_same(made(SAMPLES[kind], accumulation=2)[10:], made(SAMPLES[kind], accumulation=2, start=5))


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_ranks_share_out_the_batch_of_one(kind, accumulation):
    alone = made(SAMPLES[kind], accumulation=accumulation)
    pair = [made(SAMPLES[kind], accumulation=accumulation, rank=rank, world=2) for rank in (0, 1)]
    size = 8 // accumulation
    for whole, first, second in zip(alone, *pair, strict=True):
        for name, tensor in whole.items():
            # crop-major: the samples of one crop of all ranks lie side by side
            parts = [part[name].unflatten(0, (-1, size // 2)) for part in (first, second)]
            assert torch.equal(torch.cat(parts, 1).flatten(0, 1), tensor), name


def test_micro_batches_together_are_the_batch():
    whole, parts = made(SAMPLES["patches"]), made(SAMPLES["patches"], accumulation=4)
    for step, batch in enumerate(whole):
        pieces = parts[4 * step : 4 * step + 4]
        assert torch.equal(torch.cat([piece["image"] for piece in pieces]), batch["image"])


def test_shapes_and_types():
    batch = made(SAMPLES["patches"], stop=1)[0]
    assert (batch["image"].shape, batch["image"].dtype) == ((8, 1, 32, 48), torch.float32)
    assert (batch["label"].shape, batch["label"].dtype) == ((8, 32, 48), torch.int64)
    assert made(SAMPLES["views"], stop=1)[0]["masks"].dtype == torch.bool


def test_torchs_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    made(SAMPLES["patches"])
    assert torch.equal(torch.rand(3), expected)


class FailingStore(MemoryStore):
    def image(self, index):
        if index == 4:
            raise self.error
        return super().image(index)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("error", "expected"), [(BadData("the blob is damaged."), BadData), (ValueError("a bug"), RuntimeError)]
)
def test_an_error_names_the_case(num_workers, error, expected):
    store = FailingStore([np.full((1, 32, 48), 9, np.uint8)] * NUM, [np.zeros((32, 48), np.uint8)] * NUM)
    store.error = error
    samples = PatchDataset(store, range(NUM), RECIPE, mean=[0.2], std=[0.2], seed=3)
    with pytest.raises(expected, match=f"case_004: .*{error}"):
        made(samples, num_workers=num_workers)


def test_what_cannot_be_dealt_out_is_refused_at_once():
    options = {"seed": 0, "start": 0, "stop": 1, "num_workers": 0}
    with pytest.raises(UsageError, match="batch of 8 cannot be dealt out to 3 ranks"):
        batches(SAMPLES["patches"], num_samples=NUM, batch_size=8, world=3, **options)
    with pytest.raises(UsageError, match="no images"):
        batches(SAMPLES["patches"], num_samples=0, batch_size=8, **options)


def test_a_loop_may_stop_early():
    endless = batches(SAMPLES["patches"], num_samples=NUM, batch_size=8, seed=3, start=0, stop=10**9, num_workers=1)
    assert len(list(itertools.islice(endless, 2))) == 2
    endless.close()


def test_workers_leave_interruptions_to_the_main_process():
    before = set(multiprocessing.active_children())
    steps = batches(SAMPLES["patches"], num_samples=NUM, batch_size=8, seed=3, start=0, stop=60, num_workers=2)
    first = [next(steps), next(steps)]  # one of each worker, so both have started
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    for worker, number in itertools.product(workers, (signal.SIGINT, signal.SIGTERM)):
        os.kill(worker.pid, number)
    assert_same(first + list(steps), made(SAMPLES["patches"], stop=60))


def test_a_store_on_disk_serves_many_workers(tmp_path):
    memory = made_store(NUM)
    writer = StoreWriter(tmp_path, "digest")
    for index in range(NUM):
        writer.append(f"case_{index}", memory.image(index)[None], memory.label(index)[None])
    writer.finish()
    store = Store.open(tmp_path)
    store.image(0)
    samples = PatchDataset(store, range(NUM), RECIPE, mean=[0.2], std=[0.2], seed=3)
    assert_same(made(samples, num_workers=2), made(SAMPLES["patches"]))
