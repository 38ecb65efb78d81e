"""How long the doctor takes over a made dataset of N images: what it reads, and what it compares.

    python benchmarks/doctor.py 10000 --processes 2

Images are noisy phantoms of 256 x 256 pixels with label maps, written to a temporary folder first; every 100th is a
copy of the one before, every 100th is that copy made a little brighter, under another patient.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from fmseg.imaging.phantoms import make_phantom
from fmseg.stages.doctor import doctor
from fmseg.stages.fingerprint import fingerprint
from fmseg.workspace import Workspace

NAME = "Dataset901_Phantoms"
SIDE_PX = 256
IMAGES_PER_PATIENT = 4
#: phantoms that are drawn; the others are these with other noise, which is quicker to make
DRAWN = 200


def write_dataset(folder: Path, count: int) -> None:
    """Write ``count`` cases."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    drawn = [_square(make_phantom(np.random.default_rng(index))) for index in range(min(DRAWN, count))]
    values, image = 2, drawn[0][0]
    for number in range(count):
        found, label = drawn[number % len(drawn)]
        if number % 100 < 2 and number >= 2:  # the image before, as it is or brighter
            image = np.minimum(image.astype(np.int16) + 2 * (number % 100), 255).astype(np.uint8)
        else:
            shift = rng.integers(-40, 40, 2)
            found, label = np.roll(found, shift, (0, 1)), np.roll(label, shift, (0, 1))
            image = np.clip(found + rng.normal(0, 6, found.shape), 0, 255).astype(np.uint8)
        values = max(values, int(label.max()))
        case = f"P{number // IMAGES_PER_PATIENT:06d}_{number % IMAGES_PER_PATIENT}"
        cv2.imwrite(str(folder / "imagesTr" / f"{case}_0000.png"), image)
        cv2.imwrite(str(folder / "labelsTr" / f"{case}.png"), label)
    labels = {"background": 0} | {f"class{value}": value for value in range(1, values + 1)}
    declared = {"channel_names": {"0": "ultrasound"}, "labels": labels, "numTraining": count, "file_ending": ".png"}
    (folder / "dataset.json").write_text(json.dumps(declared | {"group_regex": "^(P[0-9]+)_"}))


def _square(pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    size = (SIDE_PX, SIDE_PX)
    return cv2.resize(pair[0], size), cv2.resize(pair[1], size, interpolation=cv2.INTER_NEAREST)


def main() -> None:
    """Write, measure, examine, and print seconds and the highest memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        workspace = Workspace.find(Path(place))
        start = time.perf_counter()
        write_dataset(workspace.raw_dataset(NAME), arguments.count)
        written = time.perf_counter()
        fingerprint(workspace, NAME, num_processes=arguments.processes)
        measured = time.perf_counter()
        findings = doctor(workspace, NAME, num_processes=arguments.processes)
        done = time.perf_counter()
    memory = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1e3
    cpu = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        f"{arguments.count} images, {arguments.processes} processes: written in {written - start:.1f} s (not counted)"
    )
    print(f"measured in {measured - written:.1f} s, examined in {done - measured:.1f} s, {len(findings)} findings")
    print(f"in all {done - written:.1f} s; at most {memory:.0f} MB a process; {cpu:.1f} s of CPU, writing included")


if __name__ == "__main__":
    main()
