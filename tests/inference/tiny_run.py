"""Small trained runs on disk: discs in noise, and networks that find them without training."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from fmseg.networks.build import build_network
from fmseg.records.foundation import CARD, Foundation, write_seen
from fmseg.records.labels import ClassScheme, LabelScheme
from fmseg.records.plans import Architecture, Fold, Hardware, Plans, Preprocessing, Pretraining, Views
from fmseg.records.recipe import Augmentation, Recipe
from fmseg.records.run import Initialisation, Provenance, RunConfig, RunFolder

SCHEME = LabelScheme(names=("disc",), values=((1,),), painted=(1,), has_regions=False, ignore=None)
TWO = LabelScheme(names=("a", "b"), values=((1,), (2,)), painted=(1, 2), has_regions=False, ignore=None)
NESTED = LabelScheme(names=("whole", "core"), values=((1, 2), (2,)), painted=(1, 2), has_regions=True, ignore=3)
CLASSES = ClassScheme(names=("dark", "bright"), is_exclusive=True)

ARCHITECTURE = Architecture(
    name="tiny",
    patch_size=8,
    width=16,
    depth=1,
    num_heads=2,
    mlp_ratio=2.0,
    ffn="mlp",
    num_registers=0,
    layer_scale=None,
    layer_norm_eps=1e-6,
    channels=1,
    image_size=(32, 32),
    position_interpolation="size",
    position_antialias=True,
)
AUGMENTATION = Augmentation(
    warp_probability=0.0,
    rotation_deg=0.0,
    scale=(1.0, 1.0),
    shift=0.0,
    flip_horizontal=False,
    flip_vertical=False,
    intensity_probability=0.0,
    brightness=0.0,
    contrast=0.0,
    gamma=(1.0, 1.0),
    noise_std=0.0,
    speckle_std=0.0,
    blur_sigma_px=0.0,
)
RECIPE = Recipe(
    name="linear",
    decoder="linear",
    decoder_channels=8,
    freeze_backbone=False,
    input_size=(32, 32),
    batch_size=4,
    iterations=1,
    warmup_iterations=0,
    learning_rate=1e-3,
    layer_decay=1.0,
    weight_decay=0.0,
    drop_path=0.0,
    clip_norm=1.0,
    ema_decay=0.0,
    foreground_share=0.0,
    loss="dice_ce",
    augmentation=AUGMENTATION,
    validation_interval=1,
    validation_cases=4,
    precision="float32",
    seed=0,
)
PREPROCESSING = Preprocessing(
    size_mode="fit",
    image_size=(32, 32),
    spacing_mm=None,
    channels=1,
    intensity="eight_bit",
    window=(),
    mean=(0.4,),
    std=(0.2,),
    store_dtype="uint8",
)
VIEWS = Views(
    global_size=(32, 32),
    local_size=(16, 16),
    num_locals=2,
    global_scale=(0.5, 1.0),
    local_scale=(0.1, 0.5),
    aspect=(0.75, 1.33),
    flip="none",
    jitter_probability=0.0,
    brightness=0.0,
    contrast=0.0,
    blur_probability=(0.0, 0.0, 0.0),
    blur_sigma_px=(0.1, 1.0),
    solarize_probability=0.0,
    min_content=0.0,
)
PRETRAINING = Pretraining(
    architecture=ARCHITECTURE,
    views=VIEWS,
    mean=(0.4,),
    std=(0.2,),
    num_prototypes=8,
    head_hidden=8,
    head_bottleneck=4,
    shared_head=True,
    trainable_gain=False,
    centering="softmax",
    center_momentum=0.9,
    student_temperature=0.1,
    teacher_temperature=(0.04, 0.07),
    temperature_warmup_iterations=1,
    dino_weight=1.0,
    ibot_weight=1.0,
    koleo_weight=0.1,
    mask_probability=0.5,
    mask_ratio=(0.1, 0.5),
    drop_path=0.0,
    batch_size=4,
    accumulation=1,
    iterations=1,
    warmup_iterations=0,
    freeze_last_layer_iterations=0,
    learning_rate=1e-3,
    min_learning_rate=1e-6,
    weight_decay=(0.04, 0.4),
    layer_decay=1.0,
    patch_embed_factor=1.0,
    teacher_momentum=(0.99, 1.0),
    clip_norm=3.0,
    precision="float32",
    seed=0,
)
HARDWARE = Hardware(device="cpu", num_devices=1, memory_gb=8.0, num_cores=2, has_bfloat16=False, gflops=100.0)


def plans(scheme: LabelScheme = SCHEME, **changes) -> Plans:
    planned = Plans(
        name="plans",
        dataset="Dataset501_Discs",
        task="segmentation",
        modality="ultrasound",
        content_hash="0",
        labels=scheme,
        hardware=HARDWARE,
        preprocessing=PREPROCESSING,
        pretraining=PRETRAINING,
        finetuning=RECIPE,
        recipes=("linear",),
        mirror_axes=("horizontal",),
        because=(),
    )
    return planned.evolve(**changes)


def config(scheme: LabelScheme = SCHEME, fold: int = 0, cases: Fold | None = None, **changes) -> RunConfig:
    run = RunConfig(
        plans=plans(scheme),
        recipe=RECIPE,
        fold=fold,
        cases=cases or Fold(train=("x",), val=("y",)),
        init=Initialisation(name="scratch", sha256="", because="a test"),
        architecture=ARCHITECTURE,
        mean=(0.4,),
        std=(0.2,),
        plugins=(),
        provenance=Provenance(fmseg="0", commit="", packages={}, command=""),
    )
    return run.evolve(**changes)


def class_config(scheme: ClassScheme = CLASSES, **changes) -> RunConfig:
    """The config of a classification run."""
    planned = plans().evolve(task="classification", labels=scheme.model_dump())
    return config().evolve(
        plans=planned.model_dump(mode="json"), recipe=RECIPE.evolve(decoder="class_head").model_dump(), **changes
    )


def write_run(folder: Path, run: RunConfig, *, seed: int = 0) -> nn.Module:
    """Write a finished run of a random network."""
    torch.manual_seed(seed)
    model = build_network(run.recipe, run.architecture, run.plans.labels).eval()
    folder.mkdir(parents=True, exist_ok=True)
    run.save(folder / "run.json")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    RunFolder(folder).finish({})
    return model


def write_foundation(folder: Path, name: str, content_hashes: list[str]) -> Initialisation:
    """Write the card of a checkpoint, and what it has seen; return what a run records that starts from it."""
    folder.mkdir(parents=True)
    card = Foundation(
        name=name,
        modality="ultrasound",
        architecture=ARCHITECTURE,
        mean=(0.4,),
        std=(0.2,),
        recipe=None,
        datasets=(),
        num_images=len(content_hashes),
        iterations=1,
        samples_seen=4,
        metrics={},
        weights_sha256=f"weights of {name}",
        seen_count=write_seen(folder, content_hashes),
        licence="",
        provenance=Provenance(fmseg="0", commit="", packages={}, command=""),
    )
    card.save(folder / CARD)
    return Initialisation(name=name, sha256=card.weights_sha256, because="a test")


class Images:
    """What is needed of a store."""

    digest = "0"

    def __init__(self, images: list[np.ndarray]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        return self.images[index]


class Brightness(nn.Module):
    """Says class 1 where the pixel is bright: perfect on discs brighter than their surroundings."""

    def __init__(self, slope: float = 8.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, image):
        logit = self.slope * image[:, :1]
        return torch.cat([-logit, logit], dim=1)


def disc(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (h, w) uint8 with a bright disc and its label map."""
    y, x = np.mgrid[: size[0], : size[1]]
    radius = min(size) * rng.uniform(0.15, 0.3)
    centre = [side * rng.uniform(0.35, 0.65) for side in size]
    label = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2).astype(np.uint8)
    image = np.clip(60 + 120 * label + rng.normal(0, 5, size), 1, 255).astype(np.uint8)
    return image, label


def write_dataset(folder: Path, names: list[str], *, size: tuple[int, int] = (40, 52)) -> None:
    """Write a raw dataset of discs."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    declared = {"channel_names": {"0": "ultrasound"}, "labels": {"background": 0, "disc": 1}}
    (folder / "dataset.json").write_text(json.dumps(declared | {"numTraining": len(names), "file_ending": ".png"}))
    for index, name in enumerate(names):
        image, label = disc(np.random.default_rng(index), size)
        Image.fromarray(image).save(folder / "imagesTr" / f"{name}_0000.png")
        Image.fromarray(label).save(folder / "labelsTr" / f"{name}.png")
