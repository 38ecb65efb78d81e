import json
import math

import pytest
import torch
from toy_run import toy_fit

from fmseg.errors import FmsegError
from fmseg.learning import loop
from fmseg.learning.loop import Hook
from fmseg.learning.runtime import Runtime
from fmseg.records.run import RunFolder


def spoil(*steps):
    """A ``change`` that makes the gradients of some steps NaN."""
    return lambda step, batch: batch | {"image": batch["image"] * math.nan} if step in steps else batch


def test_fit_learns(tmp_path):
    toy_fit(tmp_path, 200, dropout=0.0, log_every=50, peak=0.03, checkpoint_every=None)
    losses = [line["loss"] for line in RunFolder(tmp_path).history()]
    assert losses[-1] < 0.3 * losses[0]


def test_two_micro_batches_are_one_batch(tmp_path):
    one = toy_fit(tmp_path / "one", dropout=0.0)
    two = toy_fit(tmp_path / "two", dropout=0.0, accumulation=2)
    torch.testing.assert_close(one.model.state_dict(), two.model.state_dict(), rtol=1e-5, atol=1e-6)
    first, second = RunFolder(tmp_path / "one").history(), RunFolder(tmp_path / "two").history()
    assert [line["loss"] for line in first] == pytest.approx([line["loss"] for line in second], rel=1e-4)


def test_metrics_hold_means_and_timing_holds_times(tmp_path):
    toy_fit(tmp_path / "fine", 8, log_every=1)
    toy_fit(tmp_path / "coarse", 8, log_every=4)
    fine, coarse = RunFolder(tmp_path / "fine").history(), RunFolder(tmp_path / "coarse").history()
    assert [line["step"] for line in coarse] == [4, 8]
    for key in ("loss", "size", "grad_norm"):
        assert coarse[1][key] == pytest.approx(sum(line[key] for line in fine[4:]) / 4, rel=1e-5)
    assert coarse[1]["lr"] == fine[7]["lr"]
    timing = [json.loads(line) for line in (tmp_path / "coarse/timing.jsonl").read_text().splitlines()]
    assert set(timing[0]) == {"step", "seconds", "images_per_s", "data_wait_share"}


@pytest.mark.parametrize(("minutes_a_step", "wanted"), [(0.1, 1), (6.0, 5), (11.0, 10)])
def test_checkpoints_come_by_the_clock(tmp_path, monkeypatch, minutes_a_step, wanted):
    """So what a kill costs is some minutes, however long a step takes."""
    saved: list[int] = []
    monkeypatch.setattr(loop, "save_checkpoint", lambda folder, step, *_: saved.append(step))
    monkeypatch.setattr(loop.time, "monotonic", lambda: 60.0 * minutes_a_step * len(steps))
    steps: list[int] = []
    hook = Hook(1, lambda step: steps.append(step) or {})
    toy_fit(tmp_path, 10, checkpoint_every=None, checkpoint_minutes=10.0, hooks=(hook,))
    assert len(saved) == wanted and saved[-1] == 10


def test_randomness_is_a_function_of_seed_step_and_rank():
    draws = set()
    for seed, step, rank in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]:
        Runtime(torch.device("cpu"), rank=rank, world=2).seed_step(seed, step)
        draws.add(torch.rand(()).item())
    assert len(draws) == 4


def test_a_step_with_gradients_that_are_not_finite_is_left_out(tmp_path):
    """Three steps without updates leave everything where the first two brought it, but for the forward buffer."""
    short = toy_fit(tmp_path / "short", 2, change=spoil(2, 3, 4))
    with pytest.raises(FmsegError, match="center"):  # the running mean saw NaN, so nothing is saved
        toy_fit(tmp_path / "long", 5, change=spoil(2, 3, 4), checkpoint_every=None, log_every=5)
    assert RunFolder(tmp_path / "long").history()[0]["skipped"] == 3
    assert not (tmp_path / "long/checkpoints").exists()
    assert torch.isfinite(short.model[0].weight).all()


def test_training_stops_after_three_bad_intervals_in_a_row(tmp_path):
    with pytest.raises(FmsegError, match=r"2 of the last 3 steps.*step 6 for one.*learning rate"):
        toy_fit(tmp_path, 50, change=spoil(2, 5, 6, 8), log_every=3, checkpoint_every=None)
    assert [line["step"] for line in RunFolder(tmp_path).history()] == [3, 6, 9]


def test_bfloat16_learns_like_float32(tmp_path):
    half = Runtime(torch.device("cpu"), precision="bfloat16")
    toy_fit(tmp_path / "half", 40, dropout=0.0, runtime=half, checkpoint_every=None)
    toy_fit(tmp_path / "full", 40, dropout=0.0, checkpoint_every=None)
    last = [RunFolder(tmp_path / name).history()[-1]["loss"] for name in ("half", "full")]
    assert last[0] == pytest.approx(last[1], rel=0.05) and last[0] != last[1]


def test_a_run_ends_early_where_its_folder_says_so_and_stays_ended(tmp_path):
    run = RunFolder(tmp_path)

    def should_end():
        return sum("val_dice" in line for line in run.history()) >= 3

    hooks = (Hook(2, lambda step: {"val_dice": 0.5}),)
    task = toy_fit(tmp_path, 20, hooks=hooks, should_end=should_end)
    assert max(line["step"] for line in run.history()) == 6
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    again = toy_fit(tmp_path, 20, hooks=hooks, should_end=should_end)
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before
    torch.testing.assert_close(again.state_dict(), task.state_dict(), rtol=0, atol=0)
