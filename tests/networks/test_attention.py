import pytest
import torch

from fmseg.networks import attention
from fmseg.networks.attention import attend

SHAPES = [(2, 17), (3, 5)]


def packed(dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    tokens = sum(count * length for count, length in SHAPES)
    return torch.randn(tokens, 3 * 32, generator=generator).to(device, dtype)


def block_diagonal(qkv, num_heads):
    """The slow, obvious way: all pairs, with those of other images masked."""
    lengths = [length for count, length in SHAPES for _ in range(count)]
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    query, key, value = qkv.double().view(len(qkv), 3, num_heads, -1).permute(1, 2, 0, 3)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    scores = scores.masked_fill(owner[:, None] != owner[None], float("-inf"))
    return (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)


def test_a_list_of_calls_equals_a_block_diagonal_mask():
    torch.testing.assert_close(attend(packed(), SHAPES, 4).double(), block_diagonal(packed(), 4), atol=1e-5, rtol=1e-4)


def test_bfloat16_on_a_cpu_is_as_near_as_its_precision():
    got = attend(packed(torch.bfloat16), SHAPES, 4).double()
    assert (got - block_diagonal(packed(), 4)).abs().mean() < 0.01


def test_the_gradient_in_bfloat16_is_that_of_float32():
    weights = torch.randn(len(packed()), 32, generator=torch.Generator().manual_seed(1))
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        qkv = packed(dtype).requires_grad_()
        (attend(qkv, SHAPES, 4).float() * weights).sum().backward()
        gradients.append(qkv.grad.float())
    exact, rounded = gradients
    for name, (one, other) in enumerate(zip(exact.chunk(3, 1), rounded.chunk(3, 1), strict=True)):
        assert (one - other).norm() < 0.02 * one.norm(), ["query", "key", "value"][name]


def test_without_a_device_there_are_no_xformers():
    if torch.cuda.is_available():
        pytest.skip("here is a device")
    attention._xformers.cache_clear()
    assert attention._xformers() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_one_call_equals_the_list():
    pytest.importorskip("xformers")
    qkv = packed(torch.float16, "cuda")
    got = attend(qkv, SHAPES, 4).double().cpu()
    torch.testing.assert_close(got, block_diagonal(packed(), 4), atol=5e-3, rtol=5e-2)
