import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fmseg.records.labels import ClassScheme
from fmseg.tasks.classification import ClassificationTask

EXCLUSIVE = ClassScheme(names=("a", "b", "c"), is_exclusive=True)
SEVERAL = ClassScheme(names=("a", "b", "c"), is_exclusive=False)
WEIGHTS = (0.5, 1.0, 2.0)


class Means(nn.Module):
    """Logits that depend on the image a little."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)

    def forward(self, image):
        return self.layer(image.flatten(1))


def task(scheme, **options):
    return ClassificationTask(
        Means(), scheme, **({"class_weights": WEIGHTS, "label_smoothing": 0.0, "ema_decay": 0.0} | options)
    )


def batch(scheme, size=8):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(size, 1, 2, 2, generator=generator)
    if scheme.is_exclusive:
        target = F.one_hot(torch.randint(3, (size,), generator=generator), 3).float()
    else:
        target = torch.randint(2, (size, 3), generator=generator).float()
    return {"image": image, "target": target}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_exclusive_classes_is_torchs(smoothing):
    ours, data = task(EXCLUSIVE, label_smoothing=smoothing), batch(EXCLUSIVE)
    theirs = nn.CrossEntropyLoss(torch.tensor(WEIGHTS), label_smoothing=smoothing, reduction="none")
    expected = theirs(ours.model(data["image"]), data["target"].argmax(1)).mean()
    assert torch.allclose(ours.training_loss(data, 0)[0], expected)


def test_the_loss_of_several_classes_is_torchs():
    ours, data = task(SEVERAL), batch(SEVERAL)
    theirs = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(WEIGHTS))
    assert torch.allclose(ours.training_loss(data, 0)[0], theirs(ours.model(data["image"]), data["target"]))


@pytest.mark.parametrize("scheme", [EXCLUSIVE, SEVERAL], ids=["exclusive", "several"])
def test_two_halves_have_the_loss_and_gradient_of_the_whole(scheme):
    data = batch(scheme)
    whole, halves = task(scheme, label_smoothing=0.1), task(scheme, label_smoothing=0.1)
    whole.training_loss(data, 0)[0].backward()
    for part in (slice(0, 4), slice(4, 8)):
        (halves.training_loss({name: value[part] for name, value in data.items()}, 0)[0] / 2).backward()
    for one, other in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-7)


def test_weights_are_no_state():
    assert not [name for name in task(EXCLUSIVE).state_dict() if "weights" in name]


def test_accuracy_is_the_share_that_is_right():
    ours = task(EXCLUSIVE)
    data = batch(EXCLUSIVE)
    right = F.one_hot(ours.model(data["image"]).argmax(1), 3).float()
    assert ours.training_loss(data | {"target": right}, 0)[1]["accuracy"] == 1.0
    assert ours.training_loss(data | {"target": right.roll(1, 1)}, 0)[1]["accuracy"] == 0.0
