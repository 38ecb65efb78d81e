from itertools import pairwise

import pytest
import torch
from torch import nn

from fmseg.inference.sliding import Sliding, mirrorings, predict_batch, window_starts, window_weights


class Blur(nn.Module):
    """Not a function of single pixels, and not symmetric: windows and mirrorings matter."""

    def __init__(self, outputs=3):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, outputs, 5, padding=2)

    def forward(self, image):
        # depends on where a pixel lies in the window, as position embeddings do
        ramp = torch.linspace(0, 1, image.shape[-1]) + torch.linspace(0, 2, image.shape[-2])[:, None]
        return self.layer(image) * 4 + ramp


def settings(**changes):
    values = {"input_size": (16, 24), "mirror_axes": (), "has_regions": False, "black": (-1.0,), "batch_size": 3}
    return Sliding(**(values | changes))


def images(*sizes):
    torch.manual_seed(1)
    return [torch.randn(1, *size) for size in sizes]


MIXED = [(16, 24), (10, 24), (40, 50), (16, 60), (33, 9), (1, 1)]


@pytest.mark.parametrize("has_regions", [False, True])
def test_agrees_with_monai(has_regions):
    from monai.inferers import sliding_window_inference

    model, sliding = Blur().eval(), settings(has_regions=has_regions)
    activation = torch.sigmoid if has_regions else lambda logits: logits.softmax(1)
    for image in images((40, 50), (16, 61), (37, 24)):
        with torch.no_grad():
            theirs = sliding_window_inference(
                image[None], (16, 24), 4, lambda x: activation(model(x)), overlap=0.5, mode="gaussian"
            )
        (ours,) = predict_batch(model, [image], sliding)
        torch.testing.assert_close(ours, theirs[0], atol=1e-6, rtol=1e-5)


def test_mixed_sizes_together_equal_one_by_one():
    model, sliding = Blur().eval(), settings(mirror_axes=("horizontal", "vertical"))
    together = predict_batch(model, images(*MIXED), sliding)
    for image, answer in zip(images(*MIXED), together, strict=True):
        assert answer.shape == (3, *image.shape[1:])
        (alone,) = predict_batch(model, [image], settings(mirror_axes=("horizontal", "vertical"), batch_size=1))
        torch.testing.assert_close(answer, alone, atol=1e-6, rtol=1e-5)


def test_probabilities_of_classes_sum_to_one_everywhere():
    for answer in predict_batch(Blur().eval(), images(*MIXED), settings(mirror_axes=("horizontal",))):
        torch.testing.assert_close(answer.sum(0), torch.ones(answer.shape[1:]))
        assert answer.dtype == torch.float32


@pytest.mark.parametrize("axes", [("horizontal",), ("horizontal", "vertical")])
def test_a_mirrored_image_gives_the_mirrored_answer(axes):
    model, sliding = Blur().eval(), settings(mirror_axes=axes)
    for image in images(*MIXED):
        (straight,) = predict_batch(model, [image], sliding)
        (mirrored,) = predict_batch(model, [image.flip(-1)], sliding)
        torch.testing.assert_close(mirrored.flip(-1), straight, atol=1e-6, rtol=1e-5)
        (without,) = predict_batch(model, [image], settings())
        assert image.numel() == 1 or not torch.allclose(without, straight, atol=1e-3)


def test_a_small_image_is_centred_on_black_as_in_training():
    from fmseg.imaging.augment import AugmentationParameters, apply_augmentation

    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, image):
            seen.append(image[0])
            return torch.cat([image, image], 1)

    mean, std, image = 0.4, 0.2, torch.rand(1, 9, 15)
    predict_batch(Spy().eval(), [(image - mean) / std], settings(black=(-mean / std,)))
    canvas, _ = apply_augmentation(image.numpy(), None, AugmentationParameters(), (16, 24))
    torch.testing.assert_close(seen[0] * std + mean, torch.tensor(canvas), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("size", "window"), [(5, 8), (8, 8), (9, 8), (31, 8), (32, 8), (7, 1), (100, 33)])
def test_windows_cover_every_pixel_and_stay_inside(size, window):
    starts = window_starts(max(size, window), window)
    assert {pixel for start in starts for pixel in range(start, start + window)} == set(range(max(size, window)))
    assert all(b - a <= max(1, window // 2) for a, b in pairwise(starts))


def test_weights_are_symmetric_and_positive():
    weights = window_weights((16, 24), torch.device("cpu"))
    assert torch.equal(weights, weights.flip(0)) and torch.equal(weights, weights.flip(1))
    assert weights.min() > 0


def test_all_combinations_of_mirrorings():
    assert mirrorings(()) == [()]
    assert mirrorings(("horizontal", "vertical")) == [(), (-1,), (-2,), (-1, -2)]


@pytest.mark.parametrize("full", [torch.OutOfMemoryError("full"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")])
def test_running_out_of_device_memory_halves_the_batch(full):
    class Small(Blur):
        def forward(self, image):
            if len(image) > 1:
                raise full
            return super().forward(image)

    answers = predict_batch(Small().eval(), images(*MIXED), settings(batch_size=8))
    for answer, expected in zip(answers, predict_batch(Blur().eval(), images(*MIXED), settings()), strict=True):
        torch.testing.assert_close(answer, expected, atol=1e-6, rtol=1e-5)


def test_bfloat16_is_near_float32():
    model = Blur().eval()
    exact, rough = (predict_batch(model, images((40, 50)), settings(precision=p))[0] for p in ("float32", "bfloat16"))
    assert (exact - rough).abs().max() < 0.05
    assert rough.dtype == torch.float32


def test_hundreds_of_images_go_through_in_groups():
    model, stack = Blur().eval(), images(*[(10, 12)] * 70)
    answers = predict_batch(model, stack, settings(batch_size=2))
    assert len(answers) == 70
    torch.testing.assert_close(answers[-1], predict_batch(model, stack[-1:], settings())[0], atol=1e-6, rtol=1e-5)
    assert predict_batch(model, [], settings()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_agrees_with_the_cpu():
    sliding = settings(mirror_axes=("horizontal",))
    expected = predict_batch(Blur().eval(), images(*MIXED), sliding)

    class OnDevice(Blur):
        def forward(self, image):
            ramp = torch.linspace(0, 1, image.shape[-1]) + torch.linspace(0, 2, image.shape[-2])[:, None]
            return self.layer(image) * 4 + ramp.to(image.device)

    for one, other in zip(predict_batch(OnDevice().eval().cuda(), images(*MIXED), sliding), expected, strict=True):
        assert one.device.type == "cpu"
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
