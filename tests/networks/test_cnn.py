import pytest
import timm
import torch
from safetensors.torch import save_file

from fmseg.errors import BadData
from fmseg.networks.classifier import classifiers
from fmseg.networks.cnn import TIMM_MODELS, TimmClassifier, find_weights, load_timm_weights

SMALL = "resnet10t"


def test_the_baselines_of_the_second_study_are_there():
    assert {"vit", "resnet50", "efficientnetv2"} <= set(classifiers)
    assert all(timm.is_model(model) for model in TIMM_MODELS.values())


def test_logits_are_float32_and_near_even_odds():
    network, image = TimmClassifier(SMALL, 1, 3, dropout=0.0).eval(), torch.randn(2, 1, 64, 96)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(image)
    assert logits.shape == (2, 3) and logits.dtype == torch.float32
    assert (logits.softmax(1) - 1 / 3).abs().max() < 0.2


def test_timms_weights_of_rgb_serve_grey_images(tmp_path):
    theirs = timm.create_model(SMALL, pretrained=False).eval()
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    ours = TimmClassifier(SMALL, 1, 3, dropout=0.0).eval()
    load_timm_weights(ours, tmp_path / "weights.safetensors")
    grey = torch.randn(1, 1, 64, 64)
    expected = theirs.forward_features(grey.expand(1, 3, 64, 64))
    torch.testing.assert_close(ours.net.forward_features(grey), expected, atol=1e-4, rtol=1e-4)


def test_a_file_of_another_network_is_refused(tmp_path):
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(BadData, match=r"other.safetensors: the tensor '.*' is missing"):
        load_timm_weights(TimmClassifier(SMALL, 1, 3, dropout=0.0), tmp_path / "other.safetensors")


def test_weights_are_looked_for_on_the_disk_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("something was downloaded"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert find_weights("efficientnetv2", tmp_path) is None
    own = tmp_path / "tf_efficientnetv2_s.safetensors"
    own.touch()
    assert find_weights("efficientnetv2", tmp_path) == own
