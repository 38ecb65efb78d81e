import pytest
import torch

from fmseg.networks.classifier import ClassHead, Classifier, heads
from fmseg.networks.vit import ViT
from fmseg.records.plans import Architecture

ARCHITECTURE = Architecture(
    name="tiny",
    patch_size=8,
    width=16,
    depth=3,
    num_heads=2,
    mlp_ratio=2.0,
    ffn="mlp",
    num_registers=2,
    layer_scale=None,
    layer_norm_eps=1e-6,
    channels=1,
    image_size=(24, 32),
    position_interpolation="size",
    position_antialias=True,
)


def classifier(num_blocks=1, head="class_head", **options):
    torch.manual_seed(0)
    vit = ViT(ARCHITECTURE)
    inputs = 16 if getattr(heads[head], "sees_tokens", False) else 32 * num_blocks
    return Classifier(vit, heads[head](inputs, 3, dropout=0.0), num_blocks=num_blocks, **options)


def test_the_head_sees_class_token_and_mean_patch_of_the_last_block():
    network, image = classifier().eval(), torch.randn(2, 1, 24, 32)
    tokens = network.vit(image)
    features = network.features(image)
    assert torch.allclose(features[:, :16], tokens[:, 0])
    assert torch.allclose(features[:, 16:], tokens[:, 3:].mean(1), atol=1e-6)


def test_more_blocks_add_features_before_those_of_the_last():
    image = torch.randn(2, 1, 24, 32)
    one, many = (classifier(count).eval() for count in (1, 4))
    assert torch.equal(one.features(image), many.features(image)[:, -32:])
    assert many(image).shape == (2, 3)


@pytest.mark.parametrize("head", heads.names())
def test_heads_keep_their_contract(head):
    """Any head: logits of every class, near even odds, a function of the seed; gradients reach every parameter."""
    network = classifier(head=head)
    logits = network(torch.randn(4, 1, 24, 32))
    assert logits.shape == (4, 3) and logits.dtype == torch.float32
    assert (logits.softmax(1) - 1 / 3).abs().max() < 0.2
    if not list(network.head.parameters()):
        return
    logits.square().sum().backward()
    missing = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    again = classifier(head=head).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in network.state_dict().items())


def test_any_size_goes_through():
    assert classifier().eval()(torch.randn(1, 1, 21, 45)).shape == (1, 3)


def test_a_frozen_backbone_stays_in_evaluation():
    network = classifier(freeze_backbone=True).train()
    assert not network.vit.training and network.head.training
    assert {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad} == {"head"}


def test_dropout_acts_in_training_alone():
    head, features = ClassHead(64, 2, dropout=0.5), torch.randn(8, 64)
    head.eval()
    assert torch.equal(head(features), head(features))
    head.train()
    assert not torch.equal(head(features), head(features))
