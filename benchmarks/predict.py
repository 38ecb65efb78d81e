"""From a folder of images to label maps on disk: fmseg against nnU-Net v2, on the CPU, in the same run.

    python benchmarks/predict.py [--images 200] [--peer-images 8] [--peer-images-mirrored 4] [--json]

Each predicts with one network of its own plan: ``fmseg predict`` with a network trained for two iterations,
``nnUNetv2_predict`` with an untrained one (what a network has learned does not change its time). Without and with
test-time mirroring (nnU-Net's mirrors both axes; fmseg mirrors what its plan says). Two rates are shown:

- steady: of two folder sizes, the further images by the further seconds; start-up drops out. Of --rounds runs the
  fastest counts;
- whole command, start-up included, for --images images; nnU-Net's is computed from its larger folder and its
  steady rate.
"""

import argparse
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peers import DATASET, MB, NUM_PROCESSES, NUMBER, Bench, Measured, Row, add_common, bench, report, write_dataset

CHECKPOINT = Path(__file__).with_name("nnunet_checkpoint.py")
FEW = 2


def prepare(place: Bench) -> None:
    """Make both tools ready to predict."""
    place.fmseg("plan_and_preprocess", "-d", NUMBER)
    place.fmseg("train", NUMBER, "0", "--init", "scratch", "--set", "iterations=2", "--set", "warmup_iterations=1")
    place.nnunet("nnUNetv2_plan_and_preprocess", "-d", NUMBER, "-c", "2d", "-np", NUM_PROCESSES, "--no_pbar")
    place.nnunet("python", str(CHECKPOINT), NUMBER)


def folder_of(place: Bench, num_images: int) -> Path:
    """Return a folder of links to some of the images."""
    folder = place.root / f"images_{num_images}"
    if not folder.exists():
        folder.mkdir()
        for path in sorted((place.raw / "imagesTr").iterdir())[:num_images]:
            os.link(path, folder / path.name)
    return folder


def run_fmseg(place: Bench, num_images: int, mirror: bool) -> Measured:
    options = ("-d", NUMBER, "--mirror" if mirror else "--no-mirror")
    with emptied(place.root / "predicted", num_images) as output:
        return place.fmseg("predict", "-i", str(folder_of(place, num_images)), "-o", str(output), *options)


def run_nnunet(place: Bench, num_images: int, mirror: bool) -> Measured:
    options = ["-d", NUMBER, "-c", "2d", "-f", "0", "-device", "cpu", "-npp", NUM_PROCESSES, "-nps", NUM_PROCESSES]
    options += [] if mirror else ["--disable_tta"]
    with emptied(place.root / "predicted", num_images) as output:
        return place.nnunet("nnUNetv2_predict", "-i", str(folder_of(place, num_images)), "-o", str(output), *options)


@contextmanager
def emptied(folder: Path, num_images: int) -> Iterator[Path]:
    """Yield a folder without old predictions, and check that there is one for each image afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    found = len(list(folder.glob("*.png")))
    if found != num_images:
        raise SystemExit(f"{found} of {num_images} predictions were written.")


def fastest(runs: Sequence[Measured]) -> Measured:
    """Return the run that was disturbed least."""
    return min(runs, key=lambda run: run.seconds)


def steady(few: float, many: float, num_many: int) -> float:
    """Return images/s after the start-up, from the seconds for two folder sizes; not a number if noise rules."""
    return (num_many - FEW) / (many - few) if many > few else math.nan


def compare(place: Bench, num_images: int, num_peer: int, *, mirror: bool, rounds: int) -> list[Row]:
    """Measure both tools on two folder sizes."""
    runs = ((run_fmseg, FEW), (run_fmseg, num_images), (run_nnunet, FEW), (run_nnunet, num_peer))
    measured = [[run(place, count, mirror) for run, count in runs] for _ in range(rounds)]
    ours, more_of_ours, theirs, more_of_theirs = (fastest(each) for each in zip(*measured, strict=True))
    our_rate = steady(ours.seconds, more_of_ours.seconds, num_images)
    their_rate = steady(theirs.seconds, more_of_theirs.seconds, num_peer)
    their_seconds = more_of_theirs.seconds + (num_images - num_peer) / their_rate
    our_cores = 1 / steady(ours.core_seconds, more_of_ours.core_seconds, num_images)
    their_cores = 1 / steady(theirs.core_seconds, more_of_theirs.core_seconds, num_peer)
    how = "mirrored" if mirror else "plain"
    return [
        Row(f"{how}: images a second, steady", our_rate, their_rate, aim=5),
        Row(f"{how}: images a second, whole command", num_images / more_of_ours.seconds, num_images / their_seconds, 5),
        Row(f"{how}: seconds for {FEW} images", ours.seconds, theirs.seconds),
        Row(f"{how}: seconds on the cores an image", our_cores, their_cores),
        Row(f"{how}: MB at the peak (PSS)", more_of_ours.peak_bytes / MB, more_of_theirs.peak_bytes / MB),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--peer-images", type=int, default=8, help="nnU-Net's larger folder, not mirrored")
    parser.add_argument("--peer-images-mirrored", type=int, default=4, help="the same, mirrored")
    add_common(parser)
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    with bench(options) as place:
        write_dataset(place.raw, options.images, options.size, None)
        prepare(place)
        rows = compare(place, options.images, options.peer_images, mirror=False, rounds=options.rounds)
        rows += compare(place, options.images, options.peer_images_mirrored, mirror=True, rounds=options.rounds)
    settings = {"dataset": DATASET, "images": options.images, "size": "x".join(map(str, options.size))}
    peer = {"nnU-Net images": options.peer_images, "mirrored": options.peer_images_mirrored, "rounds": options.rounds}
    report(rows, settings | peer | {"load before": load}, options.json)


if __name__ == "__main__":
    main()
