"""Whatever fails, and whenever: the same command again ends in the bytes of a run that nothing disturbed.

A few points in the fast tests; each point of each command in the slow ones.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from disk import ERRORS, KILLED, KINDS, sample, typed

sys.path.insert(0, str(Path(__file__).parents[1] / "bad_inputs"))
sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
import tiny_run
from bad_folders import write_good
from sound import NAME, write_png

#: what differs from run to run by intention: times, and what a process says of itself
NOT_COMPARED = ("timing.jsonl", ".lock", "log.txt", "progress.png")
SMALL = ("--set", "iterations=3", "--set", "batch_size=2")


@dataclass(frozen=True, slots=True)
class Job:
    """A command and what must be there before it."""

    name: str
    arguments: tuple[str, ...]
    prepare: Callable[[Path], object]
    #: commands that come first
    before: tuple[tuple[str, ...], ...] = ()
    patterns: tuple[str, ...] = field(default=("**/*",))


def write_raw(root: Path) -> None:
    write_png(root / "fmseg_raw" / NAME)


def write_trained(root: Path) -> None:
    tiny_run.write_run(root / "fmseg_results" / NAME / "linear__plans" / "fold_0", tiny_run.config())
    write_good(root)


PREPARED = ("plan_and_preprocess", "-d", "501", "-np", "0", "-q")
JOBS = {
    job.name: job
    for job in (
        Job("preprocess", PREPARED, write_raw, patterns=("fmseg_preprocessed/**/*",)),
        Job(
            "predict",
            ("predict", "-i", "{root}/in", "-o", "{root}/out", "--overlays"),
            write_trained,
            patterns=("out/**/*",),
        ),
        Job(
            "train",
            (
                "train",
                "501",
                "0",
                "--init",
                "scratch",
                "-r",
                "linear",
                *SMALL,
                "--set",
                "validation_interval=2",
                "--num-workers",
                "0",
            ),
            write_raw,
            (PREPARED,),
            ("fmseg_results/**/*",),
        ),
        Job("pretrain", ("pretrain", *SMALL, "--num-workers", "0"), write_raw, (PREPARED,), ("fmseg_results/**/*",)),
    )
}


@pytest.fixture(scope="session")
def ready(tmp_path_factory) -> Callable[[str], tuple[Job, Path, dict[str, bytes], int]]:
    """Return a function: name -> job, workspace before it, its undisturbed result, and its number of events."""
    known: dict[str, tuple[Job, Path, dict[str, bytes], int]] = {}

    def make(name: str) -> tuple[Job, Path, dict[str, bytes], int]:
        if name not in known:
            job, base = JOBS[name], tmp_path_factory.mktemp(name) / "base"
            base.mkdir()
            job.prepare(base)
            for arguments in job.before:
                assert typed(base, list(arguments)).code == 0
            whole = base.parent / "workspace"  # of one name, since records hold what was typed
            shutil.copytree(base, whole)
            outcome = run(job, whole)
            assert outcome.code == 0, outcome.text
            known[name] = (job, base, results(job, whole), outcome.count)
        return known[name]

    return make


def run(job: Job, root: Path, **fault):
    return typed(root, [argument.format(root=root) for argument in job.arguments], **fault)


def results(job: Job, root: Path) -> dict[str, bytes]:
    """Return what a job leaves behind, byte for byte."""
    found = {}
    for pattern in job.patterns:
        for path in sorted(root.glob(pattern)):
            if path.is_file() and path.name not in NOT_COMPARED:
                found[str(path.relative_to(root))] = path.read_bytes()
    assert found
    return found


def disturbed(name: str, ready, tmp_path: Path, points: Iterator[int], kinds=KINDS) -> None:
    job, base, wanted, _ = ready(name)
    for at in points:
        for kind in kinds:
            root = tmp_path / f"{kind}{at}" / "workspace"
            shutil.copytree(base, root)
            outcome = run(job, root, at=at, kind=kind)
            where = f"{kind} at {at}: {outcome.text}"
            if kind == "kill":
                assert outcome.code in (KILLED, 0), where
            else:
                # 5: a prediction that could not be written is named, the others are there
                assert outcome.code in (4, 5, 0), where
                assert "Traceback" not in outcome.text and "fault of fmseg" not in outcome.text, where
                assert outcome.code == 0 or outcome.text.count("error:") == 1 or outcome.code == 5, where
            again = run(job, root)
            assert again.code == 0, f"{where}\nthen {again.text}"
            found = results(job, root)
            assert found.keys() == wanted.keys(), where
            assert [key for key in wanted if found[key] != wanted[key]] == [], where
            shutil.rmtree(root.parent)


def test_an_undisturbed_run_is_the_same_twice(ready, tmp_path):
    job, base, wanted, count = ready("preprocess")
    shutil.copytree(base, tmp_path / "workspace")
    outcome = run(job, tmp_path / "workspace")
    assert outcome.count == count > 20
    assert results(job, tmp_path / "workspace") == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_the_fault_is_real(ready, tmp_path, kind):
    """Without this, all other tests here would pass on a disk that never fails."""
    job, base, *_ = ready("preprocess")
    shutil.copytree(base, tmp_path / "workspace")
    outcome = run(job, tmp_path / "workspace", at=3, kind=kind)
    assert outcome.code == (4 if kind in ERRORS else KILLED), outcome.text


@pytest.mark.parametrize("name", ["preprocess", "predict"])
def test_a_fault_here_and_there_costs_nothing(name, ready, tmp_path):
    disturbed(name, ready, tmp_path, sample(ready(name)[3], 4))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", JOBS)
def test_a_fault_anywhere_costs_nothing(name, kind, ready, tmp_path):
    disturbed(name, ready, tmp_path, range(ready(name)[3]), (kind,))
