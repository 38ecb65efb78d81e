"""A tiny task that learns in milliseconds; run as a script, it is one rank of a run."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from fmseg.errors import Interrupted
from fmseg.learning.loop import FitOptions, Hook, fit
from fmseg.learning.optim import adamw, parameter_groups, set_step, warmup_cosine
from fmseg.learning.runtime import Runtime
from fmseg.records.run import RunFolder

BATCH = 8


class ToyTask(nn.Module):
    """Regression with dropout, a frozen layer, an averaged copy and a buffer that the forward pass moves."""

    def __init__(self, dropout: float = 0.5, most_images: int = BATCH) -> None:
        super().__init__()
        self.most_images = most_images
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(dropout), nn.GELU(), nn.Linear(16, 2))
        self.unused = nn.Parameter(torch.ones(3))
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.average = nn.Linear(16, 2).requires_grad_(False)
        self.register_buffer("center", torch.zeros(2))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def training_loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        output = self.model(self.frozen(batch["image"]))
        self.center.mul_(0.9).add_(0.1 * output.detach().float().mean())
        self.calls += 1
        if len(output) > self.most_images:
            raise torch.OutOfMemoryError("the toy's memory is full")
        loss = (output.float() - batch["target"]).square().mean()
        return loss, {"size": output.detach().abs().mean()}

    def after_step(self, step: int) -> None:
        with torch.no_grad():
            self.average.weight.lerp_(self.model[3].weight, 0.1)

    def clip_modules(self) -> list[nn.Module]:
        return [self.model[0], self.model[3]]


def toy_batches(start: int, *, rank: int = 0, world: int = 1, parts: int = 1) -> Iterator[dict[str, Tensor]]:
    """Yield the rank's part of each step's batch, in ``parts`` micro-batches."""
    step = start
    while True:
        generator = torch.Generator().manual_seed(step)
        image = torch.randn(BATCH, 6, generator=generator)
        target = torch.stack([image.sum(1), image[:, 0]], 1)
        for image_part, target_part in zip(image.chunk(parts), target.chunk(parts), strict=True):
            yield {"image": image_part.chunk(world)[rank], "target": target_part.chunk(world)[rank]}
        step += 1


def toy_fit(
    folder: Path,
    iterations: int = 10,
    *,
    dropout: float = 0.5,
    accumulation: int = 1,
    log_every: int = 4,
    checkpoint_every: int | None = 3,
    checkpoint_minutes: float = 10.0,
    runtime: Runtime | None = None,
    before_step: Callable[[int], None] = lambda step: None,
    change: Callable[[int, dict[str, Tensor]], dict[str, Tensor]] = lambda step, batch: batch,
    peak: float = 1e-2,
    hooks: tuple[Hook, ...] = (),
    most_images: int = BATCH,
    should_end: Callable[[], bool] = lambda: False,
) -> ToyTask:
    """Train and return the task; ``before_step`` is called before each step's data are made."""
    runtime = runtime or Runtime(torch.device("cpu"))
    task = ToyTask(dropout, most_images)
    optimizer = adamw(parameter_groups(task.named_parameters(), depth=0))

    def schedule(step: int) -> dict[str, float]:
        lr = warmup_cosine(step, total=iterations, warmup=3, start=0.0, peak=peak, end=1e-4)
        set_step(optimizer, lr, 0.1)
        return {"lr": lr}

    def batches(start: int) -> Iterator[dict[str, Tensor]]:
        found = toy_batches(start, rank=runtime.rank, world=runtime.world, parts=accumulation)
        for index, batch in enumerate(found):
            before_step(start + index // accumulation)
            yield change(start + index // accumulation, batch)

    options = FitOptions(
        iterations=iterations,
        batch_size=BATCH,
        accumulation=accumulation,
        clip_norm=1.0,
        seed=7,
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        checkpoint_minutes=checkpoint_minutes,
        should_end=should_end,
    )
    fit(task, batches, optimizer, schedule, RunFolder(folder), runtime, options, hooks)
    return task


def die(at: int, number: int) -> Callable[[int], None]:
    """Return a ``before_step`` that sends this process a signal once."""

    def send(step: int) -> None:
        if step == at:
            os.kill(os.getpid(), number)

    return send


def main() -> None:
    """Run ``toy_run.py FOLDER SIGNAL STEP [IMAGES]``: the last rank sends itself a signal; if that leaves it, go on.

    IMAGES: at most so many fit into the memory of the last rank.
    """
    folder, name, step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    runtime = Runtime.detect("float32")
    world, is_last = runtime.world, runtime.rank == runtime.world - 1
    before = die(step, signal.Signals[name]) if is_last else lambda step: None
    dropout = 0.5 if world == 1 else 0.0
    most_images = int(sys.argv[4]) if is_last and len(sys.argv) > 4 else BATCH
    try:
        toy_fit(
            folder,
            dropout=dropout,
            accumulation=world,
            runtime=runtime,
            before_step=before,
            most_images=most_images,
        )
    except Interrupted as error:
        names = sorted(path.stem for path in (folder / "checkpoints").glob("*.json"))
        (folder / f"stopped_{runtime.rank}").write_text(f"{error.exit_code} {names[-1]}")
        task = toy_fit(folder, dropout=dropout, accumulation=world, runtime=runtime, most_images=most_images)
        torch.save(task.state_dict(), folder / f"task_{runtime.rank}.pt")
    runtime.close()


if __name__ == "__main__":
    main()
