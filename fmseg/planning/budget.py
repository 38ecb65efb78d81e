"""What a step of DINOv2 costs: operations, time and memory, from the recipe and a rule of thumb for the machine.

The counts hold for this project's step: the student sees all views, the teacher the global ones without a gradient;
a backward pass costs two forward passes; heads see class tokens and masked patches only.
"""

from dataclasses import dataclass

from fmseg.planning.fine_views import fine_recipe
from fmseg.records.plans import Architecture, Hardware, Pretraining, Views

#: share of a device's sustained speed that the whole step reaches, losses and optimiser included: 225-258 of 320
#: GFLOP/s (bfloat16) with ViT-Ti and ViT-S on two cores
STEP_SHARE = 0.75
#: on a GPU narrow layers leave units idle: width / (width + this), relative to a ViT-L
IDLE_WIDTH = 600
#: views of 2 x 224 + 8 x 96 pixels that one core makes in a second
LOADER_IMAGES_PER_CORE = 250.0
LOADER_PIXELS = 2 * 224**2 + 8 * 96**2
#: share of the ideal speed that several devices keep
PARALLEL_SHARE = 0.9
#: imports, store, first step
START_UP_S = 20.0
#: student, gradient, two moments of AdamW, teacher; float32
BYTES_PER_PARAMETER = 20
#: checkpoints that are kept, copies of the weights in one (student, teacher, two moments), files of weights alone
KEPT_STATES, STATE_COPIES, WEIGHT_FILES = 2, 4, 3
#: per token, layer and channel, in half precision; float32 takes twice as much. 23 are kept for the backward pass of a
#: ViT-S/16; the others are for what lives for a while
BYTES_PER_ACTIVATION = 30
#: of them, with checkpointing: the layer's input, float32
BYTES_PER_INPUT = 4
#: of a process without any network, where it lies in the memory of the device: its libraries. With it, a step of 8
#: images of a ViT-S/16 on a CPU is reckoned with 2.30 GB (float32: 2.90); it took 2.33 (3.02), LOG.md, 2026-11-22
PROCESS_GB = {"cpu": 0.55, "mps": 0.55, "cuda": 0.0}
#: a forward pass once more, in units of one
CHECKPOINTING_COST = 1.0
#: elements of the logits that exist at once, of student and teacher, in half precision or float32
LOGITS_AT_ONCE = {"cpu": 2**24, "cuda": 2**27, "mps": 2**24}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a pretraining takes on a machine."""

    gflop_per_image: float
    images_per_s: float
    step_s: float
    seconds: float
    memory_gb: float
    #: on the disk at the end: two states to go on from, and the weights
    disk_gb: float
    samples_seen: int
    #: whether making the views, not the network, sets the pace
    waits_for_views: bool


def predict_cost(recipe: Pretraining, hardware: Hardware) -> Cost:
    """Return time and memory of a whole pretraining, its last phase too; memory is that of one device."""
    gflop = step_gflop(recipe)
    network = network_images_per_s(recipe, hardware)
    loader = loader_images_per_s(recipe.views, hardware)
    images_per_s = min(network, loader)
    samples = recipe.batch_size * recipe.iterations
    finer = fine_recipe(recipe)
    end = predict_cost(finer, hardware) if finer is not None else None
    memory = memory_gb(recipe, recipe.batch_size // (recipe.accumulation * hardware.num_devices), hardware)
    return Cost(
        gflop_per_image=gflop,
        images_per_s=images_per_s,
        step_s=recipe.batch_size / images_per_s,
        seconds=START_UP_S + samples / images_per_s + (end.seconds if end else 0),
        memory_gb=max(memory, end.memory_gb if end else 0),
        disk_gb=disk_gb(recipe) + (end.disk_gb if end else 0),
        samples_seen=samples + (end.samples_seen if end else 0),
        waits_for_views=loader < network,
    )


def network_images_per_s(recipe: Pretraining, hardware: Hardware) -> float:
    """Return how many images all devices together take through a step in a second."""
    speed = hardware.gflops * hardware.num_devices * STEP_SHARE
    if hardware.device != "cpu":
        width = recipe.architecture.width
        speed *= min(1.0, width / (width + IDLE_WIDTH) * (1024 + IDLE_WIDTH) / 1024)
    if hardware.num_devices > 1:
        speed *= PARALLEL_SHARE
    return speed / step_gflop(recipe)


def loader_images_per_s(views: Views, hardware: Hardware) -> float:
    """Return how many images' views the cores make in a second."""
    pixels = 2 * area(views.global_size) + views.num_locals * area(views.local_size)
    return LOADER_IMAGES_PER_CORE * hardware.num_cores * LOADER_PIXELS / pixels


def step_gflop(recipe: Pretraining) -> float:
    """Return the operations of one step per image, in units of 10^9."""
    views, vit = recipe.views, recipe.architecture
    teacher = 2 * forward_flop(vit, views.global_size)
    student = teacher + views.num_locals * forward_flop(vit, views.local_size)
    student_tokens, teacher_tokens = head_tokens(recipe)
    hidden, bottleneck = recipe.head_hidden, recipe.head_bottleneck
    head = 2 * (vit.width * hidden + hidden**2 + hidden * bottleneck + bottleneck * recipe.num_prototypes)
    passes = 3 + CHECKPOINTING_COST * recipe.checkpointing
    return (passes * student + teacher + head * (3 * student_tokens + teacher_tokens)) / 1e9


def forward_flop(vit: Architecture, size: tuple[int, int]) -> float:
    """Return the operations of a forward pass through a ViT for one image of ``size`` (height, width)."""
    tokens = num_patches(vit, size) + 1 + vit.num_registers
    per_token = 2 * (4 + 2 * vit.mlp_ratio) * vit.width**2 + 4 * tokens * vit.width
    return tokens * vit.depth * per_token


def head_tokens(recipe: Pretraining) -> tuple[float, float]:
    """Return how many tokens of an image meet the student's and the teacher's head, on average."""
    patches = num_patches(recipe.architecture, recipe.views.global_size)
    masked = 2 * patches * recipe.mask_probability * sum(recipe.mask_ratio) / 2
    return 2 + recipe.views.num_locals + masked, 2 + masked


def num_parameters(vit: Architecture) -> int:
    """Return the weights of a ViT, in its large parts."""
    patch = vit.patch_size**2 * vit.channels * vit.width
    positions = num_patches(vit, vit.image_size) * vit.width
    return round((4 + 2 * vit.mlp_ratio) * vit.width**2 * vit.depth) + patch + positions


def memory_gb(recipe: Pretraining, images_per_step: int, hardware: Hardware) -> float:
    """Return the memory of one device that takes ``images_per_step`` images at a time."""
    vit, views = recipe.architecture, recipe.views
    parameters = num_parameters(vit) + head_parameters(recipe)
    tokens = 2 * num_patches(vit, views.global_size) + views.num_locals * num_patches(vit, views.local_size)
    tokens += (2 + views.num_locals) * (1 + vit.num_registers)
    tokens *= images_per_step
    width = 4 if recipe.precision == "float32" else 2
    layer = tokens * vit.width * BYTES_PER_ACTIVATION * width / 2
    # stochastic depth leaves images out of the branches; with checkpointing one layer at a time is whole
    kept = BYTES_PER_INPUT * tokens * vit.width * vit.depth + layer
    activations = kept if recipe.checkpointing else layer * vit.depth * (1 - recipe.drop_path)
    rows = images_per_step * sum(head_tokens(recipe))
    logits = 2 * width * min(rows * recipe.num_prototypes, LOGITS_AT_ONCE[hardware.device])
    # Sinkhorn's targets of all rows, float32
    logits += 4 * rows * recipe.num_prototypes * (recipe.centering == "sinkhorn")
    if recipe.sharding == "fsdp":
        parameters = round(parameters / hardware.num_devices)
    return PROCESS_GB[hardware.device] + (parameters * BYTES_PER_PARAMETER + activations + logits) / 1e9


def disk_gb(recipe: Pretraining) -> float:
    """Return what a run leaves on the disk: two checkpoints of its whole state, and three files of weights."""
    states = KEPT_STATES * STATE_COPIES * (num_parameters(recipe.architecture) + head_parameters(recipe))
    return (states + WEIGHT_FILES * num_parameters(recipe.architecture)) * 4 / 1e9


def head_parameters(recipe: Pretraining) -> int:
    """Return the weights of one head and its prototypes."""
    width, hidden, bottleneck = recipe.architecture.width, recipe.head_hidden, recipe.head_bottleneck
    return hidden * (width + hidden + bottleneck) + bottleneck * recipe.num_prototypes


def num_patches(vit: Architecture, size: tuple[int, int]) -> int:
    """Return the patches of an image of ``size``; an incomplete patch counts."""
    return -(-size[0] // vit.patch_size) * -(-size[1] // vit.patch_size)


def area(size: tuple[int, int]) -> int:
    """Return the pixels of an image of ``size``."""
    return size[0] * size[1]
