"""Networks in other forms say what they say in fmseg, and what is around them is described."""

import json

import numpy as np
import pytest
import tiny_run
import torch
from safetensors.torch import load_file

from fmseg.errors import EnvironmentProblem, UsageError
from fmseg.imaging.case import Geometry
from fmseg.imaging.prepare import centred, prepare, to_network
from fmseg.inference.choice import load_choice
from fmseg.records.description import Description
from fmseg.stages.export.networks import export_networks
from fmseg.workspace import Workspace

NAME = "Dataset501_Discs"
KINDS = {"label maps": tiny_run.config(), "classes": tiny_run.class_config()}
UPERNET = tiny_run.config(recipe=tiny_run.RECIPE.evolve(decoder="upernet").model_dump())


def decoder_of(config):
    return config.recipe.decoder


def trained(folder, config, folds=1):
    place = Workspace(folder / "raw", folder / "prepared", folder / "results")
    for fold in range(folds):
        tiny_run.write_run(place.results_of(NAME) / "some__plans" / f"fold_{fold}", config, seed=fold)
    return place


@pytest.mark.parametrize("config", [*KINDS.values(), pytest.param(UPERNET, marks=pytest.mark.slow)], ids=decoder_of)
def test_onnx_says_what_the_network_says_on_ten_images(config, tmp_path):
    import onnxruntime

    place = trained(tmp_path, config)
    made = export_networks(place, None, tmp_path / "out", "onnx")
    assert made == Description.load(tmp_path / "out" / "fmseg.json")
    (network,) = made.networks
    assert network.largest_difference <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "out" / network.file, providers=["CPUExecutionProvider"])
    rows = []
    for index in range(10):
        image, _ = tiny_run.disc(np.random.default_rng(index), (30 + 3 * index, 50))
        (small,) = prepare(image[None, None], Geometry(None, is_2d=True), made.preprocessing)
        rows.append(to_network(centred(small, network.input_size), network.mean, network.std))
    model = load_choice(place.results_of(NAME)).members[0].model.cpu()
    wanted = model(torch.from_numpy(np.stack(rows))).numpy()
    (together,) = session.run(None, {"image": np.stack(rows)})
    np.testing.assert_allclose(together, wanted, atol=1e-4)
    for row, logits in zip(rows, wanted, strict=True):
        np.testing.assert_allclose(session.run(None, {"image": row[None]})[0][0], logits, atol=1e-4)
    content = (tmp_path / "out" / network.file).read_bytes()
    assert b"vit.py" not in content and str(tmp_path).encode() not in content


@pytest.mark.parametrize("kind", KINDS)
def test_the_hub_folder_holds_weights_description_and_card(kind, tmp_path):
    place = trained(tmp_path, KINDS[kind], folds=2)
    made = export_networks(place, "501", tmp_path / "out", "hub", licence="CC-BY-4.0")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "fmseg.json",
        "some__plans_fold_0.model.safetensors",
        "some__plans_fold_1.model.safetensors",
    ]
    choice = load_choice(place.results_of(NAME))
    for network, member in zip(made.networks, choice.members, strict=True):
        found, wanted = load_file(tmp_path / "out" / network.file), member.model.state_dict()
        assert found.keys() == wanted.keys() and all((found[key] == wanted[key].cpu()).all() for key in found)
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: fmseg\n") and "CC-BY-4.0" in card
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(UsageError, match="there already"):
        export_networks(place, "501", tmp_path / "out", "hub")
    export_networks(place, "501", tmp_path / "out", "hub", licence="CC-BY-4.0", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(UsageError, match="something else"):
        export_networks(place, "501", tmp_path / "results", "hub", overwrite=True)


def test_every_number_of_the_description_is_that_of_the_plan(tmp_path):
    config = KINDS["label maps"]
    made = export_networks(trained(tmp_path, config), None, tmp_path / "out", "hub")
    assert made.preprocessing == config.plans.preprocessing and made.outputs == config.plans.labels
    assert (made.activation, made.mirror_axes) == ("softmax", ("horizontal",))
    written = json.loads((tmp_path / "out" / "fmseg.json").read_text())
    assert any("softmax" in step for step in written["steps"]) and written["windows"]["overlap"] == 0.5


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(EnvironmentProblem, match=r"fmseg\[onnx\]"):
        export_networks(trained(tmp_path, KINDS["classes"]), None, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()
