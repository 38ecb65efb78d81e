import pytest
import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

from fmseg.networks.attention import attend
from fmseg.networks.vit import ViT, pack, patch_grid, unpack
from fmseg.records.plans import Architecture

ARCHITECTURE = Architecture(
    name="test",
    patch_size=8,
    width=32,
    depth=3,
    num_heads=2,
    mlp_ratio=4.0,
    ffn="mlp",
    num_registers=2,
    layer_scale=0.5,
    layer_norm_eps=1e-5,
    channels=2,
    image_size=(32, 32),
    position_interpolation="size",
    position_antialias=False,
)


def make_vit(drop_path=0.0, seed=0, **changes):
    """A ViT whose every parameter is large enough to matter."""
    torch.manual_seed(seed)
    vit = ViT(ARCHITECTURE.evolve(**changes), drop_path)
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.2)
    return vit


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_it_is_timms_vit(ffn):
    ours = make_vit(ffn=ffn, num_registers=0).eval()
    gated = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 2 * 88 / 32} if ffn == "swiglu" else {}
    theirs = VisionTransformer(
        img_size=32,
        patch_size=8,
        in_chans=2,
        num_classes=0,
        embed_dim=32,
        depth=3,
        num_heads=2,
        init_values=1.0,
        norm_layer=lambda width, **_: nn.LayerNorm(width, eps=1e-5),
        **gated,
    ).eval()
    state = ours.state_dict()
    del state["mask_token"]
    theirs.load_state_dict(state)
    image = torch.randn(3, 2, 32, 32)
    torch.testing.assert_close(ours(image), theirs.forward_features(image), rtol=1e-4, atol=1e-5)


def test_starts_from_dinov2s_distributions():
    torch.manual_seed(0)
    vit = ViT(ARCHITECTURE.evolve(width=64, layer_scale=1e-5))
    assert not vit.mask_token.any()
    assert vit.cls_token.abs().max() < 1e-5
    assert vit.reg_token.abs().max() < 1e-5
    assert float(vit.pos_embed.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert float(vit.blocks[1].mlp.fc1.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not vit.blocks[1].mlp.fc1.bias.any()
    assert torch.equal(vit.blocks[2].ls1.gamma, torch.full((64,), 1e-5))


def test_packed_views_give_what_each_gives_alone():
    vit = make_vit()
    images = [torch.randn(4, 2, 32, 32), torch.randn(6, 2, 16, 24), torch.randn(1, 2, 40, 8)]
    mask = torch.rand(4, 16) < 0.4
    together = vit.forward_groups(images, [mask, None, None])
    assert [tuple(tokens.shape) for tokens in together] == [(4, 19, 32), (6, 9, 32), (1, 8, 32)]
    for image, one_mask, tokens in zip(images, [mask, None, None], together, strict=True):
        (alone,) = vit.forward_groups([image], [one_mask])
        torch.testing.assert_close(tokens, alone, rtol=1e-4, atol=1e-5)


def test_unpack_undoes_pack():
    groups = [torch.randn(2, 3, 5), torch.randn(4, 1, 5)]
    for group, same in zip(groups, unpack(pack(groups), [(2, 3), (4, 1)]), strict=True):
        assert torch.equal(group, same)


def test_what_lies_under_the_mask_is_not_seen():
    vit = make_vit()
    image, mask = torch.randn(2, 2, 32, 32), torch.zeros(2, 16, dtype=torch.bool)
    mask[0, 5] = True  # rows and columns 8 to 15
    changed = image.clone()
    changed[:, :, 8:16, 8:16] += 1
    before, after = (vit.forward_groups([each], [mask])[0] for each in (image, changed))
    torch.testing.assert_close(before[0], after[0])
    assert not torch.allclose(before[1], after[1])
    before[0].sum().backward()
    assert vit.mask_token.grad.any()


@pytest.mark.parametrize("interpolation", ["size", "offset"])
@pytest.mark.parametrize("antialias", [False, True])
def test_positions_are_resampled_as_the_record_says(interpolation, antialias):
    vit = make_vit(position_interpolation=interpolation, position_antialias=antialias)
    image = torch.zeros(1, 2, 16, 56)
    vit.norm, vit.blocks = nn.Identity(), nn.Sequential()
    positions = vit(image) - vit.patch_embed.proj.bias  # an image of zeros
    grid = vit.pos_embed[:, 1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    where = {"size": (2, 7)} if interpolation == "size" else {"scale_factor": (2.1 / 4, 7.1 / 4)}
    want = F.interpolate(grid, mode="bicubic", antialias=antialias, **where).flatten(2).transpose(1, 2)
    torch.testing.assert_close(positions[:, 3:], want)
    # registers have no position
    assert torch.equal(vit(image)[:, 1:3], vit.reg_token)
    torch.testing.assert_close(vit(image)[:, :1], vit.cls_token + vit.pos_embed[:, :1])


def test_rectangular_grids_are_resampled_like_square_ones():
    vit = make_vit(image_size=(32, 64))
    assert vit(torch.randn(1, 2, 32, 64)).shape == (1, 35, 32)
    assert vit(torch.randn(1, 2, 64, 32)).shape == (1, 35, 32)


def test_taps_are_maps_of_the_normed_patch_tokens():
    vit = make_vit()
    image = torch.randn(2, 2, 16, 24)
    last, first, again = vit.forward_taps(image, [2, 0, 2])
    assert last.shape == first.shape == (2, 32, 2, 3)
    torch.testing.assert_close(last.flatten(2).transpose(1, 2), vit(image)[:, 3:])
    assert torch.equal(last, again)
    assert not torch.allclose(first, last)


def test_stochastic_depth_keeps_the_expectation_of_a_branch():
    vit = make_vit(drop_path=0.3, depth=1)
    vit.norm = nn.Identity()
    nn.init.zeros_(vit.blocks[0].ls2.gamma)  # what is left is linear in the attention's branch
    images = [torch.randn(8, 2, 16, 16), torch.randn(5, 2, 8, 8)]
    with torch.no_grad():
        whole = vit.eval().forward_groups(images, [None, None])
        drawn = vit.train().forward_groups(images, [None, None])
        nn.init.zeros_(vit.blocks[0].ls1.gamma)
        bare = vit.eval().forward_groups(images, [None, None])
    for full, got, base, kept in zip(whole, drawn, bare, (5, 3), strict=True):
        ratio = (got - base).flatten(1).norm(dim=1) / (full - base).flatten(1).norm(dim=1)
        # int(8 * 0.7) = 5 images of 8 are computed, and count 8 / 5 times: 1 on average
        assert int((ratio > 0).sum()) == kept
        torch.testing.assert_close(ratio[ratio > 0], torch.full((kept,), len(full) / kept))


def test_stochastic_depth_is_a_function_of_the_seed_and_of_training_mode():
    vit, image = make_vit(drop_path=0.5), torch.randn(6, 2, 32, 32)

    def draw(seed):
        torch.manual_seed(seed)
        return vit.forward_taps(image, [2])[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    vit.eval()
    assert torch.equal(draw(1), draw(2))


def test_layers_computed_anew_give_the_same_bits_and_keep_less():
    vit, images = make_vit(drop_path=0.3), [torch.randn(4, 2, 32, 32), torch.randn(6, 2, 16, 24)]
    found, kept = [], []
    for vit.checkpointing in (False, True):
        sizes = {}

        def note(tensor, sizes=sizes):
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        torch.manual_seed(3)
        vit.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            tokens = vit.forward_groups(images, [None, None])
        kept.append(sum(sizes.values()))
        sum(each.square().sum() for each in tokens).backward()
        found.append([*tokens, *(parameter.grad for parameter in vit.parameters() if parameter.grad is not None)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert kept[1] < 0.5 * kept[0]


def test_drop_path_is_uniform_or_rises_over_the_depth():
    def rates(vit):
        return [block.drop_rate for block in vit.blocks]

    vit = make_vit(drop_path=0.4)
    assert rates(vit) == [0.4, 0.4, 0.4]
    vit.set_drop_path(0.4, "linear")
    assert rates(vit) == [0.0, 0.2, 0.4]
    assert rates(ViT(ARCHITECTURE, 0.4, drop_path_schedule="linear")) == [0.0, 0.2, 0.4]


def test_attention_in_bfloat16_is_that_in_float32():
    qkv, shapes = torch.randn(3 * 7 + 2 * 5, 3 * 32), [(3, 7), (2, 5)]
    exact, rounded = attend(qkv, shapes, 2), attend(qkv.bfloat16(), shapes, 2)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.03)


def test_autocast_changes_little():
    vit, image = make_vit(), torch.randn(2, 2, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = vit(image)
    exact = vit(image)
    assert rounded.dtype == torch.float32
    assert float((rounded - exact).detach().norm() / exact.detach().norm()) < 0.05


def test_sizes_that_are_not_whole_patches_are_refused():
    assert patch_grid((32, 48), 16) == (2, 3)
    with pytest.raises(ValueError, match="30 x 32 px"):
        make_vit()(torch.zeros(1, 2, 30, 32))


def test_records_of_plain_vits_say_nothing_of_the_others():
    required = {name for name, field in Architecture.model_fields.items() if field.is_required()}
    assert set(ARCHITECTURE.model_dump(mode="json")) == required
    other = ARCHITECTURE.evolve(relation="decomposed", window=3, global_blocks=(1,), num_registers=0, class_token=False)
    assert Architecture.parse(other.model_dump(mode="json"), "test") == other
    assert set(other.peculiar) == {"relation", "window", "global_blocks", "class_token"}
