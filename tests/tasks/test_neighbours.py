import numpy as np
import pytest
import torch

from fmseg.records.labels import ClassScheme
from fmseg.tasks.neighbours import fit_neighbours

EXCLUSIVE = ClassScheme(names=("a", "b", "c"), is_exclusive=True)


def made(num=90, seed=0):
    """Class tokens of the last block that point where their class is; all other columns are loud noise."""
    rng = np.random.default_rng(seed)
    targets = np.eye(3)[rng.integers(0, 3, num)]
    features = rng.normal(0, 30, (num, 12)).astype(np.float32)
    features[:, 6:9] = targets + rng.normal(0, 0.1, (num, 3))
    return features, targets, [f"p{index // 3}" for index in range(num)]


def test_only_the_class_token_of_the_last_block_is_asked():
    features, targets, groups = made()
    found = fit_neighbours(features, targets, groups, EXCLUSIVE, num_blocks=2)
    assert found.head.columns.tolist() == [6, 7, 8]
    assert found.chosen.macro_f1 > 0.98
    others, truth, _ = made(seed=1)
    assert (found.head(torch.from_numpy(others)).argmax(1).numpy() == truth.argmax(1)).mean() > 0.95


def test_neighbours_are_chosen_within_the_training_cases():
    rng = np.random.default_rng(0)
    features, targets, _ = made()
    # a patient's images are equal, and say nothing of other patients': the nearest one would look perfect
    patients = [f"p{index // 3}" for index in range(90)]
    features = np.repeat(rng.normal(size=(30, 12)), 3, axis=0).astype(np.float32)
    targets = np.repeat(targets[:30], 3, axis=0)
    found = fit_neighbours(features, targets, patients, EXCLUSIVE, num_blocks=2)
    assert max(each.macro_f1 for each in found.candidates) < 0.6


def test_one_patient_alone_leaves_nothing_to_choose_by():
    features, targets, _ = made()
    found = fit_neighbours(features, targets, ["p"] * 90, EXCLUSIVE, num_blocks=2)
    assert found.chosen.macro_f1 is None and found.chosen.strength == 10


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_cases_of_several_classes_are_told(classes):
    rng = np.random.default_rng(0)
    scheme = ClassScheme(names=tuple("abc"[:classes]), is_exclusive=False)
    targets = rng.integers(0, 2, (60, classes)).astype(float)
    features = np.zeros((60, 12), np.float32)
    features[:, 6 : 6 + classes] = 2 * targets - 1
    features += rng.normal(0, 0.05, features.shape).astype(np.float32)
    groups = [f"p{index}" for index in range(60)]
    found = fit_neighbours(features, targets, groups, scheme, num_blocks=2)
    shares = found.head(torch.from_numpy(features)).sigmoid().numpy()
    assert ((shares > 0.5) == (targets > 0.5)).mean() > 0.95
