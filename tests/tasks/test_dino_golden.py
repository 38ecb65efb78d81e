"""One pretraining step agrees with the official DINOv2 implementation: features, targets, losses, gradients.

Needs the reference files, which are not part of the repository: shared/golden beside it.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from fmseg.networks.sources import sources
from fmseg.networks.sources.convert import our_name
from fmseg.records.plans import Architecture, Pretraining, Views
from fmseg.tasks.dino import DinoTask
from fmseg.tasks.dino_targets import sinkhorn_targets, softmax_targets

FOLDER = Path(__file__).parents[3] / "shared" / "golden"
NAMES = ("tied_sinkhorn", "separate_centering")
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the reference files are not here")


def close(got, want, rtol=1e-4):
    """Whether the arrays agree within 1e-4 of the largest value."""
    want = torch.as_tensor(want)
    got = got.detach().reshape(want.shape)
    return float((got - want).abs().max()) <= rtol * float(want.abs().max())


def recipe_of(data, shared, centering):
    keys = (
        "size",
        "local",
        "patch",
        "prototypes",
        "width",
        "depth",
        "heads",
        "registers",
        "batch",
        "locals",
        "channels",
    )
    config = dict(zip(keys, map(int, data["config"]), strict=True))
    architecture = Architecture.model_construct(
        name="golden",
        patch_size=config["patch"],
        width=config["width"],
        depth=config["depth"],
        num_heads=config["heads"],
        mlp_ratio=4.0,
        ffn="mlp",
        num_registers=config["registers"],
        layer_scale=1e-5,
        layer_norm_eps=1e-6,
        channels=config["channels"],
        image_size=(config["size"], config["size"]),
        position_interpolation="offset",
        position_antialias=False,
    )
    temperature = float(data["teacher_temp"])
    return Pretraining.model_construct(
        architecture=architecture,
        views=Views.model_construct(num_locals=config["locals"]),
        num_prototypes=config["prototypes"],
        head_hidden=32,
        head_bottleneck=16,
        shared_head=shared,
        trainable_gain=False,
        centering=centering,
        center_momentum=0.9,
        student_temperature=0.1,
        teacher_temperature=(temperature, temperature),
        temperature_warmup_iterations=1,
        dino_weight=1.0,
        ibot_weight=1.0,
        koleo_weight=0.1,
        drop_path=0.0,
        iterations=100,
        teacher_momentum=(0.992, 1.0),
    )


def load(network, data, module):
    prefix = f"weights/{module}."
    state = {key.removeprefix(prefix): torch.tensor(data[key]) for key in data.files if key.startswith(prefix)}
    network.load_state_dict({our_parameter(key): value for key, value in state.items()})


def our_parameter(name):
    """Our name of a parameter of DINOv2's."""
    if not name.startswith("backbone."):
        return name
    return "backbone." + our_name(sources["dinov2"], name.removeprefix("backbone."))


@pytest.fixture(scope="module", params=NAMES)
def step(request):
    """(reference arrays, task after the backward pass, loss, values)"""
    data = np.load(FOLDER / f"dinov2_step_{request.param}.npz")
    is_tied = request.param == "tied_sinkhorn"
    task = DinoTask.build(recipe_of(data, is_tied, "sinkhorn" if is_tied else "softmax"))
    load(task.model, data, "student")
    load(task.teacher, data, "teacher")
    if task.dino_centre is not None:
        task.dino_centre.value.copy_(torch.tensor(data["dino_center_before"][0]))
        task.ibot_centre.value.copy_(torch.tensor(data["ibot_center_before"][0, 0]))
    batch = {
        "globals": torch.tensor(data["global_crops"]),
        "locals": torch.tensor(data["local_crops"]),
        "masks": torch.tensor(data["masks"]),
    }
    loss, values = task.training_loss(batch, 0)
    loss.backward()
    return data, task, batch, loss, values


def test_losses_agree(step):
    data, _, _, loss, values = step
    assert close(loss, data["loss_total"])
    assert close(values["dino_local"], data["loss_dino_local"])
    assert close(values["dino_global"], data["loss_dino_global"])
    assert close(values["ibot"], data["loss_ibot"])
    assert close(0.1 * values["koleo"], data["loss_koleo"])


def test_all_gradients_agree(step):
    data, task, *_ = step
    compared = set()
    ours = dict(task.model.named_parameters())
    for key in data.files:
        if not key.startswith("grad/student."):
            continue
        name = our_parameter(key.removeprefix("grad/student."))
        assert close(ours[name].grad, data[key]), name
        compared.add(name)
    assert compared == {name for name, parameter in ours.items() if parameter.requires_grad}


def test_student_features_and_logits_agree(step):
    data, task, batch, *_ = step
    backbone, masks = task.model.backbone, batch["masks"]
    with torch.no_grad():
        tokens, local = backbone.forward_groups([batch["globals"], batch["locals"]], [masks, None])
        patches = tokens[:, backbone.num_prefix_tokens :]
        assert close(tokens[:, 0], data["student_cls_global"])
        assert close(patches, data["student_patch_global"])
        assert close(local[:, 0], data["student_cls_local"])
        assert close(task.model.dino_head.logits(tokens[:, 0]), data["student_cls_logits_global"])
        assert close(task.model.dino_head.logits(local[:, 0]), data["student_cls_logits_local"])
        assert close(task.model.patch_head.logits(patches[masks]), data["student_patch_logits"])


def test_teacher_logits_and_targets_agree(step):
    data, task, batch, *_ = step
    temperature = float(data["teacher_temp"])
    with torch.no_grad():
        tokens = task.teacher.backbone(batch["globals"])
        first, second = tokens[:, 0].chunk(2)
        cls = torch.cat([second, first])
        patches = tokens[:, task.teacher.backbone.num_prefix_tokens :][batch["masks"]]
        for name, head, rows in (("cls", task.teacher.dino_head, cls), ("patch", task.teacher.patch_head, patches)):
            assert close(head.logits(rows), data[f"teacher_{name}_logits"])
            if task.dino_centre is None:
                targets = sinkhorn_targets(head(rows), head.last_layer(), temperature)
            else:
                before = data["dino_center_before" if name == "cls" else "ibot_center_before"]
                centre = torch.tensor(before).flatten()
                targets = softmax_targets(head(rows), head.last_layer(), centre, temperature)
            assert close(targets(slice(None)), data[f"teacher_{name}_targets"])


def test_centres_move_as_theirs(step):
    data, task, *_ = step
    if task.dino_centre is None:
        pytest.skip("Sinkhorn has no centres")
    task.after_step(0)
    assert close(task.dino_centre.value, data["dino_center_after"])
    assert close(task.ibot_centre.value, data["ibot_center_after"])
