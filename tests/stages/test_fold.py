import pytest
import torch
from torch import nn

from fmseg.inference.members import WEIGHTS
from fmseg.records.run import RunFolder
from fmseg.stages.train.fold import keep_weights


@pytest.fixture
def run(tmp_path):
    """A run that was stopped while it predicted its validation cases."""
    found = RunFolder(tmp_path)
    keep_weights(found, model(1.0))
    found.validation.mkdir()
    (found.validation / "a.prob").write_bytes(b"predicted")
    return found


def model(value):
    found = nn.Linear(2, 2)
    for parameter in found.parameters():
        torch.nn.init.constant_(parameter, value)
    return found


def test_predictions_stay_for_the_weights_that_they_are_of(run):
    keep_weights(run, model(1.0))
    assert (run.validation / "a.prob").read_bytes() == b"predicted"


def test_predictions_of_other_weights_go(run):
    before = (run.path / WEIGHTS).read_bytes()
    keep_weights(run, model(2.0))
    assert not run.validation.exists() and (run.path / WEIGHTS).read_bytes() != before
