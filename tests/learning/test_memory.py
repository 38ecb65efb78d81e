"""A batch that does not fit into memory is cut, and the step stays what it was."""

import signal

import pytest
import torch
from toy_run import BATCH, die, toy_fit

from fmseg.errors import EnvironmentProblem, Interrupted
from fmseg.learning.memory import split_evenly
from fmseg.learning.parallel import can_try_alone
from fmseg.records.run import RunFolder


@pytest.fixture
def roomy(tmp_path):
    return toy_fit(tmp_path / "roomy", dropout=0.0)


@pytest.mark.parametrize("most_images", [4, 3, 1])
def test_less_memory_ends_in_the_same_weights(tmp_path, roomy, caplog, most_images):
    task = toy_fit(tmp_path / "tight", dropout=0.0, most_images=most_images)
    torch.testing.assert_close(task.model.state_dict(), roomy.model.state_dict(), rtol=1e-5, atol=1e-6)
    lines, expected = RunFolder(tmp_path / "tight").history(), RunFolder(tmp_path / "roomy").history()
    told = {4: [4], 3: [4, 2], 1: [4, 2, 1]}[most_images]
    assert [line["images_at_a_time"] for line in lines if "images_at_a_time" in line] == told
    assert caplog.text.count("too little memory") == len(told)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses == pytest.approx([line["loss"] for line in expected], rel=1e-5)


def test_a_resumed_run_goes_on_with_the_parts_it_had(tmp_path, caplog):
    with pytest.raises(Interrupted):
        toy_fit(tmp_path / "two", most_images=2, before_step=die(5, signal.SIGTERM))
    assert caplog.text.count("too little memory") == 2
    task = toy_fit(tmp_path / "two", most_images=2)
    assert caplog.text.count("too little memory") == 2
    straight = toy_fit(tmp_path / "one", most_images=2)
    assert all(torch.equal(a, b) for a, b in zip(task.parameters(), straight.parameters(), strict=True))
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("one", "two")]
    assert metrics[0] == metrics[1]


def test_what_does_not_fit_at_all_is_told(tmp_path):
    with pytest.raises(EnvironmentProblem, match=f"too little memory for {BATCH} images a step in {BATCH} parts"):
        toy_fit(tmp_path, most_images=0)


def test_batches_are_split_into_equal_parts_or_not_at_all():
    batch = {"image": torch.arange(12).view(6, 2), "label": torch.arange(6)}
    pieces = split_evenly(batch, 3)
    assert [piece["label"].tolist() for piece in pieces] == [[0, 1], [2, 3], [4, 5]]
    assert torch.equal(torch.cat([piece["image"] for piece in pieces]), batch["image"])
    assert split_evenly(batch, 4) is None
    assert split_evenly(batch | {"other": torch.zeros(3)}, 3) is None


def test_a_rank_does_not_try_alone_what_norms_over_all_ranks():
    assert can_try_alone(torch.nn.Sequential(torch.nn.BatchNorm2d(3)))
    assert not can_try_alone(torch.nn.Sequential(torch.nn.SyncBatchNorm(3)))
