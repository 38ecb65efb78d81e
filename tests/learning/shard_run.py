"""One rank of a tiny pretraining, its parameters whole or shared out: ``shard_run.py SHARDING FOLDER ITERATIONS``.

Behind them: ``compiled`` layers, ``looks`` at the teacher after each step, ``little`` memory; ``eight`` images a step
instead of four, of which rank 1 holds two at a time only, being ``full`` in the ``forward`` or ``backward`` pass, or
``late``, from the third step on.
"""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
from test_dino import make_batch, make_task

from fmseg.learning.loop import FitOptions, Hook, fit
from fmseg.learning.parallel import gathered, shard
from fmseg.learning.pretraining import pretraining_optimizer, set_pretraining_step
from fmseg.learning.runtime import Runtime
from fmseg.records.run import RunFolder
from fmseg.tasks.dino import DinoTask

IMAGES = 8 if "eight" in sys.argv else 4
FIRST_FULL = 2 if "late" in sys.argv else 0
#: of two images each
NUM_PARTS = IMAGES // 2


def no_memory(batch: dict[str, Tensor], step: int) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def run_out(task: DinoTask, moment: str) -> None:
    """Let a batch of more than two images break off in the middle of a pass, as on a device that is full."""
    loss, images = task.training_loss, []

    def training_loss(batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        images.append(len(batch["globals"]) // 2 if step >= FIRST_FULL else 0)
        return loss(batch, step)

    def check(*_: object) -> None:
        if images[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    task.training_loss = training_loss
    first, second = task.model.backbone.blocks[:2]
    if moment == "forward":
        second.register_forward_pre_hook(check)
    else:
        first.register_forward_hook(lambda _block, _inputs, output: output.register_hook(check) and None)


def main() -> None:
    sharding, folder, iterations = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    runtime = Runtime.detect("float32")
    # KoLeo compares the images of a part, and parts are the ranks'
    task = make_task(koleo_weight=0.0)
    if "compiled" in sys.argv:
        task.compile_blocks("aot_eager")
    if "little" in sys.argv:
        task.training_loss = no_memory
    if "full" in sys.argv and runtime.rank == 1:
        run_out(task, sys.argv[-1])
    if sharding == "fsdp":
        shard(task, runtime)
    optimizer = pretraining_optimizer(task.model, task.recipe)

    def batches(step: int) -> Iterator[dict[str, Tensor]]:
        while True:
            parts = task.split(make_batch(IMAGES, seed=step), NUM_PARTS if runtime.world == 1 else 2)
            yield from parts if runtime.world == 1 else [parts[runtime.rank]]
            step += 1

    options = FitOptions(
        iterations=iterations,
        batch_size=IMAGES,
        accumulation=NUM_PARTS if runtime.world == 1 else 1,
        clip_norm=0.05,
        seed=0,
        log_every=1,
        checkpoint_every=2,
        split=task.split,
        forget_step=task.forget_step,
    )

    def look(step: int) -> dict[str, float]:
        # as the watcher does: all ranks gather the teacher, one of them looks at it
        teacher = gathered(task, make_task).teacher_backbone.eval()
        with torch.no_grad():
            return {"seen": float(teacher(torch.ones(1, 1, 24, 40)).sum())} if runtime.is_main else {}

    schedule = partial(set_pretraining_step, optimizer, task.recipe)
    hooks = [Hook(1, look)] if "looks" in sys.argv else []
    fit(task, batches, optimizer, schedule, RunFolder(folder), runtime, options, hooks)
    torch.save(gathered(task, make_task).state_dict(), folder / f"task_{runtime.rank}.pt")
    runtime.close()


if __name__ == "__main__":
    main()
