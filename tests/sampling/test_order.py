"""The order of samples: permutations, without state."""

import pytest

from fmseg.sampling.order import Purpose, generator, sample_order


@pytest.mark.parametrize(("num_samples", "batch_size"), [(10, 4), (3, 8), (7, 7), (1, 2)])
def test_every_epoch_is_another_permutation_of_all_samples(num_samples, batch_size):
    draws = [draw for step in range(30) for draw in sample_order(num_samples, batch_size, 5, step)]
    for epoch in range(len(draws) // num_samples):
        part = draws[epoch * num_samples : (epoch + 1) * num_samples]
        assert {draw.epoch for draw in part} == {epoch}
        assert sorted(draw.index for draw in part) == list(range(num_samples))
    if num_samples >= 7:
        assert [draw.index for draw in draws[:num_samples]] != [d.index for d in draws[num_samples : 2 * num_samples]]


def test_steps_and_positions_are_numbered():
    assert [(draw.step, draw.position) for draw in sample_order(10, 4, 5, 3)] == [(3, 0), (3, 1), (3, 2), (3, 3)]


def test_the_order_does_not_depend_on_the_batch_size_or_on_what_was_asked_before():
    whole = [draw.index for draw in sample_order(50, 100, 1, 0)]
    parts = [draw.index for step in (3, 0, 2, 1, 4) for draw in sample_order(50, 20, 1, step)]
    assert whole == parts[20:40] + parts[60:80] + parts[40:60] + parts[:20] + parts[80:]
    assert whole != [draw.index for draw in sample_order(50, 100, 2, 0)]


def test_two_million_samples():
    draws = sample_order(2_000_000, 512, 0, 3906)
    assert [draw.epoch for draw in draws] == [0] * 128 + [1] * 384
    assert max(draw.index for draw in draws) < 2_000_000


def test_generators_of_different_purpose_or_counters_differ():
    entropies = [(Purpose.ORDER, 0, 3), (Purpose.PATCHES, 0, 3, 0), (Purpose.VIEWS, 0, 3, 0), (Purpose.VIEWS, 3, 0, 0)]
    numbers = [generator(purpose, seed, *rest).random() for purpose, seed, *rest in entropies]
    assert len(set(numbers)) == len(numbers)
    assert generator(Purpose.MASKS, 1, 2).random() == generator(Purpose.MASKS, 1, 2).random()
