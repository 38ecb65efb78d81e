"""Train nnU-Net's 2D network of a preprocessed dataset on all its cases for some minutes; run in its environment.

python nnunet_training.py 901 40

The minutes are those of all its processes on the cores, whatever else runs beside. The schedule is made for them: a few
steps are timed, and the learning rate then falls to zero over as many as fit.
"""

import multiprocessing
import sys

import psutil
import torch
from nnunetv2.run.run_training import get_trainer_from_args

EPOCH, TIMED = 10, 4


def new_trainer(number: str, epochs: int):
    """Return a trainer of short epochs, all of which train on every case."""
    trainer = get_trainer_from_args(number, "2d", "all", device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = epochs, EPOCH, 1
    trainer.save_every = 10**9
    return trainer


def seconds_per_step(number: str) -> float:
    """Return the time of a step after the first, which starts workers and chooses kernels."""
    trainer = new_trainer(number, 1)
    trainer.on_train_start()
    trainer.train_step(next(trainer.dataloader_train))
    start = core_seconds()
    for _ in range(TIMED):
        trainer.train_step(next(trainer.dataloader_train))
    spent = core_seconds() - start
    trainer.on_train_end()
    return spent / TIMED


def core_seconds() -> float:
    """Return the time that this process and its augmenting ones have had on the cores."""
    processes = [psutil.Process(), *(psutil.Process(child.pid) for child in multiprocessing.active_children())]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


number, minutes = sys.argv[1], float(sys.argv[2])
step_s = seconds_per_step(number)
epochs = max(1, round(60 * minutes / (step_s * (EPOCH + 0.5))))
print(f"{step_s:.2f} s a step, {epochs * EPOCH} steps", flush=True)
new_trainer(number, epochs).run_training()
