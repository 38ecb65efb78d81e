"""Views per core: ours against DINOv2's recipe written with torchvision on PIL images.

    python benchmarks/views.py [--rounds 15] [--size 384 512] [--json]

Both make 2 x 224 + 8 x 96 views of grey images that lie decoded in memory, on one thread. Rounds of the two
alternate, so that other work on the machine hits both; the ratio is that of the median times.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from fmseg.imaging.views import make_views
from fmseg.records.plans import Views

MEAN, STD = (0.18,), (0.22,)
VIEWS = Views(
    global_size=(224, 224),
    local_size=(96, 96),
    num_locals=8,
    global_scale=(0.32, 1.0),
    local_scale=(0.05, 0.32),
    aspect=(3 / 4, 4 / 3),
    flip="vertical",
    jitter_probability=0.8,
    brightness=0.4,
    contrast=0.4,
    blur_probability=(0.0, 0.9, 0.5),
    blur_sigma_px=(0.1, 2.0),
    solarize_probability=0.2,
    min_content=0.1,
)


def reference() -> Callable[[Image.Image], list[torch.Tensor]]:
    """Return the recipe as it is published, for grey images."""
    last = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]

    def pipeline(size: int, scale: tuple[float, float], blur: float, solarize: float) -> transforms.Compose:
        bicubic = transforms.InterpolationMode.BICUBIC
        steps = [
            transforms.RandomResizedCrop(size, scale=scale, interpolation=bicubic),
            transforms.RandomVerticalFlip(0.5),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.0)], p=0.8),
            transforms.RandomApply([transforms.GaussianBlur(9, (0.1, 2.0))], p=blur),
        ]
        if solarize:
            steps.append(transforms.RandomSolarize(128, solarize))
        return transforms.Compose(steps + last)

    first, second = pipeline(224, (0.32, 1.0), 0.0, 0.0), pipeline(224, (0.32, 1.0), 0.9, 0.2)
    local = pipeline(96, (0.05, 0.32), 0.5, 0.0)
    return lambda image: [first(image), second(image), *[local(image) for _ in range(8)]]


def made_images(num_images: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Return speckle in a sector, (h, w) uint8."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: size[0], : size[1]]
    sector = np.abs(columns - size[1] / 2) < 0.2 * size[1] + 0.5 * rows
    noise = [cv2.GaussianBlur(rng.rayleigh(60, size).astype(np.float32), (0, 0), 1.5) for _ in range(num_images)]
    return [np.clip(field * sector, 0, 255).astype(np.uint8) for field in noise]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, nargs=2, default=(384, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    images = made_images(8, tuple(options.size))
    pil_images = [Image.fromarray(image) for image in images]
    published, rng = reference(), np.random.default_rng(1)

    def ours() -> None:
        for image in images:
            make_views(image[None], VIEWS, MEAN, STD, rng)

    def theirs() -> None:
        for image in pil_images:
            published(image)

    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(options.rounds):
        for name, work in (("ours", ours), ("theirs", theirs)):
            start = time.perf_counter()
            work()
            seconds[name].append((time.perf_counter() - start) / len(images))
    mine, other = statistics.median(seconds["ours"]), statistics.median(seconds["theirs"])
    found = {"ms_per_image": 1e3 * mine, "reference_ms_per_image": 1e3 * other, "ratio": other / mine}
    if options.json:
        print(json.dumps(found | {"rounds": options.rounds, "size": list(options.size)}))
    else:
        print(f"{1e3 * mine:.2f} ms an image, PIL {1e3 * other:.2f} ms: {other / mine:.1f} times as fast")


if __name__ == "__main__":
    main()
