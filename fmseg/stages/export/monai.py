"""A folder in the layout of MONAI's bundles: configs, models, docs. It needs fmseg where it runs, and says so."""

from pathlib import Path
from typing import Any

from fmseg._version import __version__
from fmseg.errors import UsageError
from fmseg.files import write_bytes, write_json
from fmseg.inference.bundles import opened
from fmseg.inference.choice import load_choice
from fmseg.inference.members import outputs_of
from fmseg.inference.sliding import OVERLAP, SIGMA_SHARE
from fmseg.records.bundle import MODEL_CARD, Bundle
from fmseg.records.run import Provenance, RunConfig
from fmseg.stages.export import export_models
from fmseg.stages.export.describe import describe
from fmseg.stages.export.folder import DESCRIPTION, making
from fmseg.workspace import Workspace

MODEL = "models/model.fmseg"
_PATH = f"$@bundle_root + '/{MODEL}'"


def export_monai(
    workspace: Workspace, dataset: str | None, folder: Path, *, licence: str | None = None, overwrite: bool = False
) -> Bundle:
    """Write a MONAI bundle around the .fmseg file of the models of a dataset.

    Raises UsageError if its networks take inputs of several sizes, which one inferer cannot serve.
    """
    with making(folder, overwrite=overwrite) as temporary:
        (temporary / "models").mkdir()
        bundle = export_models(workspace, dataset, temporary / MODEL, licence=licence).bundle
        with opened(temporary / MODEL, workspace.plugins) as results:
            choice = load_choice(results)
            card = (results / MODEL_CARD).read_bytes()
        config = choice.members[0].config
        if len({member.config.recipe.input_size for member in choice.members}) > 1:
            raise UsageError(f"{bundle.name}: its networks take inputs of several sizes. Export them as ONNX instead.")
        write_json(temporary / "configs" / "metadata.json", _metadata(bundle, config))
        write_json(temporary / "configs" / "inference.json", _inference(bundle, config))
        write_bytes(temporary / "docs" / "README.md", card)
        describe(bundle, choice.chosen, config, ()).save(temporary / DESCRIPTION)
    return bundle


def _metadata(bundle: Bundle, config: RunConfig) -> dict[str, Any]:
    versions = Provenance.here().packages
    outputs, (height, width) = outputs_of(config), config.recipe.input_size
    draws = bundle.task == "segmentation"
    names = ("background", *outputs.names) if len(outputs.names) < outputs.num_outputs else outputs.names
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": bundle.modality,
        "num_channels": config.architecture.channels,
        "spatial_shape": [height, width],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": draws,
        "channel_def": {str(number): f"channel {number}" for number in range(config.architecture.channels)},
    }
    answer = {
        "type": "image" if draws else "probabilities",
        "format": "segmentation" if draws else "classification",
        "num_channels": outputs.num_outputs,
        "spatial_shape": [height, width] if draws else [],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": draws,
        "channel_def": {str(number): name for number, name in enumerate(names)},
    }
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by fmseg {__version__}"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {"fmseg": __version__, "timm": versions["timm"]},
        "name": bundle.name,
        "task": f"{bundle.task} of {bundle.modality}",
        "description": f"{bundle.task} of {bundle.modality}; see docs/README.md",
        "authors": "see docs/README.md",
        "copyright": bundle.licence,
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": answer}},
    }


def _inference(bundle: Bundle, config: RunConfig) -> dict[str, Any]:
    size = list(config.recipe.input_size)
    windows = {
        "_target_": "SlidingWindowInferer",
        "roi_size": size,
        "sw_batch_size": config.recipe.batch_size,
        "overlap": OVERLAP,
        "mode": "gaussian",
        "sigma_scale": SIGMA_SHARE,
        "padding_mode": "constant",
        "cval": 0.0,
    }
    draws = bundle.task == "segmentation"
    finish = {"_target_": "fmseg.inference.joined.Finish", "path": _PATH, "output": "@output_dir"}
    return {
        "imports": ["$import pathlib"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/predictions'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "files": "$sorted(str(path) for path in pathlib.Path(@dataset_dir).iterdir() if path.is_file())",
        "network_def": {"_target_": "fmseg.inference.joined.load_joined", "path": _PATH},
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "fmseg.inference.joined.Prepare", "path": _PATH},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': file} for file in @files]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": windows if draws else {"_target_": "SimpleInferer"},
        "postprocessing": finish if draws else {"_target_": "Compose", "transforms": []},
        "answers": {
            "_target_": "fmseg.inference.joined.infer_all",
            "batches": "@dataloader",
            "infer": "@inferer",
            "network": "@network",
            "finish": "@postprocessing",
        },
        "initialize": [],
        "run": ["@answers"],
        "finalize": [],
    }
