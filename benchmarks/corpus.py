"""An archive of many small images: how fast it is measured and prepared, and what a second start and a kill cost.

    python benchmarks/corpus.py [--images 100000] [--processes 1] [--work DIR] [--json]

One image in ten is drawn; the other nine are the same one brighter by a step each, but the last, which has the same
pixels in a file that differs by one byte. The ten lie in one patient's folder, so one in ten is left after thinning.
Every thousandth file is broken. Commands are whole ones, with their start-up:

1. ``fmseg plan_and_preprocess --images`` on a tenth of the images, then on all: files a second, bytes, memory;
2. the same again, with nothing to do; and again after 1 % new images;
3. the same in an empty workspace, ended by SIGKILL at two random moments and typed again: seconds that were lost, and
   whether the store has the same bytes.

Figures for two million images are extrapolated: what each further image took between a tenth of the images and all of
them, in time and in memory of the main process, each of the two million takes too. Workers do not grow.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from peers import folder_bytes

SIZE = (64, 96)
COPIES = 10
BROKEN_EVERY = 1000
MILLIONS = 2_000_000
MB = 1e6


@dataclass(frozen=True, slots=True)
class Run:
    """What one command took."""

    seconds: float
    #: resident memory of the main process at its highest
    peak_bytes: int


def make_archive(folder: Path, num_images: int, *, first: int = 0) -> None:
    """Write patients of ten images each, numbered from ``first`` on."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    sector = np.abs(columns - SIZE[1] / 2) < 0.2 * SIZE[1] + 0.5 * rows
    for patient in range(first, first + num_images // COPIES):
        rng = np.random.default_rng(patient)
        coarse = cv2.resize(rng.uniform(20, 200, (7, 9)).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        image = np.clip(coarse * sector * rng.rayleigh(0.8, SIZE), 0, 230).astype(np.uint8)
        place = folder / f"{patient // 1000:03d}" / f"patient{patient:06d}"
        place.mkdir(parents=True)
        for copy in range(COPIES):
            ending = ".jpg" if patient % 2 else ".png"
            data = cv2.imencode(ending, np.clip(image.astype(int) + copy % (COPIES - 1), 0, 255).astype(np.uint8))[1]
            content = data.tobytes() + (b"x" if copy == COPIES - 1 else b"")
            if (patient * COPIES + copy) % BROKEN_EVERY == 7:
                content = content[: len(content) // 2]
            (place / f"{copy}{ending}").write_bytes(content)


def command(root: Path, archive: Path, processes: int) -> list[str]:
    """Return the command that is measured."""
    program = Path(sys.executable).with_name("fmseg")
    start = [str(program)] if program.exists() else [sys.executable, "-m", "fmseg"]
    return [*start, "plan_and_preprocess", "--root", str(root), "--images", str(archive), "-np", str(processes)]


def prepare(root: Path, archive: Path, processes: int) -> Run:
    """Run it to its end."""
    root.mkdir(exist_ok=True)
    with open(root / "log.txt", "ab") as log:
        start, peak = time.monotonic(), 0
        process = subprocess.Popen(command(root, archive, processes), stdout=log, stderr=log)
        while process.poll() is None:
            with suppress(OSError):
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                peak = max([peak, *(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
            time.sleep(0.05)
    if process.returncode not in (0, 5):
        raise SystemExit((root / "log.txt").read_text()[-3000:])
    return Run(time.monotonic() - start, peak)


def kill(root: Path, archive: Path, processes: int, after: float) -> float:
    """Start it, and end it by SIGKILL after so many seconds; return the seconds that it ran."""
    root.mkdir(exist_ok=True)
    start = time.monotonic()
    with open(root / "log.txt", "ab") as log:
        process = subprocess.Popen(command(root, archive, processes), stdout=log, stderr=log)
        time.sleep(after)
        process.kill()
        process.wait()
    return time.monotonic() - start


def stored(root: Path) -> dict[str, bytes]:
    """Return the files of the store."""
    (folder,) = root.glob("fmseg_preprocessed/*/*_images")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def distinct(root: Path) -> int:
    """Return how many images are left to pretrain on."""
    from fmseg.sampling.corpora import collect_corpora
    from fmseg.workspace import Workspace

    workspace = Workspace.find(root)
    (corpus,) = collect_corpora(workspace, workspace.dataset_names())
    return len(corpus.distinct(corpus.plans[0].pretraining.min_difference))


def measure(root: Path, num_images: int, processes: int) -> dict[str, float]:
    """Return all figures."""
    few, archive = root / "few", root / "archive"
    make_archive(few, num_images // 10)
    start = time.monotonic()
    make_archive(archive, num_images)
    made_s = time.monotonic() - start
    small = prepare(root / "small", few, processes)
    whole = prepare(root / "whole", archive, processes)
    small_again, again = prepare(root / "small", few, processes), prepare(root / "whole", archive, processes)
    seconds = time.monotonic()
    kept = distinct(root / "whole")
    seconds = time.monotonic() - seconds
    moments = random.Random(0)
    killed_s = sum(kill(root / "killed", archive, processes, moments.uniform(0.2, 0.5) * whole.seconds) for _ in "12")
    resumed = prepare(root / "killed", archive, processes)
    is_same = stored(root / "killed") == stored(root / "whole")
    store_bytes = sum(len(content) for content in stored(root / "whole").values())
    journal_bytes = sum(path.stat().st_size for path in root.glob("whole/fmseg_preprocessed/*/cases.jsonl"))
    make_archive(archive, max(num_images // 100, COPIES), first=num_images)
    more = prepare(root / "whole", archive, processes)

    def extrapolated(of_tenth: float, of_all: float) -> float:
        return of_all + (of_all - of_tenth) / (0.9 * num_images) * (MILLIONS - num_images)

    peaks = [max(run.peak_bytes for run in runs) for runs in ((small, small_again), (whole, again, resumed))]
    return {
        "images": num_images,
        "seconds to make them": made_s,
        "MB of files": folder_bytes(archive) / MB,
        "seconds, first start": whole.seconds,
        "files a second": num_images / whole.seconds,
        "seconds, second start": again.seconds,
        "seconds, 1 % new images": more.seconds,
        "seconds lost by two kills": killed_s + resumed.seconds - whole.seconds,
        "killed and never killed give the same bytes": float(is_same),
        "distinct images": kept,
        "seconds to find them": seconds,
        "bytes in the store per image": store_bytes / num_images,
        "bytes of measurements per image": journal_bytes / num_images,
        "MB at the peak, a tenth": peaks[0] / MB,
        "MB at the peak, all": peaks[1] / MB,
        "bytes of memory per further image": (peaks[1] - peaks[0]) / (0.9 * num_images),
        "2 million: hours, first start": extrapolated(small.seconds, whole.seconds) / 3600,
        "2 million: minutes, second start": extrapolated(small_again.seconds, again.seconds) / 60,
        "2 million: GB at the peak": extrapolated(*peaks) / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, help="empty or new folder to work in; by default one that is removed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    root = options.work or Path(tempfile.mkdtemp(prefix="fmseg-corpus-"))
    root.mkdir(parents=True, exist_ok=True)
    try:
        figures = measure(root.absolute(), options.images, options.processes)
    finally:
        if options.work is None:
            shutil.rmtree(root)
    if options.json:
        print(json.dumps(figures | {"processes": options.processes, "load before": load}))
        return
    print(f"processes: {options.processes}, load before: {load}")
    for name, value in figures.items():
        print(f"{name:48s}{value:12.4g}")


if __name__ == "__main__":
    main()
