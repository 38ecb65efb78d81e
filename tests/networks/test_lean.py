import pytest
import torch
from test_vit import ARCHITECTURE
from torch import nn
from torch.nn import functional as F

from fmseg.networks.lean import add_rows, gelu_linear, is_gelu, norm_linear
from fmseg.networks.vit import ViT


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("with_scale", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_a_linear_layer_on_a_gelu_gradients_and_all(dtype, with_scale, with_bias):
    torch.manual_seed(0)
    linear, hidden = nn.Linear(12, 5, bias=with_bias), torch.randn(7, 12).to(dtype).requires_grad_()
    scale = torch.randn(5, requires_grad=True) if with_scale else None

    def plain(hidden, linear, scale):
        factor = torch.ones(5) if scale is None else scale
        bias = None if linear.bias is None else (linear.bias * factor).to(dtype)
        return F.linear(F.gelu(hidden), (linear.weight * factor[:, None]).to(dtype), bias)

    leaves, found = [hidden, *linear.parameters(), *([scale] if with_scale else [])], []
    for function in (gelu_linear, plain):
        output = function(hidden, linear, scale)
        found.append([output.detach(), *torch.autograd.grad(output.float().square().sum(), leaves)])
    assert torch.equal(found[0][0], found[1][0])
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=1e-5)


def kept_bytes(function, *exempt):
    """Return the bytes that autograd keeps of a pass, parameters aside."""
    kept, exempt = {}, {each.data_ptr() for each in exempt}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in exempt:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda each: each):
        output = function()
    found = sum(storage.nbytes() for storage in kept.values())
    del output
    return found


def test_it_keeps_the_input_of_the_gelu_alone():
    hidden, linear = torch.randn(64, 32, requires_grad=True), nn.Linear(32, 8)
    scale = torch.ones(8, requires_grad=True)
    assert kept_bytes(lambda: gelu_linear(hidden, linear, scale), scale, *linear.parameters()) == 64 * 32 * 4


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_a_layer_keeps_eight_and_a_half_values_a_token_and_channel_in_half_precision(drop):
    block, width, shape = ViT(ARCHITECTURE, drop_path=drop).train().blocks[0], ARCHITECTURE.width, (8, 17)
    tokens = torch.randn(8 * 17, width, requires_grad=True)
    # the inputs of both norms, queries, keys and values, what is attended to, the input of the GELU, each in 2 bytes
    values = (1 + 3 + 1) + (1 + 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = kept_bytes(lambda: block(tokens, [shape]), *block.parameters())
    weights = 2 * width**2  # of attention's last layer, rounded
    share = 1 - drop
    few = 2 * 3 * 4 * 136 * share + 2 * 8 * 136 * share  # the norms' means and spreads, the rows that were chosen
    assert found <= values * 2 * 136 * width * share + weights + few


def test_rows_are_added_as_index_add_does_it():
    torch.manual_seed(0)
    rows, counts, weights = torch.randperm(20)[:9], [5, 4], [1.5, 1.25]
    results = []
    for is_lean in (True, False):
        tokens, added = (torch.arange(n * 3.0).view(n, 3).requires_grad_() for n in (20, 9))
        parts = added.split(counts)
        if is_lean:
            result = add_rows(tokens, rows, parts, weights)
        else:
            result = tokens.index_add(0, rows, torch.cat([w * part for w, part in zip(weights, parts, strict=True)]))
        result.square().sum().backward()
        results.append((result.detach(), tokens.grad, added.grad))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_other_activations_are_told_apart():
    assert is_gelu(nn.GELU())
    assert not is_gelu(nn.GELU(approximate="tanh"))
    assert not is_gelu(nn.SiLU())


@pytest.mark.parametrize("is_half", [False, True])
def test_it_is_a_linear_layer_on_a_norm_gradients_and_all(is_half):
    torch.manual_seed(0)
    norm, linear = nn.LayerNorm(12, eps=1e-6), nn.Linear(12, 5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    tokens = torch.randn(7, 12)
    found = []
    for function in (lambda each: norm_linear(each, norm, linear), lambda each: linear(norm(each))):
        leaf = tokens.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            output = function(leaf)
        output.float().square().sum().backward()
        parameters = (*norm.parameters(), *linear.parameters())
        found.append([output.detach(), leaf.grad, *(each.grad for each in parameters)])
        for each in parameters:
            each.grad = None
    assert found[0][0].dtype == (torch.bfloat16 if is_half else torch.float32)
    assert torch.equal(found[0][0], found[1][0])
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=1e-2 if is_half else 1e-5, atol=1e-2 if is_half else 1e-5)
