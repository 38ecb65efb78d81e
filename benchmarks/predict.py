"""From a folder of images to label maps on disk: fmseg against nnU-Net v2, on the CPU, in the same run.

    python benchmarks/predict.py [--images 50] [--peer-images 8] [--peer-images-mirrored 4] [--json]

Each predicts with one network of its own plan: ``fmseg predict`` with a network trained for two iterations,
``nnUNetv2_predict`` with an untrained one (what a network has learned does not change its time). Without and with
test-time mirroring (nnU-Net's mirrors both axes; fmseg mirrors what its plan says). Two rates are shown:

- steady: of two folder sizes, the further images by the further seconds; start-up drops out;
- whole command, start-up included, for --images images; nnU-Net's is computed from its start-up and steady rate,
  unless --peer-images is as large.
"""

import argparse
import os
import shutil
from pathlib import Path

from peers import DATASET, NUM_PROCESSES, NUMBER, Bench, Row, add_common, bench, report, write_dataset

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


def seconds_of_fmseg(place: Bench, num_images: int, mirror: bool) -> float:
    output = place.root / "predicted"
    shutil.rmtree(output, ignore_errors=True)
    options = ("-d", NUMBER, "--mirror" if mirror else "--no-mirror")
    return place.fmseg("predict", "-i", str(folder_of(place, num_images)), "-o", str(output), *options).seconds


def seconds_of_nnunet(place: Bench, num_images: int, mirror: bool) -> float:
    output = place.root / "predicted"
    shutil.rmtree(output, ignore_errors=True)
    options = ["-d", NUMBER, "-c", "2d", "-f", "0", "-device", "cpu", "-npp", NUM_PROCESSES, "-nps", NUM_PROCESSES]
    options += [] if mirror else ["--disable_tta"]
    images = str(folder_of(place, num_images))
    return place.nnunet("nnUNetv2_predict", "-i", images, "-o", str(output), *options).seconds


def rates(few: float, many: float, num_many: int, num_wanted: int) -> tuple[float, float]:
    """Return images/s steady, and whole command on ``num_wanted`` images; few, many: seconds."""
    steady = (num_many - FEW) / (many - few)
    return steady, num_wanted / (many + (num_wanted - num_many) / steady)


def compare(place: Bench, num_images: int, num_peer: int, mirror: bool) -> list[Row]:
    """Measure both tools on two folder sizes."""
    ours = [seconds_of_fmseg(place, count, mirror) for count in (FEW, num_images)]
    theirs = [seconds_of_nnunet(place, count, mirror) for count in (FEW, num_peer)]
    (our_steady, our_whole) = rates(*ours, num_images, num_images)
    (their_steady, their_whole) = rates(*theirs, num_peer, num_images)
    how = "mirrored" if mirror else "not mirrored"
    return [
        Row(f"images a second, {how}, steady", our_steady, their_steady, aim=5),
        Row(f"images a second, {how}, whole command", our_whole, their_whole, aim=5),
        Row(f"seconds for {FEW} images, {how}", ours[0], theirs[0]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--peer-images", type=int, default=8, help="nnU-Net's larger folder, not mirrored")
    parser.add_argument("--peer-images-mirrored", type=int, default=4, help="the same, mirrored")
    add_common(parser)
    options = parser.parse_args()
    with bench(options) as place:
        write_dataset(place.raw, options.images, options.size, None)
        prepare(place)
        rows = compare(place, options.images, options.peer_images, mirror=False)
        rows += compare(place, options.images, options.peer_images_mirrored, mirror=True)
    settings = {"dataset": DATASET, "images": options.images, "size": "x".join(map(str, options.size))}
    peer = {"nnU-Net images": options.peer_images, "mirrored": options.peer_images_mirrored}
    report(rows, settings | peer, options.json)


if __name__ == "__main__":
    main()
