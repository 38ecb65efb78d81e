import pytest
import torch

from fmseg.errors import BadRecord
from fmseg.files import sha256_file
from fmseg.networks.vit import ViT
from fmseg.networks.weights import load_backbone, load_weights, save_backbone
from fmseg.records.foundation import CARD, WEIGHTS, Foundation
from fmseg.records.plans import Architecture
from fmseg.records.run import Provenance

ARCHITECTURE = Architecture(
    name="test",
    patch_size=8,
    width=16,
    depth=2,
    num_heads=2,
    mlp_ratio=2.0,
    ffn="mlp",
    num_registers=1,
    layer_scale=1e-5,
    layer_norm_eps=1e-6,
    channels=1,
    image_size=(16, 16),
    position_interpolation="size",
    position_antialias=False,
)


@pytest.fixture
def checkpoint(tmp_path):
    """(folder with weights and card, the backbone that was saved)"""
    torch.manual_seed(3)
    vit = ViT(ARCHITECTURE)
    sha256 = save_backbone(vit, tmp_path)
    card = Foundation(
        name="tiny",
        modality="ultrasound",
        architecture=ARCHITECTURE,
        mean=(0.2,),
        std=(0.2,),
        recipe=None,
        datasets=(),
        num_images=0,
        iterations=0,
        samples_seen=0,
        metrics={},
        weights_sha256=sha256,
        seen_count=0,
        licence="none",
        provenance=Provenance(fmseg="", commit="", packages={}, command=""),
    )
    card.save(tmp_path / CARD)
    return tmp_path, vit


def test_load_undoes_save(checkpoint):
    folder, vit = checkpoint
    loaded, card = load_backbone(folder)
    assert card.weights_sha256 == sha256_file(folder / WEIGHTS)
    assert loaded.state_dict().keys() == vit.state_dict().keys()
    for name, tensor in vit.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, WEIGHTS])


def test_equal_weights_give_equal_bytes(checkpoint, tmp_path):
    folder, vit = checkpoint
    assert save_backbone(vit, tmp_path / "again") == sha256_file(folder / WEIGHTS)


def test_changed_or_missing_weights_are_refused(checkpoint):
    folder, _ = checkpoint
    with open(folder / WEIGHTS, "ab") as file:
        file.write(b"\0")
    with pytest.raises(BadRecord, match="not the weights"):
        load_backbone(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(BadRecord, match="no such file"):
        load_backbone(folder)


def test_a_file_that_is_no_safetensors_is_refused(checkpoint):
    folder, _ = checkpoint
    (folder / WEIGHTS).write_bytes(b"pickle")
    card = Foundation.load(folder / CARD).evolve(weights_sha256=sha256_file(folder / WEIGHTS))
    card.save(folder / CARD)
    with pytest.raises(BadRecord, match="not a safetensors file"):
        load_backbone(folder)


def test_weights_of_another_architecture_are_refused(checkpoint):
    folder, _ = checkpoint
    card = Foundation.load(folder / CARD)
    card.evolve(architecture=ARCHITECTURE.evolve(depth=1).model_dump(mode="json")).save(folder / CARD)
    with pytest.raises(BadRecord, match=r"nothing takes the tensor 'blocks\.1"):
        load_backbone(folder)
    card.evolve(architecture=ARCHITECTURE.evolve(channels=3).model_dump(mode="json")).save(folder / CARD)
    with pytest.raises(BadRecord, match=r"images of 1 channel\(s\), but 3"):
        load_backbone(folder)


def test_every_tensor_must_be_there_with_its_shape():
    vit = ViT(ARCHITECTURE)
    state = vit.state_dict()
    with pytest.raises(BadRecord, match=r"some\.file: the tensor 'norm\.weight' is missing"):
        load_weights(vit, {name: tensor for name, tensor in state.items() if name != "norm.weight"}, "some.file")
    with pytest.raises(BadRecord, match=r"'norm\.weight' is \(4,\), but \(16,\)"):
        load_weights(vit, state | {"norm.weight": torch.zeros(4)}, "some.file")
