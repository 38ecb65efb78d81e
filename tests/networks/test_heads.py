import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from fmseg.inference.members import load_weights
from fmseg.networks.heads import TEMPERATURE, AttentiveHead, NearestHead


def bank(num=60, width=8, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num, width)).astype(np.float32)
    return features, np.eye(classes, dtype=np.float32)[rng.integers(0, classes, num)]


def nearest(features, targets, neighbours, **options):
    head = NearestHead(features.shape[1], targets.shape[1], dropout=0.0)
    unit = F.normalize(torch.from_numpy(features), dim=1)
    columns = torch.arange(features.shape[1])
    head.fill(unit, torch.from_numpy(targets), columns, neighbours, **({"is_exclusive": True} | options))
    return head


@pytest.mark.parametrize("neighbours", [1, 5, 20])
def test_votes_are_those_of_scikit_learn(neighbours):
    features, targets = bank()
    asked, _ = bank(num=15, seed=1)
    reference = KNeighborsClassifier(
        neighbours, metric="cosine", weights=lambda distances: np.exp((1 - distances) / TEMPERATURE)
    ).fit(features, targets.argmax(1))
    ours = nearest(features, targets, neighbours)(torch.from_numpy(asked)).softmax(1).numpy()
    np.testing.assert_allclose(ours, reference.predict_proba(asked), atol=1e-5)


def test_several_classes_are_voted_on_one_by_one():
    features, _ = bank()
    targets = np.random.default_rng(2).integers(0, 2, (60, 3)).astype(np.float32)
    shares = nearest(features, targets, 1, is_exclusive=False)(torch.from_numpy(features)).sigmoid().numpy()
    np.testing.assert_allclose(shares, targets, atol=1e-5)


def test_only_the_chosen_columns_are_compared():
    features, targets = bank()
    head = nearest(features[:, :4], targets, 3)
    wide = NearestHead(8, 3, dropout=0.0)
    wide.fill(head.bank, head.targets, torch.arange(4), 3, is_exclusive=True)
    changed = np.concatenate([features[:, :4], 100 * features[:, 4:]], axis=1)
    assert torch.equal(wide(torch.from_numpy(changed)), head(torch.from_numpy(features[:, :4])))


def test_a_bank_of_any_size_is_read_back(tmp_path):
    head = nearest(*bank(), 5)
    network = torch.nn.ModuleDict({"head": head})
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    again = torch.nn.ModuleDict({"head": NearestHead(8, 3, dropout=0.0)})
    load_weights(again, tmp_path / "model.safetensors")
    asked = torch.randn(4, 8)
    assert torch.equal(again["head"](asked), head(asked))


def test_attention_sees_all_tokens():
    head = AttentiveHead(16, 3, dropout=0.0).eval()
    tokens = torch.randn(1, 5, 16, requires_grad=True)
    head(tokens)[0, 0].backward()
    assert (tokens.grad.abs().sum(2) > 0).all()
    assert torch.allclose(head(tokens), head(tokens.flip(1)), atol=1e-6)  # in no order
