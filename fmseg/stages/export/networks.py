"""Networks for programs that know nothing of fmseg: ONNX, or safetensors for a hub, each with a full description."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fmseg.errors import BadData, EnvironmentProblem, UsageError
from fmseg.files import sha256_file, write_bytes
from fmseg.inference.choice import Choice, load_choice
from fmseg.inference.exposure import Exposure
from fmseg.inference.members import WEIGHTS, Member
from fmseg.inference.trained import SELECTION, trained_results
from fmseg.records.bundle import MANIFEST, MODEL_CARD, Bundle
from fmseg.records.description import Description, Network
from fmseg.records.selection import Selection
from fmseg.reporting.bundle_card import bundle_card
from fmseg.stages.export import describe_models
from fmseg.stages.export.describe import describe
from fmseg.stages.export.folder import DESCRIPTION, making
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

#: of logits, in float32
TOLERANCE = 1e-4
NUM_TRIALS = 2

#: network, folder, name without an ending -> file, largest difference of logits or None
Writer = Callable[[Member, Path, str], tuple[Path, float | None]]


def export_networks(
    workspace: Workspace,
    dataset: str | None,
    folder: Path,
    form: str,
    *,
    licence: str | None = None,
    overwrite: bool = False,
) -> Description:
    """Write the networks that predict a dataset into a folder, with fmseg.json and card.md.

    form: "onnx" or "hub". Raises UsageError if the folder is there and ``overwrite`` is not asked for.
    """
    write = {"onnx": _write_onnx, "hub": _write_safetensors}[form]
    results = trained_results(workspace, dataset)
    choice = load_choice(results)
    configs = [member.config for member in choice.members]
    if (results / MANIFEST).exists():
        bundle = Bundle.load(results / MANIFEST)
    else:
        bundle = describe_models(workspace, results, configs, Exposure(), licence)
    selection = Selection.load(results / SELECTION) if (results / SELECTION).exists() else None
    with making(folder, overwrite=overwrite) as temporary:
        networks = [_network(choice, number, results, temporary, write) for number in range(len(choice.members))]
        description = describe(bundle, choice.chosen, configs[0], networks)
        description.save(temporary / DESCRIPTION)
        card = bundle_card(bundle, configs, selection, [network.sha256 for network in networks])
        if form == "hub":
            card = _front_matter(bundle) + card
        write_bytes(temporary / ("README.md" if form == "hub" else MODEL_CARD), card.encode())
    return description


def _network(choice: Choice, number: int, results: Path, folder: Path, write: Writer) -> Network:
    member, run = choice.members[number], choice.chosen.runs[number][0]
    name = "_".join(run.relative_to(results).parts)
    path, difference = write(member, folder, name)
    config = member.config
    return Network(
        file=path.name,
        sha256=sha256_file(path),
        share=member.weight,
        recipe=config.recipe.name,
        architecture=config.architecture,
        input_size=config.recipe.input_size,
        mean=config.mean,
        std=config.std,
        largest_difference=difference,
    )


def _write_safetensors(member: Member, folder: Path, name: str) -> tuple[Path, None]:
    from safetensors.torch import save_file

    path = folder / f"{name}.{WEIGHTS}"
    save_file({key: tensor.cpu().contiguous() for key, tensor in member.model.state_dict().items()}, path)
    return path, None


def _write_onnx(member: Member, folder: Path, name: str) -> tuple[Path, float]:
    """Write image (batch, C, H, W) -> logits, any batch; run it on made images and compare. Raises BadData."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise EnvironmentProblem(f"ONNX needs {error.name}. Install it with: pip install 'fmseg[onnx]'") from error
    model = member.model.float().cpu()
    size = (member.config.architecture.channels, *member.config.recipe.input_size)
    batch = torch.export.Dim("batch")
    try:
        program = torch.onnx.export(
            model,
            (torch.zeros(2, *size),),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes={"image": {0: batch}},
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise UsageError(f"{name}: its network cannot be written as ONNX ({str(error)[:300]}).") from error
    assert program is not None, "the exporter of dynamo returns a program"
    _forget_sources(program.model)
    path = folder / f"{name}.onnx"
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    difference = 0.0
    for seed in range(NUM_TRIALS):
        images = np.random.default_rng(seed).normal(size=(seed + 1, *size)).astype(np.float32)
        with torch.inference_mode():
            wanted = model(torch.from_numpy(images)).numpy()
        (found,) = session.run(None, {"image": images})
        difference = max(difference, float(np.abs(found - wanted).max()))
    if not difference <= TOLERANCE:
        raise BadData(f"{name}: the logits of its ONNX form differ by {difference:.2g}, more than {TOLERANCE:g}.")
    logger.info("%s: logits differ by %.1g at most", path.name, difference)
    return path, difference


def _forget_sources(model: object) -> None:
    """Remove what the exporter notes of source files, which holds paths of this machine."""
    graph = model.graph  # type: ignore[attr-defined]
    graph.metadata_props.clear()
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()  # type: ignore[attr-defined]


def _front_matter(bundle: Bundle) -> str:
    """Return what hubs of models read at the head of a card."""
    task = "image-segmentation" if bundle.task == "segmentation" else "image-classification"
    return (
        f'---\nlibrary_name: fmseg\npipeline_tag: {task}\nlicense: other\nlicense_name: "{bundle.licence}"\n'
        f"tags:\n- medical\n- {bundle.modality}\n---\n\n"
    )
