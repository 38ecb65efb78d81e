"""A store that lies in memory, and the plans that the samplers are built from."""

import numpy as np

from fmseg.records.plans import Architecture, Pretraining, Views
from fmseg.records.recipe import Augmentation, Recipe


class MemoryStore:
    """What samplers use of a store: cases of ``per_case`` images each."""

    def __init__(self, images, labels=None, per_case=1):
        self.images, self.labels = images, labels
        starts = range(0, len(images), per_case)
        self.cases = {f"case_{start:03d}": range(start, min(start + per_case, len(images))) for start in starts}

    def __len__(self):
        return len(self.images)

    def image(self, index):
        return self.images[index]

    def label(self, index):
        return None if self.labels is None else self.labels[index]


def made_store(num_images, size=(40, 56), channels=1, seed=0, per_case=1):
    """Images of random blocks with a label map of 0, 1 and 2."""
    rng = np.random.default_rng(seed)
    label = np.zeros((num_images, *size), np.uint8)
    label[:, size[0] // 4 : size[0] // 2, : size[1] // 2] = 1
    label[:, -2:, -3:] = 2
    blocks = rng.integers(10, 255, (num_images, channels, size[0] // 4, size[1] // 4), dtype=np.uint8)
    return MemoryStore(blocks.repeat(4, axis=2).repeat(4, axis=3), label, per_case)


PRETRAINING = Pretraining(
    architecture=Architecture(
        name="vit_tiny",
        patch_size=8,
        width=32,
        depth=2,
        num_heads=2,
        mlp_ratio=4.0,
        ffn="mlp",
        num_registers=0,
        layer_scale=1e-5,
        layer_norm_eps=1e-6,
        channels=1,
        image_size=(32, 48),
        position_interpolation="size",
        position_antialias=True,
    ),
    views=Views(
        global_size=(32, 48),
        local_size=(16, 16),
        num_locals=3,
        global_scale=(0.32, 1.0),
        local_scale=(0.05, 0.32),
        aspect=(0.75, 4 / 3),
        flip="horizontal",
        jitter_probability=0.8,
        brightness=0.4,
        contrast=0.4,
        blur_probability=(0.0, 0.9, 0.5),
        blur_sigma_px=(0.1, 2.0),
        solarize_probability=0.2,
        min_content=0.1,
    ),
    mean=(0.2,),
    std=(0.2,),
    num_prototypes=64,
    head_hidden=32,
    head_bottleneck=16,
    shared_head=True,
    trainable_gain=True,
    centering="sinkhorn",
    center_momentum=0.9,
    student_temperature=0.1,
    teacher_temperature=(0.04, 0.07),
    temperature_warmup_iterations=10,
    dino_weight=1.0,
    ibot_weight=1.0,
    koleo_weight=0.1,
    mask_probability=0.5,
    mask_ratio=(0.1, 0.5),
    drop_path=0.1,
    batch_size=8,
    accumulation=1,
    iterations=100,
    warmup_iterations=10,
    freeze_last_layer_iterations=1,
    learning_rate=1e-3,
    min_learning_rate=1e-6,
    weight_decay=(0.04, 0.4),
    layer_decay=0.9,
    patch_embed_factor=0.2,
    teacher_momentum=(0.992, 1.0),
    clip_norm=3.0,
    precision="float32",
    seed=0,
)

AUGMENTATION = Augmentation(
    warp_probability=0.5,
    rotation_deg=15.0,
    scale=(0.8, 1.25),
    shift=0.1,
    flip_horizontal=True,
    flip_vertical=False,
    intensity_probability=0.3,
    brightness=0.3,
    contrast=0.3,
    gamma=(0.7, 1.5),
    noise_std=0.05,
    speckle_std=0.1,
    blur_sigma_px=1.0,
)

RECIPE = Recipe(
    name="upernet",
    decoder="upernet",
    decoder_channels=32,
    freeze_backbone=False,
    input_size=(32, 48),
    batch_size=8,
    iterations=100,
    warmup_iterations=10,
    learning_rate=1e-3,
    layer_decay=0.9,
    weight_decay=0.01,
    drop_path=0.0,
    clip_norm=1.0,
    ema_decay=0.0,
    foreground_share=0.25,
    loss="dice_ce",
    augmentation=AUGMENTATION,
    validation_interval=50,
    validation_cases=4,
    precision="float32",
    seed=0,
)
STILL = AUGMENTATION.evolve(warp_probability=0.0, intensity_probability=0.0, flip_horizontal=False)
