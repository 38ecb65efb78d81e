import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fmseg.networks.upernet import UperNet, pool


def test_logits_have_a_quarter_of_the_stride():
    decoder = UperNet((24,) * 4, (16,) * 4, num_outputs=5, width=16)
    assert decoder([torch.randn(1, 24, 3, 4)] * 4).shape == (1, 5, 12, 16)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (5, 5), (7, 11), (28, 28)])
@pytest.mark.parametrize("cells", [1, 2, 3, 6])
def test_pooling_agrees_with_adaptive_average_pooling(grid, cells):
    level = torch.randn(2, 3, *grid, dtype=torch.float64)
    torch.testing.assert_close(pool(level, cells), F.adaptive_avg_pool2d(level, cells))


def test_every_layer_starts_by_handing_on_the_scale_of_its_input():
    torch.manual_seed(0)
    decoder = UperNet((64,) * 4, (16,) * 4, num_outputs=2, width=64)
    scales = {}
    for name, module in decoder.named_modules():
        if isinstance(module, nn.ReLU | nn.GELU):
            module.register_forward_hook(
                lambda _, inputs, output, name=name: scales.update({name: output.square().mean().sqrt().item()})
            )
    decoder([torch.randn(2, 64, 8, 8) for _ in range(4)])
    assert len(scales) == 16
    assert all(0.2 < scale < 5 for scale in scales.values()), scales


def test_taps_of_several_strides_are_refused():
    with pytest.raises(ValueError, match="four taps of one stride"):
        UperNet((24,) * 4, (4, 8, 16, 32), num_outputs=2, width=16)


def test_work_on_large_maps_grows_with_the_width_not_with_the_taps():
    def weights_of_large_maps(taps):
        decoder = UperNet((taps,) * 4, (16,) * 4, num_outputs=2, width=16)
        return sum(weight.numel() for name, weight in decoder.named_parameters() if "laterals" not in name)

    assert weights_of_large_maps(32) == weights_of_large_maps(512)
