"""The contract of all registered decoders."""

import pytest
import torch

from fmseg.networks.decoders import decoders

CHANNELS, STRIDES = (24, 24, 24, 24), (8, 8, 8, 8)


def build(name, seed=0):
    torch.manual_seed(seed)
    return decoders[name](CHANNELS, STRIDES, num_outputs=3, width=16)


def features(batch, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, height, width, generator=generator) for channels in CHANNELS]


def test_the_decoders_of_the_recipes_are_registered():
    assert {"upernet", "linear"} <= set(decoders)


@pytest.mark.parametrize("name", decoders.names())
@pytest.mark.parametrize("grid", [(4, 4), (7, 5), (1, 1), (1, 6), (9, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_logits_cover_any_grid(name, grid, training):
    decoder = build(name).train(training)
    for batch in (1, 2):
        logits = decoder(features(batch, *grid))
        assert logits.shape[:2] == (batch, 3)
        assert logits.shape[2] * grid[1] == logits.shape[3] * grid[0]  # the same factor on both axes
        assert logits.isfinite().all()


@pytest.mark.parametrize("name", decoders.names())
def test_gradients_reach_every_parameter_and_every_tap(name):
    decoder = build(name)
    taps = [tap.requires_grad_() for tap in features(2, 6, 6)]
    decoder(taps).square().sum().backward()
    without = [key for key, value in decoder.named_parameters() if value.grad is None or not value.grad.any()]
    assert not without
    assert all(tap.grad.any() for tap in taps)


@pytest.mark.parametrize("name", decoders.names())
def test_images_of_a_batch_do_not_mix_in_evaluation(name):
    decoder = build(name).eval()
    both = features(2, 5, 6)
    alone = decoder([tap[:1] for tap in both])
    torch.testing.assert_close(decoder(both)[:1], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", decoders.names())
def test_weights_are_a_function_of_the_seed(name):
    one, two, other = (
        build(name, seed=1).state_dict(),
        build(name, seed=1).state_dict(),
        build(name, seed=2).state_dict(),
    )
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", decoders.names())
def test_a_weak_head_starts_near_even_odds(name):
    logits = build(name).eval()(features(2, 6, 6))
    assert logits.abs().max() < 1
