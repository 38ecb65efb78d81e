import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fmseg.networks.lean import gelu_linear, is_gelu, norm_linear


def grads(function, tensors):
    leaves = [None if each is None else each.clone().requires_grad_() for each in tensors]
    output = function(*leaves)
    output.float().square().sum().backward()
    return output.detach(), [leaf.grad for leaf in leaves if leaf is not None]


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_a_linear_layer_on_a_gelu_gradients_and_all(dtype, with_bias):
    torch.manual_seed(0)
    tensors = [torch.randn(7, 12).to(dtype), torch.randn(5, 12), torch.randn(5) if with_bias else None]
    output, found = grads(gelu_linear, tensors)

    def plain(hidden, weight, bias):
        return F.linear(F.gelu(hidden), weight.to(dtype), None if bias is None else bias.to(dtype))

    wanted, others = grads(plain, tensors)
    assert torch.equal(output, wanted)
    assert len(found) == len(others) == 2 + with_bias
    for mine, theirs in zip(found, others, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-5)


def test_it_keeps_the_input_of_the_gelu_alone():
    kept = []
    hidden, weight = torch.randn(64, 32, requires_grad=True), torch.randn(8, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.shape) or each, lambda each: each):
        gelu_linear(hidden, weight, None)
    assert kept == [(64, 32), (8, 32)]


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
