import pytest
import torch
from torch.nn import functional as F

from fmseg.networks.positions import resampled

SIZES = [((4, 4), (7, 3)), ((5, 3), (2, 6)), ((16, 16), (14, 14)), ((3, 3), (3, 8)), ((1, 4), (2, 2)), ((9, 9), (7, 4))]


def by_torch(grid, size, *, offset, antialias):
    if not offset:
        return F.interpolate(grid, size=size, mode="bicubic", antialias=antialias)
    factors = tuple((new + 0.1) / old for new, old in zip(size, grid.shape[2:], strict=True))
    return F.interpolate(grid, scale_factor=factors, mode="bicubic", antialias=antialias)


def nodes(function):
    return {type(function).__name__}.union(*(nodes(parent) for parent, _ in function.next_functions if parent))


@pytest.mark.parametrize("offset", [True, False], ids=["offset", "size"])
@pytest.mark.parametrize("antialias", [True, False], ids=["antialias", "plain"])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_values_are_torchs_and_gradients_are_theirs(source, target, offset, antialias):
    torch.manual_seed(0)
    grid = torch.randn(1, 8, *source, requires_grad=True)
    found = resampled(grid, target, offset=offset, antialias=antialias)
    assert torch.equal(found, by_torch(grid, target, offset=offset, antialias=antialias))
    weights = torch.randn_like(found)
    found.backward(weights)
    # what comes of each place alone; torch's own backward pass is not always that of its forward pass
    units = torch.eye(source[0] * source[1]).unflatten(1, source)[None]
    each = by_torch(units, target, offset=offset, antialias=antialias)[0]  # (h w, H, W)
    expected = torch.einsum("nij,dij->dn", each, weights[0]).view_as(grid)
    torch.testing.assert_close(grid.grad, expected, rtol=1e-5, atol=1e-5)
    # it has no deterministic form on CUDA
    assert not any("Upsample" in name for name in nodes(found.grad_fn))


@pytest.mark.parametrize("offset", [True, False], ids=["offset", "size"])
def test_gradients_are_float32_also_under_autocast_and_after_inference(offset):
    grid = torch.randn(1, 8, 6, 6, requires_grad=True)
    with torch.inference_mode():
        resampled(grid, (5, 5), offset=offset, antialias=False)
    gradients = []
    for enabled in (False, True):
        grid.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            resampled(grid, (5, 5), offset=offset, antialias=False).square().sum().backward()
        gradients.append(grid.grad)
    assert torch.equal(*gradients)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_may_be_asked_for_the_same_bytes_again():
    grid = torch.randn(1, 8, 6, 6, device="cuda", requires_grad=True)
    torch.use_deterministic_algorithms(True)
    try:
        resampled(grid, (5, 5), offset=True, antialias=True).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
