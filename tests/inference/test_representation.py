import numpy as np
import torch

from fmseg.inference.representation import PATCHES_PER_IMAGE, look_closely, sampled_tokens, spread_indices
from fmseg.networks.attention import attend
from fmseg.networks.vit import ViT
from fmseg.records.plans import Architecture

ARCHITECTURE = Architecture(
    name="test",
    patch_size=8,
    width=24,
    depth=2,
    num_heads=3,
    mlp_ratio=2.0,
    ffn="mlp",
    num_registers=2,
    layer_scale=1.0,
    layer_norm_eps=1e-6,
    channels=1,
    image_size=(32, 32),
    position_interpolation="offset",
    position_antialias=False,
)
MOMENTS = ((0.5,), (0.25,))


def made():
    torch.manual_seed(0)
    return ViT(ARCHITECTURE), np.random.default_rng(0).integers(0, 255, (1, 32, 48), dtype=np.uint8)


def test_attention_is_that_of_the_last_block():
    """Its weights, applied to the block's values, are what the block itself adds up."""
    vit, image = made()
    attention, tokens = look_closely(vit, image, MOMENTS, 6)
    assert attention.shape == (3, 4, 6)
    assert tokens.shape == (4, 6, 24)
    caught = {}
    block = vit.blocks[-1].attn
    handle = block.qkv.register_forward_hook(lambda module, inputs, output: caught.update(qkv=output))
    with torch.no_grad():
        whole = vit.eval()((torch.from_numpy(image)[None].float() / 255 - 0.5) / 0.25)
    handle.remove()
    mixed = attend(caught["qkv"], [(1, whole.shape[1])], 3)
    query, key, value = caught["qkv"].reshape(-1, 3, 3, 8).permute(1, 2, 0, 3)  # (A, P + N, 8)
    weights = (query[:, :1] @ key.transpose(1, 2) / 8**0.5).softmax(-1)
    np.testing.assert_allclose(attention.reshape(3, -1), weights[:, 0, 3:].numpy(), atol=1e-6)
    np.testing.assert_allclose((weights @ value)[:, 0].flatten(), mixed[0], atol=1e-5)
    np.testing.assert_allclose(tokens.reshape(-1, 24), whole[0, 3:].numpy(), atol=1e-5)
    assert not block.qkv._forward_hooks, "training goes on without the picture's hook"


def test_an_image_is_looked_at_enlarged_in_its_own_proportions():
    vit, image = made()
    attention, _ = look_closely(vit, image, MOMENTS, 12)
    assert attention.shape == (3, 8, 12)


def test_tokens_are_those_of_the_network_in_order():
    vit, image = made()
    images = [image, image[:, :, ::-1].copy()]
    cls, patches = sampled_tokens(vit, images, MOMENTS)
    with torch.no_grad():
        expected = vit(torch.stack([(torch.from_numpy(each).float() / 255 - 0.5) / 0.25 for each in images]))
    np.testing.assert_allclose(cls, expected[:, 0].numpy(), atol=1e-5)
    assert patches.shape == (2 * PATCHES_PER_IMAGE, 24)
    np.testing.assert_allclose(patches[0], expected[0, 3 + spread_indices(24, PATCHES_PER_IMAGE)[0]].numpy(), atol=1e-5)


def test_numbers_are_drawn_evenly_and_all_where_there_are_few():
    assert spread_indices(3, 10) == [0, 1, 2]
    assert spread_indices(100, 4) == [12, 37, 62, 87]
    assert len(set(spread_indices(1000, 256))) == 256
