"""fmseg and nnU-Net v2 as commands on the same raw dataset, measured alike.

nnU-Net lives in a virtual environment of its own. A raw dataset of nnU-Net is one of ours as it is, so both read
the same folder. A command is measured with its start-up: its time on the clock, the time of all its processes on
the cores, and the peak of its memory, the sum of the proportional set sizes (PSS) over its process tree. The
latter two are sampled five times a second; time on the cores tells least of what else the machine is doing.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil

SAMPLE_SECONDS = 0.2
MB = 1e6
DATASET = "Dataset901_Benchmark"
NUMBER = "901"
#: the cores of this machine go to either, as many processes as cores
NUM_PROCESSES = str(len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True)
class Measured:
    """What one command took."""

    seconds: float
    core_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of both programs, and the ratio fmseg / nnU-Net that is aimed at."""

    measure: str
    fmseg: float
    nnunet: float
    aim: float | None = None
    less_is_better: bool = False

    @property
    def ratio(self) -> float:
        """Ours by theirs."""
        return self.fmseg / self.nnunet


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder to work in, and the two programs."""

    root: Path
    peer_venv: Path

    @property
    def raw(self) -> Path:
        """The raw dataset, the same for both."""
        return self.root / "fmseg_raw" / DATASET

    def prepared(self, tool: str) -> Path:
        """Return the folder of what ``tool`` made in preprocessing."""
        return self.root / f"{tool}_preprocessed" / DATASET

    def fmseg(self, *arguments: str) -> Measured:
        """Run one fmseg command."""
        program = Path(sys.executable).with_name("fmseg")
        return self._measure([str(program), "--root", str(self.root), *arguments])

    def nnunet(self, program: str, *arguments: str) -> Measured:
        """Run one program of nnU-Net's environment."""
        return self._measure([str(self.peer_venv / "bin" / program), *arguments])

    def _measure(self, command: list[str]) -> Measured:
        roots = {"raw": "fmseg_raw", "preprocessed": "nnunet_preprocessed", "results": "nnunet_results"}
        environment = os.environ | {f"nnUNet_{key}": str(self.root / value) for key, value in roots.items()}
        print("$", Path(command[0]).name, *command[1:], file=sys.stderr)
        log = self.root / "log.txt"
        core_seconds: dict[int, float] = {}
        with open(log, "wb") as output:
            start, peak = time.monotonic(), 0
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=self.root)
            while process.poll() is None:
                peak = max(peak, sample(process.pid, core_seconds))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(SAMPLE_SECONDS)
            seconds = time.monotonic() - start
        if process.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise SystemExit(f"{tail}\n{command[0]} left with exit code {process.returncode}.")
        return Measured(seconds, sum(core_seconds.values()), peak)


def sample(pid: int, core_seconds: dict[int, float]) -> int:
    """Return the memory of a process and all below it, and note the time that each has had on the cores."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
                times = process.cpu_times()
                core_seconds[process.pid] = times.user + times.system
                total += process.memory_full_info().pss
    return total


def folder_bytes(folder: Path) -> int:
    """Return the sum of the sizes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def bench(options: argparse.Namespace) -> Iterator[Bench]:
    """Yield the place to work in, with nnU-Net installed; removed afterwards if the user named none."""
    need_nnunet(options.peer_venv)
    with tempfile.TemporaryDirectory(prefix="fmseg-benchmark-") as temporary:
        root = (options.work or Path(temporary)).absolute()
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise SystemExit(f"{root} is not empty. Name a new folder after --work.")
        yield Bench(root, options.peer_venv.absolute())


def need_nnunet(venv: Path) -> None:
    """Install nnU-Net into an environment of its own, with this environment's torch, unless it is there."""
    if (venv / "bin" / "nnUNetv2_plan_and_preprocess").exists():
        return
    import torch
    import torchvision

    versions = [f"{package.__name__}=={package.__version__.split('+')[0]}" for package in (torch, torchvision)]
    for command in (
        [sys.executable, "-m", "venv", str(venv)],
        [str(venv / "bin" / "pip"), "install", "--quiet", *versions, "nnunetv2", "psutil"],
    ):
        print("$", *command, file=sys.stderr)
        subprocess.run(command, check=True, stdout=sys.stderr)


def write_dataset(folder: Path, num_images: int, size: tuple[int, int], data: Path | None) -> int:
    """Write a raw dataset of made images, or of the grey PNGs of ``data``, with made labels; return its length."""
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    count = 0
    for image, label in made_images(num_images, size) if data is None else given_images(data, num_images):
        name = f"patient{count // 2:04d}_{count % 2}"
        cv2.imwrite(str(folder / "imagesTr" / f"{name}_0000.png"), image)
        cv2.imwrite(str(folder / "labelsTr" / f"{name}.png"), label)
        count += 1
    declaration = {
        "channel_names": {"0": "ultrasound"},
        "labels": {"background": 0, "head": 1},
        "numTraining": count,
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(declaration))
    return count


def made_images(num_images: int, size: tuple[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield speckle in a sector with a darker ellipse, and the ellipse; both (h, w) uint8."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    sector = np.abs(columns - size[1] / 2) < 0.2 * size[1] + 0.5 * rows
    for index in range(num_images):
        rng = np.random.default_rng(index)
        label = draw_ellipse(size, rng)
        speckle = cv2.GaussianBlur(rng.rayleigh(60, size).astype(np.float32), (0, 0), 1.2)
        yield np.clip(speckle * sector * (1 - 0.4 * label), 0, 255).astype(np.uint8), label


def given_images(folder: Path, num_images: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield grey PNGs below a folder (HC18's outlines left out), each with an ellipse of any place as its label."""
    paths = [path for path in sorted(folder.rglob("*.png")) if not path.stem.endswith("_Annotation")]
    images = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths[:num_images])
    for index, image in enumerate(images):
        if image is not None and image.ndim == 2 and image.dtype == np.uint8:
            yield image, draw_ellipse(image.shape, np.random.default_rng(index))


def draw_ellipse(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a filled ellipse of 1 in 0, (h, w) uint8."""
    height, width = size
    centre = int(width * rng.uniform(0.4, 0.6)), int(height * rng.uniform(0.4, 0.6))
    axes = int(width * rng.uniform(0.12, 0.3)), int(height * rng.uniform(0.12, 0.3))
    return cv2.ellipse(np.zeros(size, np.uint8), centre, axes, rng.uniform(0, 180), 0, 360, 1, -1)


def parse_size(text: str) -> tuple[int, int]:
    """Return ``600x800`` as (height, width)."""
    height, width = text.split("x")
    return int(height), int(width)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that both benchmarks have."""
    parser.add_argument("--size", type=parse_size, default=(600, 800), help="of made images, HEIGHTxWIDTH")
    parser.add_argument("--rounds", type=int, default=1, help="how often each command is run, in turn")
    parser.add_argument("--peer-venv", type=Path, default=Path(".venv-nnunet"), help="made there if need be")
    parser.add_argument("--work", type=Path, help="empty or new folder to work in; by default one that is removed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def report(rows: Sequence[Row], settings: dict[str, object], as_json: bool) -> None:
    """Print both programs' figures, their ratios and whether these are what is aimed at."""
    if as_json:
        values = [{key: _known(value) for key, value in (asdict(row) | {"ratio": row.ratio}).items()} for row in rows]
        print(json.dumps({"settings": settings, "rows": values}))
        return
    print(", ".join(f"{key}: {value}" for key, value in settings.items()))
    print(f"{'':40s}{'fmseg':>11s}{'nnU-Net':>11s}{'ratio':>9s}  aim")
    for row in rows:
        print(f"{row.measure:40s}{row.fmseg:11.4g}{row.nnunet:11.4g}{row.ratio:9.3g}  {_verdict(row)}")


def _verdict(row: Row) -> str:
    if row.aim is None:
        return ""
    if math.isnan(row.ratio):
        return "unknown: the machine was too busy"
    sign, met = ("<=", row.ratio <= row.aim) if row.less_is_better else (">=", row.ratio >= row.aim)
    return f"{sign} {row.aim:g}, {'met' if met else 'MISSED'}"


def _known(value: object) -> object:
    """Return the value, None for what is not a number, which JSON does not know."""
    return None if isinstance(value, float) and math.isnan(value) else value
