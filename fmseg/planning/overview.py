"""The planned pretraining from 20 images to two million, from two cores to eight GPUs, as one table; the ladder too.

docs/explanation/planning.md holds both tables; a test compares them with what this file makes.
"""

import math
from dataclasses import replace

from fmseg.console import duration
from fmseg.planning.benefit import expected_benefit
from fmseg.planning.budget import predict_cost
from fmseg.planning.ladder import RUNGS
from fmseg.planning.preprocessing import COMPRESSION, fitted, side_for
from fmseg.planning.pretraining import CorpusFacts, plan_pretraining
from fmseg.planning.pretraining_rules import patch_size_for
from fmseg.records.plans import Hardware

NUM_IMAGES = (20, 500, 5_000, 100_000, 2_000_000)
TWO_CORES = Hardware(device="cpu", num_devices=1, memory_gb=24.0, num_cores=2, has_bfloat16=True, gflops=320.0)
ONE_GPU = Hardware(device="cuda", num_devices=1, memory_gb=80.0, num_cores=16, has_bfloat16=True, gflops=250_000.0)
EIGHT_GPUS = ONE_GPU.evolve(num_devices=8, num_cores=128)
MACHINES = (
    ("2 cores, 30 min", TWO_CORES, 1800.0),
    ("2 cores, 2 h", TWO_CORES, 7200.0),
    ("2 cores, 1 day", TWO_CORES, 86400.0),
    ("1 GPU, 1 day", ONE_GPU, 86400.0),
    ("8 GPUs, 1 day", EIGHT_GPUS, 86400.0),
)
COLUMNS = (
    "images",
    "machine",
    "network",
    "views",
    "batch",
    "steps",
    "samples",
    "passes",
    "time",
    "prototypes",
    "LayerScale",
    "learning rate",
    "gain in Dice, in F1",
)


def overview_rows() -> list[tuple[str, ...]]:
    """Return one row per number of images and machine."""
    return [
        _row(num_images, machine, hardware, budget_s)
        for num_images in NUM_IMAGES
        for machine, hardware, budget_s in MACHINES
    ]


def overview_table() -> str:
    """Return the rows as a Markdown table."""
    return _markdown([COLUMNS, ("--:", ":--", ":--", ":--", *["--:"] * 9), *overview_rows()])


def ladder_table() -> str:
    """Return the rungs of the ladder as a Markdown table."""
    lines = [("network", "width", "depth", "registers", "views, px", "for runs from, samples"), ("---", *["--:"] * 5)]
    for rung in RUNGS:
        views = f"{rung.global_px}, {rung.local_px}"
        lines.append((rung.name, *map(str, (rung.width, rung.depth, rung.num_registers)), views, f"{rung.samples:,}"))
    return _markdown(lines)


def _prepared_size(num_images: int, size: tuple[int, int], hardware: Hardware) -> tuple[int, int]:
    """Return what 8-bit images of one channel are prepared to."""
    side, _ = side_for(num_images, COMPRESSION, hardware)
    return fitted(size, side, patch_size_for(size), "")[0]


def _markdown(lines: list[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(num_images: int, machine: str, hardware: Hardware, budget_s: float) -> tuple[str, ...]:
    # grey ultrasound of the size of a screen, the mean and spread of UltraDINO's images
    size = (540, 800)
    facts = CorpusFacts(num_images, 1, (0.1843,), (0.2188,), "ultrasound", size)
    facts = replace(facts, prepared_size=_prepared_size(num_images, size, hardware))
    recipe, _ = plan_pretraining(facts, hardware, budget_s=budget_s)
    cost, views, vit = predict_cost(recipe, hardware), recipe.views, recipe.architecture
    benefit = expected_benefit(cost.samples_seen)
    return (
        f"{num_images:,}",
        machine,
        f"{vit.name}/{vit.patch_size}",
        f"2x{views.global_size[0]} + {views.num_locals}x{views.local_size[0]}"
        + (
            f", then 2x{recipe.fine.global_size[0]} + {views.num_locals}x{recipe.fine.local_size[0]}"
            if recipe.fine
            else ""
        ),
        str(recipe.batch_size),
        f"{recipe.iterations:,}",
        f"{cost.samples_seen:,}",
        f"{cost.samples_seen / num_images:,.1f}",
        duration(60 * math.ceil(cost.seconds / 60)),
        str(recipe.num_prototypes),
        f"{vit.layer_scale:g}",
        f"{recipe.learning_rate:.2g}",
        f"{benefit.dice_gain:.2f}, {benefit.probe_gain:.2f}",
    )
