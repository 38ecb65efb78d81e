import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fmseg.errors import UnknownName
from fmseg.networks.backbone import Backbone, tap_blocks
from fmseg.networks.segmenter import Segmenter, build_segmenter
from fmseg.networks.vit import ViT
from fmseg.records.plans import Architecture
from fmseg.records.recipe import Recipe

ARCHITECTURE = Architecture(
    name="tiny",
    patch_size=8,
    width=32,
    depth=4,
    num_heads=2,
    mlp_ratio=2.0,
    ffn="mlp",
    num_registers=0,
    layer_scale=0.1,
    layer_norm_eps=1e-6,
    channels=1,
    image_size=(32, 32),
    position_interpolation="size",
    position_antialias=True,
)


def build(decoder="upernet", freeze_backbone=False, drop_path=0.0, seed=0):
    torch.manual_seed(seed)
    recipe = Recipe.model_construct(
        decoder=decoder, decoder_channels=16, freeze_backbone=freeze_backbone, drop_path=drop_path
    )
    return build_segmenter(recipe, ARCHITECTURE, 3)


@pytest.mark.parametrize("decoder", ["upernet", "linear"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (5, 8), (64, 20)])
def test_logits_have_the_size_of_the_image(decoder, size):
    logits = build(decoder)(torch.randn(2, 1, *size))
    assert logits.shape == (2, 3, *size)
    assert logits.dtype == torch.float32


def test_logits_of_an_odd_image_lie_where_those_of_the_filled_up_one_do():
    segmenter, image = build().eval(), torch.randn(1, 1, 27, 30)
    padded = segmenter(F.pad(image, (0, 2, 0, 5)))
    assert torch.equal(segmenter(image), padded[..., :27, :30])


def test_logits_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert build()(torch.randn(1, 1, 32, 32)).dtype == torch.float32


def test_logits_are_placed_on_the_pixels_of_their_patches():
    class Columns(nn.Module):
        def forward(self, features):
            batch, _, rows, columns = features[0].shape
            return torch.arange(columns).float().expand(batch, 1, rows, columns)

    logits = Segmenter(Backbone(ViT(ARCHITECTURE), tap_blocks(4)), Columns())(torch.randn(1, 1, 32, 32))
    centres = (torch.arange(4) * 8 + 3.5 + torch.arange(4) * 8 + 4.5) / 2
    left, right = logits[0, 0, 0, 3::8], logits[0, 0, 0, 4::8]
    torch.testing.assert_close((left + right) / 2, (centres - 4) / 8, atol=0.05, rtol=0)


def test_every_learning_parameter_gets_a_gradient():
    segmenter = build()
    segmenter(torch.randn(2, 1, 32, 32)).square().sum().backward()
    learning = {name: value for name, value in segmenter.named_parameters() if value.requires_grad}
    assert not [name for name, value in learning.items() if value.grad is None]
    assert set(dict(segmenter.named_parameters())) - set(learning) == {"backbone.vit.mask_token"}


def test_a_frozen_backbone_neither_learns_nor_drops_paths():
    segmenter = build("linear", freeze_backbone=True, drop_path=0.5).train()
    assert not segmenter.backbone.training
    assert segmenter.decoder.training
    assert {name.split(".")[0] for name, value in segmenter.named_parameters() if value.requires_grad} == {"decoder"}
    image = torch.randn(4, 1, 32, 32)
    assert torch.equal(segmenter.backbone(image)[3], segmenter.backbone(image)[3])
    assert build("linear", drop_path=0.5).train().backbone.training


def test_drop_path_of_the_recipe_grows_with_depth_and_acts_in_training_only():
    segmenter, image = build("linear", drop_path=0.5).train(), torch.randn(4, 1, 32, 32)
    assert not torch.equal(segmenter.backbone(image)[3], segmenter.backbone(image)[3])
    assert torch.equal(segmenter.backbone(image)[0], segmenter.backbone(image)[0])
    segmenter.eval()
    assert torch.equal(segmenter(image), segmenter(image))


def test_weights_are_a_function_of_the_seed():
    one, two = build(seed=3).state_dict(), build(seed=3).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_an_unknown_decoder_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'upernet'"):
        build("upernett")
