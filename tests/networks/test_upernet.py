import pytest
import torch
from torch.nn import functional as F

from fmseg.networks.upernet import ChannelNorm, UperNet, pool


def test_logits_have_a_quarter_of_the_stride():
    decoder = UperNet((24,) * 4, (16,) * 4, num_outputs=5, width=16)
    assert decoder([torch.randn(1, 24, 3, 4)] * 4).shape == (1, 5, 12, 16)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (5, 5), (7, 11), (28, 28)])
@pytest.mark.parametrize("cells", [1, 2, 3, 6])
def test_pooling_agrees_with_adaptive_average_pooling(grid, cells):
    level = torch.randn(2, 3, *grid, dtype=torch.float64)
    torch.testing.assert_close(pool(level, cells), F.adaptive_avg_pool2d(level, cells))


def test_channel_norm_is_a_layer_norm_of_each_pixel():
    norm, image = ChannelNorm(6), torch.randn(2, 6, 3, 4)
    torch.testing.assert_close(norm(image)[1, :, 2, 3], F.layer_norm(image[1, :, 2, 3], (6,)))


def test_taps_of_several_strides_are_refused():
    with pytest.raises(ValueError, match="four taps of one stride"):
        UperNet((24,) * 4, (4, 8, 16, 32), num_outputs=2, width=16)


def test_work_on_large_maps_grows_with_the_width_not_with_the_taps():
    def weights_of_large_maps(taps):
        decoder = UperNet((taps,) * 4, (16,) * 4, num_outputs=2, width=16)
        return sum(weight.numel() for name, weight in decoder.named_parameters() if "laterals" not in name)

    assert weights_of_large_maps(32) == weights_of_large_maps(512)
