"""One segmentation step of finetuning: the paper's UperNet in fmseg, in a plain assembly, and what is planned here.

The paper's is a ViT-S/16 on 224x224 pixels, batch 8, all decoder channels 384. The plain assembly below is put together
as the segmentation toolboxes do it: each tap is scaled at full width before it is narrowed. A step is the forward pass,
cross-entropy and Dice, the backward pass, clipping, AdamW. The steps take turns, so that a busy machine slows all of
them alike; times are medians, FLOPs are counted by torch, the peak is that of square matrix products.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --precision bfloat16 --repeats 5
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fmseg.learning.optim import adamw, clip_and_step, clip_groups, parameter_groups, set_step
from fmseg.networks.backbone import Backbone, tap_blocks
from fmseg.networks.decoders import decoders
from fmseg.networks.segmenter import Segmenter, segmenters
from fmseg.networks.vit import ViT
from fmseg.planning.augmentation import plan_augmentation
from fmseg.planning.finetuning import decoder_width
from fmseg.planning.hardware import detect_hardware
from fmseg.planning.ladder import RUNGS
from fmseg.planning.unet import BASE_FEATURES, stages_of, supervision_of
from fmseg.records.labels import LabelScheme
from fmseg.records.plans import Architecture
from fmseg.records.recipe import Recipe, UNetShape
from fmseg.sampling.order import Draw
from fmseg.sampling.patches import PatchDataset
from fmseg.tasks.segmentation import SegmentationTask

SIZE, PAPER_WIDTH = (224, 224), 384
SCHEME = LabelScheme(
    names=("a", "b", "c", "d"), values=((1,), (2,), (3,), (4,)), painted=(1, 2, 3, 4), has_regions=False, ignore=None
)
PEAK_SIDE, PEAK_PRODUCTS = 2048, 4
NUM_IMAGES = 32
WORKERS = 2

Step = Callable[[], None]


class PlainUperNet(nn.Module):
    """UperNet as it is usually put together: taps scaled at their own width, all channels alike, one SyncBN."""

    def __init__(self, channels: int, num_outputs: int) -> None:
        super().__init__()
        self.scalings = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(channels, channels, 2, stride=2),
                    nn.BatchNorm2d(channels),
                    nn.GELU(),
                    nn.ConvTranspose2d(channels, channels, 2, stride=2),
                ),
                nn.ConvTranspose2d(channels, channels, 2, stride=2),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        )
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(cells), nn.Conv2d(channels, channels, 1), nn.ReLU())
            for cells in (1, 2, 3, 6)
        )
        self.merge = nn.Sequential(nn.Conv2d(5 * channels, channels, 3, padding=1), nn.ReLU())
        self.laterals = nn.ModuleList(nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU()) for _ in range(3))
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()) for _ in range(3)
        )
        self.fuse = nn.Sequential(nn.Conv2d(4 * channels, channels, 3, padding=1), nn.ReLU())
        self.classify = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(channels, num_outputs, 1))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits (B, K, 4h, 4w) for four (B, D, h, w) maps."""
        levels = [scale(feature) for scale, feature in zip(self.scalings, features, strict=True)]
        pooled = [_like(pool(levels[3]), levels[3]) for pool in self.pools]
        tops = [lateral(level) for lateral, level in zip(self.laterals, levels, strict=False)]
        tops.append(self.merge(torch.cat([levels[3], *pooled], dim=1)))
        for index in (2, 1, 0):
            tops[index] = tops[index] + _like(tops[index + 1], tops[index])
        tops[:3] = [smooth(level) for smooth, level in zip(self.smooth, tops, strict=False)]
        return self.classify(self.fuse(torch.cat([_like(level, tops[0]) for level in tops], dim=1)))


def _like(maps: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(maps, size=other.shape[-2:], mode="bilinear", align_corners=False)


def architecture(name: str) -> Architecture:
    """Return a ViT of the ladder for grey images of 224x224 pixels, without registers."""
    rung = next(rung for rung in RUNGS if rung.name == name)
    return Architecture(
        name=name,
        patch_size=16,
        width=rung.width,
        depth=rung.depth,
        num_heads=rung.num_heads,
        mlp_ratio=4.0,
        ffn="mlp",
        num_registers=0,
        layer_scale=1.0,
        layer_norm_eps=1e-6,
        channels=1,
        image_size=SIZE,
        position_interpolation="offset",
        position_antialias=False,
    )


def segmenter(name: str, width: int, *, plain: bool = False) -> nn.Module:
    """Return a ViT with UperNet of this width, fmseg's or the plain one."""
    shape = architecture(name)
    backbone = Backbone(ViT(shape), tap_blocks(shape.depth))
    if plain:
        return Segmenter(backbone, PlainUperNet(shape.width, SCHEME.num_outputs))
    build = decoders["upernet"]
    return Segmenter(backbone, build(backbone.channels, backbone.strides, num_outputs=SCHEME.num_outputs, width=width))


def unet(base: int) -> nn.Module:
    """Return the U-Net of the recipe ``unet``."""
    kernels, strides = stages_of(SIZE, (1.0, 1.0))
    features = tuple(base * 2 ** min(stage, 4) for stage in range(len(strides)))
    shape = UNetShape(features=features, kernels=kernels, strides=strides, supervision=supervision_of(len(strides) - 1))
    return segmenters["unet"](Recipe.model_construct(unet=shape), architecture("vit_small"), SCHEME.num_outputs)


def training_step(network: nn.Module, device: str, precision: str, batch: int) -> tuple[Step, float]:
    """Return a step of ``fmseg train`` on made images, and its operations in GFLOP (2 for a multiplication)."""
    task = SegmentationTask(network, SCHEME, loss_name="ce_dice", ema_decay=0.99).to(device).train()
    optimizer = adamw(parameter_groups(task.model.named_parameters(), depth=12))
    groups, scaler = clip_groups(task.clip_modules(), optimizer), torch.amp.GradScaler(enabled=False)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, 1, *SIZE, generator=generator).to(device)
    label = torch.randint(SCHEME.num_outputs, (batch, *SIZE), generator=generator).to(device)
    set_step(optimizer, 1e-4, 0.01)

    def forward_backward() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss, _ = task.training_loss({"image": image, "label": label}, 0)
        loss.backward()

    def step() -> None:
        forward_backward()
        clip_and_step(optimizer, groups, 1.0, scaler)
        task.after_step(0)
        if device == "cuda":
            torch.cuda.synchronize()

    with FlopCounterMode(display=False) as counter:
        forward_backward()
    return step, counter.get_total_flops() / 1e9


def products(device: str, precision: str) -> tuple[Step, float]:
    """Return matrix products alone, the most that this machine can do, and their GFLOP."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    one, other = (torch.randn(PEAK_SIDE, PEAK_SIDE).to(device, dtype) for _ in range(2))

    def step() -> None:
        for _ in range(PEAK_PRODUCTS):
            torch.mm(one, other)
        if device == "cuda":
            torch.cuda.synchronize()

    return step, PEAK_PRODUCTS * 2 * PEAK_SIDE**3 / 1e9


class MadeStore:
    """Noise with label maps, as a store holds them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (NUM_IMAGES, 1, *SIZE), dtype=np.uint8)
        self.labels = rng.integers(0, SCHEME.num_outputs, (NUM_IMAGES, *SIZE)).astype(np.uint8)
        self.cases = {f"case_{index}": range(index, index + 1) for index in range(NUM_IMAGES)}

    def image(self, index: int) -> np.ndarray:
        """Return (1, h, w)."""
        return self.images[index]

    def label(self, index: int) -> np.ndarray:
        """Return (h, w)."""
        return self.labels[index]


def augmented_images_per_core_second() -> float:
    """Return how many training samples one core makes in a second of its own."""
    augmentation, _ = plan_augmentation("ultrasound", SCHEME)
    recipe = Recipe.model_construct(input_size=SIZE, batch_size=1, foreground_share=0.0, augmentation=augmentation)
    samples = PatchDataset(MadeStore(), range(NUM_IMAGES), recipe, mean=[0.2], std=[0.2], seed=0)  # type: ignore[arg-type]
    start = time.process_time()
    for index in range(NUM_IMAGES):
        samples.item(Draw(0, 0, 0, index))
    return NUM_IMAGES / (time.process_time() - start)


def measure(device: str, precision: str, repeats: int, batch: int) -> list[dict[str, object]]:
    """Return a row for each step: images a second, share of the peak."""
    planned = decoder_width(detect_hardware(), is_segmentation=True)[0]
    networks = {
        f"paper's UperNet, {PAPER_WIDTH}": segmenter("vit_small", PAPER_WIDTH),
        f"plain assembly, {PAPER_WIDTH}": segmenter("vit_small", PAPER_WIDTH, plain=True),
        f"planned decoder, {planned}": segmenter("vit_small", planned),
        f"unet, {BASE_FEATURES['cuda']}": unet(BASE_FEATURES["cuda"]),
        f"unet, {BASE_FEATURES['cpu']}": unet(BASE_FEATURES["cpu"]),
    }
    steps = {"products": products(device, precision)}
    steps |= {name: training_step(network, device, precision, batch) for name, network in networks.items()}
    clock: dict[str, list[float]] = {name: [] for name in steps}
    cores: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, (step, _) in steps.items():
            start = time.perf_counter(), time.process_time()
            step()
            if turn:  # the first one warms up
                clock[name].append(time.perf_counter() - start[0])
                cores[name].append(time.process_time() - start[1])
    # on a CPU the seconds of the cores: neighbours take the clock's
    seconds = {name: statistics.median((clock if device == "cuda" else cores)[name]) for name in steps}
    peak = steps["products"][1] / seconds["products"]
    plain = seconds[f"plain assembly, {PAPER_WIDTH}"]
    rows: list[dict[str, object]] = []
    for name, (_, gflop) in steps.items():
        speed = gflop / seconds[name]
        row = {"step": name, "GFLOP": gflop, "GFLOP/s": speed, "share_of_peak": speed / peak}
        if name != "products":
            row |= {"images_per_s": batch / seconds[name], "times_plain": plain / seconds[name]}
        rows.append(row | {"seconds": seconds[name], "seconds_on_the_clock": statistics.median(clock[name])})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rows = measure(arguments.device, arguments.precision, arguments.repeats, arguments.batch)
    made = WORKERS * augmented_images_per_core_second()
    fastest = max(float(str(row.get("images_per_s", 0))) for row in rows)
    if arguments.json:
        print(json.dumps({"steps": rows, "augmented_images_per_s": made, "fastest_step_images_per_s": fastest}))
        return
    threads = f"{torch.get_num_threads()} threads"
    print(f"{arguments.device}, {arguments.precision}, {threads}, batch {arguments.batch} of {SIZE}")
    for row in rows:
        shown = [f"{key} {value:.3g}" for key, value in row.items() if isinstance(value, float)]
        print(f"{row['step']:>22}: {', '.join(shown)}")
    verdict = "never the bottleneck" if made > fastest else "the bottleneck of the fastest step"
    print(f"augmentation: {made:.0f} images/s with {WORKERS} workers, the fastest step {fastest:.1f}: {verdict}")


if __name__ == "__main__":
    main()
