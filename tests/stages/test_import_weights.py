"""Other people's weights become foundation checkpoints, go through every stage, and back under other names."""

import json
import logging
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fmseg.cli.frame import Session
from fmseg.cli.starting import start_from
from fmseg.errors import BadData, UnknownName, UsageError
from fmseg.inference.exposure import pretraining_exposure
from fmseg.networks.cnn import TIMM_MODELS, find_weights
from fmseg.networks.foreign_files import read_foreign
from fmseg.networks.sources import sources
from fmseg.networks.sources.convert import convert
from fmseg.networks.weights import load_backbone
from fmseg.planning import watching
from fmseg.planning.starting_point import choose_start
from fmseg.records.foundation import Foundation, find_foundations, moments_for
from fmseg.records.run import RunConfig
from fmseg.stages.export_weights import export_weights
from fmseg.stages.fingerprint import fingerprint
from fmseg.stages.import_weights import ImportOptions, checkpoint_of, cnn_of, import_cnn, import_weights, locate
from fmseg.stages.plan import plan
from fmseg.stages.preprocess import preprocess
from fmseg.stages.pretrain import PretrainOptions, pretrain
from fmseg.stages.train import TrainOptions, train
from fmseg.workspace import Workspace

OPTIONS = ImportOptions(name="theirs", num_heads=2)


def state_of(registers=0, channels=3, patch=8, width=32):
    """A small DINOv2 backbone under its own names."""
    torch.manual_seed(0)
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 17, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, channels, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    if registers:
        shapes["register_tokens"] = (1, registers, width)
    for index in range(3):
        rows = {"attn.qkv": 3 * width, "attn.proj": width, "mlp.fc1": 4 * width, "mlp.fc2": width}
        for name, count in rows.items():
            shapes[f"blocks.{index}.{name}.weight"] = (count, 4 * width if name == "mlp.fc2" else width)
            shapes[f"blocks.{index}.{name}.bias"] = (count,)
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{index}.{name}"] = (width,)
    return {name: 0.1 * torch.randn(shape) + ("norm" in name) for name, shape in shapes.items()}


@pytest.fixture
def workspace(tmp_path):
    return Workspace.find(tmp_path)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "dinov2_tiny.pth"
    torch.save(state_of(), path)
    return path


def test_a_file_becomes_a_checkpoint_with_all_that_later_stages_need(workspace, file):
    card = import_weights(workspace, str(file), OPTIONS)
    vit, same = load_backbone(workspace.foundation("natural", "theirs"))
    assert same == card
    assert (card.mean, card.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (card.origin.source, card.origin.file, card.licence) == ("dinov2", "dinov2_tiny.pth", "Apache-2.0")
    theirs = state_of()
    assert {name for name, tensor in vit.state_dict().items() if torch.equal(tensor, theirs[name])} == set(theirs)
    text = (workspace.foundation("natural", "theirs") / "card.md").read_text()
    assert "dinov2_tiny.pth" in text
    assert "Apache-2.0" in text


def test_a_file_is_imported_once(workspace, file):
    first = import_weights(workspace, str(file), OPTIONS)
    assert import_weights(workspace, str(file), OPTIONS) == first
    assert checkpoint_of(workspace, str(file)) == "theirs"
    torch.save(state_of() | {"norm.bias": torch.ones(32)}, file)
    with pytest.raises(UsageError, match="another checkpoint"):
        import_weights(workspace, str(file), OPTIONS)
    assert checkpoint_of(workspace, str(file)) is None


@pytest.mark.parametrize("name", ["blocks.1.attn.qkv.weight", "norm.weight", "pos_embed", "blocks.2.ls1.gamma"])
def test_a_tensor_that_is_missing_misshapen_renamed_or_not_finite_is_named(workspace, file, name):
    state = state_of()
    without = {key: tensor for key, tensor in state.items() if key != name}
    wrong = {
        "is missing": without,
        "is needed": state | {name: torch.cat([state[name], state[name]], dim=-1)},
        "not finite": state | {name: state[name] * float("nan")},
    }
    for problem, value in wrong.items():
        torch.save(value, file)
        with pytest.raises(BadData, match=rf"'{name}'.* {problem}"):
            import_weights(workspace, str(file), OPTIONS)
    torch.save(without | {"what.is.this": state[name]}, file)
    with pytest.raises(BadData, match=f"'{name}' is missing"):
        import_weights(workspace, str(file), OPTIONS)
    torch.save(state | {"what.is.this": state[name]}, file)
    with pytest.raises(BadData, match=r"nothing takes the tensor 'what\.is\.this'"):
        import_weights(workspace, str(file), OPTIONS)
    assert not list(workspace.foundations().glob("*/*/foundation.json"))


def test_what_cannot_be_known_is_asked_for(workspace, file):
    with pytest.raises(UsageError, match="--heads"):
        import_weights(workspace, str(file), ImportOptions(name="theirs"))
    torch.save({"teacher": {f"backbone.{name}": tensor for name, tensor in state_of(channels=1).items()}}, file)
    with pytest.raises(UsageError, match=r"--mean 0\.18 --std 0\.22"):
        import_weights(workspace, str(file), OPTIONS)
    card = import_weights(workspace, str(file), ImportOptions(name="own", num_heads=2, mean=(0.1,), std=(0.2,)))
    assert (card.mean, card.std) == ((0.1,), (0.2,))
    torch.save({"weight": torch.ones(3)}, file)
    with pytest.raises(UsageError, match="cannot be told"):
        import_weights(workspace, str(file), OPTIONS)
    with pytest.raises(UnknownName, match="no_such"):
        import_weights(workspace, str(file), ImportOptions(source="no_such"))


def test_non_commercial_licences_are_said_loudly(workspace, tmp_path, caplog):
    state = {name: tensor for name, tensor in state_of().items() if ".ls" not in name}
    path = tmp_path / "mae.pth"
    torch.save(
        {"model": state | {"decoder_blocks.0.norm1.weight": torch.ones(2), "mask_token": torch.ones(1, 1, 4)}}, path
    )
    card = import_weights(workspace, str(path), OPTIONS)
    assert card.foreign == ("mae", "CC-BY-NC-4.0 (no commercial use)")
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "no commercial use" in warning.getMessage()
    assert dict(card.origin.dropped) == {
        "model.decoder_blocks.0.norm1.weight": "of the decoder",
        "model.mask_token": "as wide as the decoder",
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_become_each_other_without_a_change_for_grey_images(workspace, tmp_path, channels):
    path = tmp_path / "teacher.pth"
    torch.save(
        {"teacher": {f"backbone.{name}": tensor for name, tensor in state_of(channels=4 - channels).items()}}, path
    )
    mean, std = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)) if channels == 1 else ((0.4,), (0.2,))
    import_weights(workspace, str(path), ImportOptions(name="theirs", num_heads=2, mean=mean, std=std))
    folder = workspace.foundation("natural", "theirs")
    (vit, card), (other, fitted) = load_backbone(folder), load_backbone(folder, channels)
    assert fitted.architecture.channels == channels
    assert (fitted.mean, fitted.std) == moments_for(mean, std, channels)
    grey = torch.rand(2, 1, 40, 56)

    def tokens(network, made_for):
        mean, std = (torch.tensor(values)[:, None, None] for values in (made_for.mean, made_for.std))
        return network.eval()((grey.expand(-1, made_for.architecture.channels, -1, -1) - mean) / std)

    torch.testing.assert_close(tokens(other, fitted), tokens(vit, card), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match=r"images have 2"):
        card.for_channels(2)


def test_resampled_patches_answer_to_enlarged_images_as_before(workspace, file):
    def stem(name, image):
        vit, card = load_backbone(workspace.foundation("natural", name))
        assert card.architecture.image_size == (4 * image.shape[-1],) * 2
        return vit._project(image)

    import_weights(workspace, str(file), OPTIONS)
    import_weights(workspace, str(file), ImportOptions(name="larger", num_heads=2, patch=16))
    image = torch.rand(1, 3, 8, 8)
    large = torch.nn.functional.interpolate(image, (16, 16), mode="bicubic", antialias=True)
    torch.testing.assert_close(stem("larger", large), stem("theirs", image), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("to", ["dinov2", "timm", "huggingface"])
@pytest.mark.parametrize("registers", [0, 4])
def test_import_undoes_export(workspace, tmp_path, to, registers):
    path = tmp_path / "theirs.pth"
    torch.save(state_of(registers, patch=14), path)
    first = import_weights(workspace, str(path), OPTIONS)
    out = tmp_path / "out"
    files = export_weights(workspace, "theirs", to, out)
    assert all(each.exists() for each in files)
    target = files[0] if to == "dinov2" else out
    again = import_weights(workspace, str(target), ImportOptions(name="again", num_heads=2))
    assert (again.mean, again.std) == (first.mean, first.std)
    (one, _), (other, _) = (load_backbone(workspace.foundation("natural", name)) for name in ("theirs", "again"))
    image = torch.rand(1, 3, 56, 56)
    torch.testing.assert_close(other.eval()(image), one.eval()(image), rtol=1e-4, atol=1e-5)
    if to == "dinov2":
        assert load_file(files[0]).keys() == state_of(registers).keys()


@pytest.mark.parametrize("registers", [0, 4])
def test_others_load_what_was_exported(workspace, tmp_path, registers):
    import timm
    import transformers

    path = tmp_path / "theirs.pth"
    torch.save(state_of(registers, patch=14), path)
    import_weights(workspace, str(path), OPTIONS)
    vit, _ = load_backbone(workspace.foundation("natural", "theirs"))
    image = torch.rand(1, 3, 56, 56)
    want = vit.eval()(image)
    export_weights(workspace, "theirs", "timm", tmp_path / "timm")
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    model = timm.create_model(config["architecture"], num_classes=0, **config["model_args"]).eval()
    model.load_state_dict(load_file(tmp_path / "timm" / "model.safetensors"))
    torch.testing.assert_close(model.forward_features(image), want, rtol=1e-4, atol=1e-5)
    export_weights(workspace, "theirs", "huggingface", tmp_path / "hf")
    found = transformers.AutoModel.from_pretrained(tmp_path / "hf").eval()
    torch.testing.assert_close(found(image).last_hidden_state, want, rtol=1e-4, atol=1e-5)


def test_nothing_of_a_file_runs_and_tensors_of_training_checkpoints_come_out(tmp_path, workspace):
    import argparse
    import os

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    class Log:
        def __init__(self):
            self.lines = [1.5, np.float64(2.5)]

    path = tmp_path / "full.pth"
    plain = {"teacher": OrderedDict((f"backbone.{name}", tensor) for name, tensor in state_of().items())}
    globals()["Log"], Log.__qualname__ = Log, "Log"
    torch.save(plain | {"args": argparse.Namespace(lr=0.1), "log": Log(), "score": np.float64(0.5)}, path)
    assert convert(read_foreign(path), num_heads=2).name == "dinov2_training"
    torch.save(plain | {"trap": Trap()}, path)
    with pytest.raises(BadData, match=r"it would call (posix|nt)\.mkdir"):
        read_foreign(path)
    assert not (tmp_path / "trapped").exists()
    path.write_bytes(b"no zip")
    with pytest.raises(BadData, match="opened safely"):
        read_foreign(path)


def test_a_tensor_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "twice.safetensors"
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, path)
    path.write_bytes(path.read_bytes().replace(b'"b":', b'"a":'))
    with pytest.raises(BadData, match="'a' is there twice"):
        read_foreign(path)
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(BadData, match="not a safetensors file"):
        read_foreign(path)


def test_a_cnn_of_timm_goes_where_training_finds_it(workspace, tmp_path, monkeypatch):
    import timm

    monkeypatch.setitem(TIMM_MODELS, "resnet50", "resnet10t")
    theirs = timm.create_model("resnet10t", pretrained=False)
    path = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), path)
    assert cnn_of(str(path), "auto") is None
    assert cnn_of(str(path), "timm:resnet10t.c3_in1k") == "resnet10t"
    import_cnn(workspace, str(path), "timm:resnet10t.c3_in1k", "resnet10t")
    found = find_weights("resnet50", workspace.foundations() / "timm")
    assert torch.equal(load_file(found)["conv1.0.weight"], theirs.state_dict()["conv1.0.weight"])
    assert not {"fc.weight", "fc.bias"} & load_file(found).keys()
    torch.save({name: tensor for name, tensor in theirs.state_dict().items() if name != "bn1.weight"}, path)
    with pytest.raises(BadData, match=r"'bn1\.weight' is missing"):
        import_cnn(workspace, str(path), "timm:resnet10t", "resnet10t")


def test_what_timm_keeps_is_found_by_its_name(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, file: str(path))
    assert locate("timm:vit_small_patch16_224.dino", "auto") == (path, "timm:vit_small_patch16_224.dino")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, file: None)
    with pytest.raises(BadData, match="is not on this machine"):
        locate("timm:vit_small_patch16_224.dino", "auto")
    with pytest.raises(UsageError, match="no pretrained model called 'no_such'"):
        locate("timm:no_such", "auto")


def test_init_takes_a_file(workspace, tmp_path, monkeypatch):
    session = Session(workspace, dry_run=False, plugins=())
    assert start_from(session, "auto") == "auto"
    path = tmp_path / "dinov2_vits14.pth"
    torch.save(state_of(width=192), path)
    with pytest.raises(UsageError, match="import it first"):
        start_from(Session(workspace, dry_run=True, plugins=()), str(path))
    assert start_from(session, str(path)) == "dinov2_vits14"
    assert start_from(Session(workspace, dry_run=True, plugins=()), str(path)) == "dinov2_vits14"
    assert Foundation.load(workspace.foundation("natural", "dinov2_vits14") / "foundation.json").origin is not None


def test_imported_weights_go_through_training_and_pretraining_with_their_terms(raw_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "MOST_LOOKS", 1)
    name = "Dataset501_Discs"
    workspace = raw_dataset(name, num_patients=5, images_per_patient=1)
    fingerprint(workspace, name, num_processes=0)
    preprocess(workspace, name, plan(workspace, name), num_processes=0)
    path = tmp_path / "dinov2_tiny.pth"
    torch.save(state_of(), path)
    card = import_weights(workspace, str(path), OPTIONS)
    monkeypatch.setitem(sources._items, "dinov2", replace(sources["dinov2"], licence="CC-BY-NC-4.0", commercial=False))
    (workspace.foundation("natural", "theirs") / "foundation.json").unlink()
    card = import_weights(workspace, str(path), OPTIONS)
    few = {"iterations": "2", "batch_size": "2", "precision": "float32", "warmup_iterations": "1"}
    options = TrainOptions(recipe="linear", init="theirs", settings=few | {"validation_interval": "2"}, num_workers=0)
    train(workspace, name, 0, options)
    (run,) = workspace.results_of(name).glob("linear-theirs__*/fold_0/run.json")
    config = RunConfig.load(run)
    assert config.architecture == card.architecture.evolve(channels=1)
    assert (config.mean, config.std) == moments_for(card.mean, card.std, 1)
    assert config.init.terms == "CC-BY-NC-4.0 (no commercial use)"
    heads = {"num_prototypes": "32", "head_hidden": "16", "head_bottleneck": "8"}
    (made,) = pretrain(workspace, [name], PretrainOptions(init="theirs", settings=few | heads, num_workers=0))
    assert (made.architecture, made.mean) == (config.architecture, config.mean)
    assert made.foreign == ("dinov2", "CC-BY-NC-4.0 (no commercial use)")
    assert made.licence.startswith("CC-BY-NC-4.0 (no commercial use), of the weights from dinov2")
    exposure = pretraining_exposure(workspace, [config.init])
    assert any("theirs was made from" in reason for reason in exposure.unknown)
    # what nobody asked for is not taken
    plans = config.plans
    others = [pair for pair in find_foundations(workspace.foundations()) if pair[1].name == "theirs"]
    assert choose_start(others, plans, "auto")[0] is None
