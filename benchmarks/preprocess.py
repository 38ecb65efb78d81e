"""From raw images to what training reads: fmseg against nnU-Net v2, on the same images in the same run.

    python benchmarks/preprocess.py [--images 600] [--size 600x800] [--data DIR] [--rounds 1] [--json]

Both check, measure, plan and prepare, as whole commands: ``fmseg plan_and_preprocess`` and
``nnUNetv2_plan_and_preprocess --verify_dataset_integrity -c 2d``, each with as many processes as there are cores.
Rounds of the two alternate, each on an empty folder; figures are medians.
"""

import argparse
import os
import shutil
from pathlib import Path
from statistics import median

from peers import (
    DATASET,
    MB,
    NUM_PROCESSES,
    NUMBER,
    Bench,
    Measured,
    Row,
    add_common,
    bench,
    folder_bytes,
    report,
    write_dataset,
)


def prepare_with_fmseg(place: Bench) -> Measured:
    shutil.rmtree(place.prepared("fmseg"), ignore_errors=True)
    return place.fmseg("plan_and_preprocess", "-d", NUMBER, "-np", NUM_PROCESSES)


def prepare_with_nnunet(place: Bench) -> Measured:
    shutil.rmtree(place.prepared("nnunet"), ignore_errors=True)
    processes = ("-np", NUM_PROCESSES, "-npfp", NUM_PROCESSES)
    options = ("--verify_dataset_integrity", "-c", "2d", "--no_pbar")
    return place.nnunet("nnUNetv2_plan_and_preprocess", "-d", NUMBER, *processes, *options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--data", type=Path, help="folder of grey PNGs to use instead of made images")
    add_common(parser)
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    with bench(options) as place:
        num_images = write_dataset(place.raw, options.images, options.size, options.data)
        ours, theirs = [], []
        for _ in range(options.rounds):
            ours.append(prepare_with_fmseg(place))
            theirs.append(prepare_with_nnunet(place))
        raw, sizes = folder_bytes(place.raw), [folder_bytes(place.prepared(tool)) for tool in ("fmseg", "nnunet")]
    seconds, cores, peaks = (
        [median(getattr(each, measure) for each in runs) for runs in (ours, theirs)]
        for measure in ("seconds", "core_seconds", "peak_bytes")
    )
    rows = [
        Row("images a second", *(num_images / each for each in seconds), aim=8),
        Row("seconds", *seconds),
        Row("seconds on the cores", *cores),
        Row("MB of preprocessed data", *(each / MB for each in sizes), aim=1 / 4, less_is_better=True),
        Row("MB of memory at the peak (PSS)", *(each / MB for each in peaks), aim=1 / 2, less_is_better=True),
    ]
    settings = {"dataset": DATASET, "images": num_images, "raw MB": round(raw / MB), "load before": load}
    report(rows, settings | {"processes": NUM_PROCESSES, "rounds": options.rounds}, options.json)


if __name__ == "__main__":
    main()
