"""One DINOv2 step, whole: fmseg's beside a plain one and, where its source is at hand, the official one.

The step is a forward pass of teacher and student, all losses, the backward pass, clipping, AdamW and the teacher's
average. All steps see the same made images. Each runs in a process of its own, which makes peak memory its own, and
the processes take turns, one step each, so that a busy machine slows all of them alike. Times are medians. Where the
machine is not idle, the seconds on the cores say more than those on the clock.

    python benchmarks/pretrain_step.py                             # ViT-S/16, 2x224 + 8x96, batch 8, 65536 prototypes
    python benchmarks/pretrain_step.py --official DINOV2_SOURCE    # the folder that holds the package dinov2
"""

import argparse
import json
import multiprocessing as mp
import re
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fmseg.imaging.masking import sample_masks
from fmseg.learning.optim import clip_and_step, clip_groups
from fmseg.learning.pretraining import pretraining_optimizer, set_pretraining_step
from fmseg.planning.ladder import RUNGS
from fmseg.planning.pretraining import CorpusFacts, plan_pretraining
from fmseg.records.plans import Hardware, Precision, Pretraining
from fmseg.tasks.dino import DinoTask

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.04
#: side of the square matrices whose products give the machine's peak
PEAK_SIDE = 2048

Step = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all steps have in common."""

    batch: int
    prototypes: int
    channels: int
    drop_path: float
    centering: str
    device: str
    precision: Precision
    checkpointing: bool
    official: Path | None

    def recipe(self) -> Pretraining:
        """Return the recipe of a long run, for a ViT-S/16 without registers, which early sources do not have."""
        mean, std = (0.2,) * self.channels, (0.2,) * self.channels
        facts = CorpusFacts(10**7, self.channels, mean, std, "ultrasound", (600, 800))
        machine = Hardware(
            device="cuda", num_devices=1, memory_gb=80, num_cores=16, has_bfloat16=True, gflops=250_000.0
        )
        recipe, _ = plan_pretraining(facts, machine, budget_s=1e7)
        rung = next(rung for rung in reversed(RUNGS) if rung.name == "vit_small")
        shape = {"name": rung.name, "width": rung.width, "depth": rung.depth, "num_heads": rung.num_heads}
        return recipe.evolve(
            architecture=recipe.architecture.evolve(**shape, num_registers=0),
            num_prototypes=self.prototypes,
            drop_path=self.drop_path,
            centering=self.centering,
            batch_size=self.batch,
            accumulation=1,
            precision=self.precision,
            checkpointing=self.checkpointing,
        )

    def autocast(self) -> torch.autocast:
        """Return the context of the forward pass."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16")


def make_batch(recipe: Pretraining, device: str) -> dict[str, Tensor]:
    """Return noise as views, and masks as they are drawn in training."""
    views, rng = recipe.views, np.random.default_rng(0)
    images, channels = recipe.batch_size, recipe.architecture.channels
    grid = tuple(side // recipe.architecture.patch_size for side in views.global_size)
    masks = sample_masks(rng, 2 * images, grid, recipe.mask_probability, recipe.mask_ratio)
    sizes = {"globals": (2 * images, views.global_size), "locals": (views.num_locals * images, views.local_size)}
    batch = {
        name: torch.from_numpy(rng.standard_normal((count, channels, *size), dtype=np.float32))
        for name, (count, size) in sizes.items()
    }
    return {name: tensor.to(device) for name, tensor in (batch | {"masks": torch.from_numpy(masks)}).items()}


def our_step(setting: Setting) -> Step:
    """Return fmseg's step: the task, optimizer, clipping and averaging that ``fmseg pretrain`` runs."""
    recipe = setting.recipe()
    task = DinoTask.build(recipe).to(setting.device)
    optimizer = pretraining_optimizer(task.model, recipe)
    groups, scaler = clip_groups(task.clip_modules(), optimizer), torch.amp.GradScaler(enabled=False)
    batch = make_batch(recipe, setting.device)

    def step(number: int) -> None:
        set_pretraining_step(optimizer, recipe, number)
        optimizer.zero_grad(set_to_none=True)
        with setting.autocast():
            loss, _ = task.training_loss(batch, number)
        loss.backward()
        clip_and_step(optimizer, groups, recipe.clip_norm, scaler)
        task.after_step(number)

    return step


def plain_step(setting: Setting) -> Step:
    """Return the same step written down plainly: a forward pass for each size of crop, lists, all logits at once."""
    from plain_dinov2 import PlainDinov2

    recipe = setting.recipe()
    model = PlainDinov2(recipe).to(setting.device)
    batch = make_batch(recipe, setting.device)
    trained = [parameter for parameter in model.student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, foreach=True)

    def step(number: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        with setting.autocast():
            loss = model.loss(batch, recipe.teacher_temperature[1])
        loss.backward()
        for module in model.student.children():
            torch.nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_norm)
        optimizer.step()
        model.move_teacher(recipe.teacher_momentum[0])

    return step


def official_step(setting: Setting) -> Step:
    """Return the official implementation's step."""
    from official_dinov2 import build_official

    assert setting.official is not None
    recipe = setting.recipe()
    model = build_official(setting.official, recipe).to(setting.device)
    batch = make_batch(recipe, setting.device)
    masks = batch["masks"]
    weights = (1 / masks.sum(-1).clamp(min=1.0))[:, None].expand_as(masks)[masks]
    indices = masks.flatten().nonzero().flatten()
    images = {
        "collated_global_crops": batch["globals"],
        "collated_local_crops": batch["locals"],
        "collated_masks": masks,
        "mask_indices_list": indices,
        "n_masked_patches": torch.full((1,), len(indices)),
        "upperbound": len(indices),
        "masks_weight": weights,
    }
    optimizer = torch.optim.AdamW(model.get_params_groups(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def step(number: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        with setting.autocast():
            model.forward_backward(images, teacher_temp=recipe.teacher_temperature[1])
        for module in model.student.values():
            torch.nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_norm)
        optimizer.step()
        model.update_teacher(recipe.teacher_momentum[0])

    return step


def products(setting: Setting) -> Step:
    """Return matrix products alone, the most that this machine can do."""
    dtype = torch.bfloat16 if setting.precision == "bfloat16" else torch.float32
    one, other = (torch.randn(PEAK_SIDE, PEAK_SIDE).to(setting.device, dtype) for _ in range(2))

    def step(number: int) -> None:
        for _ in range(8):
            torch.mm(one, other)

    return step


STEPS = {"fmseg": our_step, "plain": plain_step, "official": official_step, "products": products}
PRODUCTS_GFLOP = 8 * 2 * PEAK_SIDE**3 / 1e9


def serve(pipe: Connection, name: str, setting: Setting) -> None:
    """Do a step whenever asked to and answer with its seconds, on the clock and on the cores; at last with its GB."""
    torch.manual_seed(0)
    step, number = STEPS[name](setting), 0
    while pipe.recv():
        if setting.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter(), time.process_time()
        step(number)
        if setting.device == "cuda":
            torch.cuda.synchronize()
        pipe.send((time.perf_counter() - start[0], time.process_time() - start[1]))
        number += 1
    pipe.send(torch.cuda.max_memory_allocated() / 1e9 if setting.device == "cuda" else peak_memory_gb())


def peak_memory_gb() -> float:
    """Return the most memory that this process ever held, in GB."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s*(\d+)", status.read_text())[0]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # bytes where there is no /proc


def step_gflop(setting: Setting) -> float:
    """Return the operations of one step, counted on fmseg's in float32."""
    from torch.utils.flop_counter import FlopCounterMode

    step = our_step(Setting(**asdict(setting) | {"precision": "float32"}))
    with FlopCounterMode(display=False) as counter:
        step(0)
    return float(counter.get_total_flops() / 1e9)


def measure(setting: Setting, names: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Return images a second, seconds and peak memory of each kind of step."""
    context = mp.get_context("spawn")
    pipes, processes = {}, []
    for name in names:
        pipes[name], other = context.Pipe()
        processes.append(context.Process(target=serve, args=(other, name, setting), daemon=True))
        processes[-1].start()
        other.close()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name, pipe in pipes.items():
            pipe.send(True)
            took = pipe.recv()
            if number:  # the first step builds caches
                seconds[name].append(took)
    found = {}
    for name, pipe in pipes.items():
        pipe.send(False)
        median, core_median = (statistics.median(column) for column in zip(*seconds[name], strict=True))
        found[name] = {
            "seconds": median,
            "core_seconds": core_median,
            "images_per_s": setting.batch / median,
            "peak_gb": pipe.recv(),
        }
    for process in processes:
        process.join()
    return found


def report(found: dict[str, dict[str, float]], gflop: float, precision: str) -> dict[str, object]:
    """Add each step's share of the machine's peak, and fmseg's ratio to it."""
    peak = PRODUCTS_GFLOP / found.pop("products")["seconds"]
    ours = found["fmseg"]
    for values in found.values():
        values["share_of_peak"] = gflop / values["seconds"] / peak
        values["fmseg_is_faster_by"] = values["seconds"] / ours["seconds"]
        values["fmseg_takes_core_time"] = ours["core_seconds"] / values["core_seconds"]
        values["fmseg_takes_memory"] = ours["peak_gb"] / values["peak_gb"]
    return {"precision": precision, "peak_gflops": peak, "gflop_per_step": gflop, "steps": found}


def show(table: dict[str, object]) -> None:
    """Print one precision's table."""
    print(f"{table['precision']}: peak {table['peak_gflops']:.0f} GFLOP/s, a step {table['gflop_per_step']:.0f} GFLOP")
    titles = ("images/s", "s", "core s", "of peak", "GB", "fmseg is", "core s", "memory")
    print(" " * 10 + "".join(title.rjust(10) for title in titles))
    for name, values in table["steps"].items():  # type: ignore[attr-defined]
        columns = (
            f"{values['images_per_s']:.2f}",
            f"{values['seconds']:.2f}",
            f"{values['core_seconds']:.2f}",
            f"{values['share_of_peak']:.0%}",
            f"{values['peak_gb']:.2f}",
            f"{values['fmseg_is_faster_by']:.2f}x",
            f"{values['fmseg_takes_core_time']:.2f}x",
            f"{values['fmseg_takes_memory']:.2f}x",
        )
        print(name.ljust(10) + "".join(column.rjust(10) for column in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, metavar="DIR", help="folder that holds the package dinov2")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prototypes", type=int, default=65536)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--drop-path", type=float, default=0.3)
    parser.add_argument("--centering", choices=("softmax", "sinkhorn"), default="softmax")
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=PRECISIONS)
    parser.add_argument("--checkpointing", action="store_true", help="fmseg computes layers anew: less memory, slower")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    names = ["fmseg", "plain", *(["official"] if options.official else []), "products"]
    tables = []
    for precision in options.precision:
        setting = Setting(
            batch=options.batch,
            prototypes=options.prototypes,
            channels=options.channels,
            drop_path=options.drop_path,
            centering=options.centering,
            device="cuda" if torch.cuda.is_available() else "cpu",
            precision=precision,
            checkpointing=options.checkpointing,
            official=options.official,
        )
        found = measure(setting, names, options.rounds)
        tables.append(report(found, step_gflop(setting), precision))
        if not options.json:
            show(tables[-1])
    if options.json:
        threads = torch.get_num_threads()
        print(json.dumps({"batch": options.batch, "threads": threads, "rounds": options.rounds, "tables": tables}))


if __name__ == "__main__":
    main()
