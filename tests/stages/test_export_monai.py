"""MONAI's own tools load and run what is exported for them."""

import json

import numpy as np
import pytest
import tiny_run
import torch
from PIL import Image

from fmseg.errors import UsageError
from fmseg.inference.joined import load_joined
from fmseg.stages.export.monai import export_monai
from fmseg.stages.predict import predict
from fmseg.workspace import Workspace

NAME = "Dataset501_Discs"


def trained(folder, config):
    place = Workspace(folder / "raw", folder / "prepared", folder / "results")
    for fold in range(2):
        tiny_run.write_run(place.results_of(NAME) / "some__plans" / f"fold_{fold}", config, seed=fold)
    return place


def draw(folder, size):
    folder.mkdir()
    for index in range(3):
        image, _ = tiny_run.disc(np.random.default_rng(index), size)
        Image.fromarray(image).save(folder / f"{index}.png")
    return folder


def metadata_shape(metadata):
    image = metadata["network_data_format"]["inputs"]["image"]
    return image["num_channels"], *image["spatial_shape"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["label maps", "classes"])
def test_the_network_answers_as_its_metadata_says(kind, tmp_path):
    from monai.bundle import verify_net_in_out

    place = trained(tmp_path, tiny_run.config() if kind == "label maps" else tiny_run.class_config())
    export_monai(place, None, tmp_path / "out")
    root = tmp_path / "out"
    metadata = json.loads((root / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["outputs"]["pred"]["num_channels"] == 2
    if kind == "classes":  # the tool knows maps only
        images = torch.rand(2, *metadata_shape(metadata))
        answer = load_joined(root / "models" / "model.fmseg")(images)
        assert answer.shape == (2, 2) and torch.allclose(answer.sum(dim=1), torch.ones(2))
        return
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(root / "configs" / "metadata.json"),
        config_file=str(root / "configs" / "inference.json"),
        device="cpu",
        bundle_root=str(root),
    )


@pytest.mark.slow
def test_the_bundle_run_by_monai_draws_what_predict_draws(tmp_path):
    from monai.bundle import run

    place = trained(tmp_path, tiny_run.config())
    images = draw(tmp_path / "in", (40, 40))  # scaled to one window
    predict(place, images, tmp_path / "wanted")
    root = tmp_path / "out"
    export_monai(place, None, root)
    run(
        config_file=str(root / "configs" / "inference.json"),
        meta_file=str(root / "configs" / "metadata.json"),
        bundle_root=str(root),
        dataset_dir=str(images),
        output_dir=str(tmp_path / "found"),
    )
    for index in range(3):
        found, wanted = (np.asarray(Image.open(tmp_path / name / f"{index}.png")) for name in ("found", "wanted"))
        assert found.shape == wanted.shape and (found == wanted).mean() > 0.999


def test_networks_of_several_input_sizes_are_refused(tmp_path):
    place = trained(tmp_path, tiny_run.config())
    other = tiny_run.config(recipe=tiny_run.RECIPE.evolve(input_size=(16, 16)).model_dump())
    tiny_run.write_run(place.results_of(NAME) / "some__plans" / "fold_1", other)
    with pytest.raises(UsageError, match="several sizes"):
        export_monai(place, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
