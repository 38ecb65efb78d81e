"""Whatever fails, and whenever: the same command again ends in the bytes of a run that nothing disturbed.

A few points in the fast tests; each point of each command in the slow ones.
"""

import re
import shutil
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import pytest
from disk import ERRORS, KINDS, Outcome, faults, sample, typed

sys.path.insert(0, str(Path(__file__).parents[1] / "bad_inputs"))
sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
import tiny_run
from bad_folders import write_good
from sound import NAME, write_png

#: what differs from run to run by intention: times, what a process says of itself, and what is drawn at random
NOT_COMPARED = ("timing.jsonl", ".lock", "log.txt", "progress.png", ".patient_salt", "card.md", "report.html")
TIMES = re.compile(rb'"(seconds|finished)": [^,\n]*')
LEARNED = ("fmseg_results/**/*",)


def settings(**values: object) -> tuple[str, ...]:
    return tuple(word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={value}"))


@dataclass(frozen=True, slots=True)
class Job:
    """A command and what must be there before it."""

    name: str
    arguments: tuple[str, ...]
    prepare: Callable[[Path], object]
    #: commands that come first
    before: tuple[tuple[str, ...], ...] = ()
    patterns: tuple[str, ...] = ("**/*",)

    def typed(self, root: Path) -> list[str]:
        return [argument.format(root=root) for argument in self.arguments]


def write_raw(root: Path) -> None:
    write_png(root / "fmseg_raw" / NAME)


def write_trained(root: Path) -> None:
    tiny_run.write_run(root / "fmseg_results" / NAME / "linear__plans" / "fold_0", tiny_run.config())
    write_good(root)


PREPARED = ("plan_and_preprocess", "-d", "501", "-np", "0", "-q")
SHORT = ("--num-workers", "0", "--checkpoint-minutes", "0", *settings(iterations=3, batch_size=2, precision="float32"))
NARROW = settings(architecture__width=16, architecture__depth=2, architecture__num_heads=2)
HEADS = settings(num_prototypes=32, head_hidden=16, head_bottleneck=8)
PRETRAIN = ("pretrain", *SHORT, *NARROW, *HEADS)
TRAIN = ("train", "501", "0", "-r", "linear", *SHORT, *settings(validation_interval=2))
PREDICT = ("predict", "-i", "{root}/in", "-o", "{root}/out", "--overlays")
JOBS = {
    job.name: job
    for job in (
        Job("preprocess", PREPARED, write_raw, patterns=("fmseg_preprocessed/**/*",)),
        Job("predict", PREDICT, write_trained, patterns=("out/**/*",)),
        Job("train", TRAIN, write_raw, (PREPARED, PRETRAIN), LEARNED),
        Job("pretrain", PRETRAIN, write_raw, (PREPARED,), LEARNED),
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
            outcome = typed(whole, job.typed(whole))
            assert outcome.code == 0, outcome.text
            known[name] = (job, base, results(job, whole), outcome.count)
        return known[name]

    return make


def results(job: Job, root: Path) -> dict[str, bytes]:
    """Return what a job leaves behind, byte for byte."""
    found = {key: TIMES.sub(b"", (root / key).read_bytes()) for key in results_of(root, job.patterns)}
    assert found
    return found


def results_of(root: Path, patterns: tuple[str, ...] = ("fmseg_preprocessed/**/*",)) -> set[str]:
    """Return the names of the files that count."""
    paths = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    return {str(path.relative_to(root)) for path in paths if path.name not in NOT_COMPARED}


def disturbed(name: str, ready, tmp_path: Path, points: Collection[int], kinds: Collection[str] = KINDS) -> None:
    """Try faults at some events, run the command again on what each left, and collect what is not as it should be."""
    job, base, wanted, _ = ready(name)
    root, states = tmp_path / "workspace", tmp_path / "states"
    shutil.copytree(base, root)
    wrong, mended = [], {}
    for state in faults(root, job.typed(root), states, points, kinds):
        where = f"{state.kind} at {state.at}, {state.what}"
        if state.outcome is not None and not is_one_line(state.outcome):
            wrong.append(f"{where}: exit code {state.outcome.code}\n{state.outcome.text}")
        if state.folder not in mended:
            again = tmp_path / state.folder / "workspace"
            shutil.copytree(states / state.folder, again)
            mended[state.folder] = difference(job, again, wanted)
            shutil.rmtree(again.parent)
        if mended[state.folder]:
            wrong.append(f"{where}, then again: {mended[state.folder]}")
    assert mended
    assert results(job, root) == wanted, "the sweep itself has disturbed the command"
    assert not wrong, f"{len(wrong)} of {len(points)} points:\n" + "\n\n".join(wrong)


def is_one_line(outcome: Outcome) -> bool:
    """Return whether an error of the disk was told as people can use it, or did not matter."""
    if "Traceback" in outcome.text or "fault of fmseg" in outcome.text:
        return False
    # 5: a prediction that could not be written is named, the others are there
    return outcome.code in (0, 5) or (outcome.code == 4 and outcome.text.count("error:") == 1)


def difference(job: Job, root: Path, wanted: dict[str, bytes]) -> str:
    """Run a job again; return how its result differs from ``wanted``, an empty text where it does not."""
    outcome = typed(root, job.typed(root))
    if outcome.code != 0:
        return f"exit code {outcome.code}\n{outcome.text}"
    found = results(job, root)
    odd = [f"{key} is there" for key in found.keys() - wanted.keys()]
    odd += [f"{key} is missing" for key in wanted.keys() - found.keys()]
    return ", ".join(odd + [f"{key} differs" for key in wanted.keys() & found.keys() if found[key] != wanted[key]])


def test_an_undisturbed_run_is_the_same_twice(ready, tmp_path):
    job, base, wanted, count = ready("preprocess")
    shutil.copytree(base, tmp_path / "workspace")
    outcome = typed(tmp_path / "workspace", job.typed(tmp_path / "workspace"))
    assert outcome.count == count > 20
    assert results(job, tmp_path / "workspace") == wanted


def test_the_faults_are_real(ready, tmp_path):
    """Without this, all other tests here would pass on a disk that never fails."""
    job, base, wanted, _ = ready("preprocess")
    root = tmp_path / "workspace"
    shutil.copytree(base, root)
    met = list(faults(root, job.typed(root), tmp_path / "states", range(16), KINDS))
    assert {state.kind for state in met} == set(KINDS)
    assert {state.kind for state in met if state.outcome and state.outcome.code == 4} == set(ERRORS), met
    left = [results_of(tmp_path / "states" / state.folder) for state in met if state.kind == "kill"]
    assert len({frozenset(names) for names in left}) > 3
    assert all({name for name in names if not name.endswith(".tmp")} < wanted.keys() for names in left)


@pytest.mark.parametrize(("name", "points"), [("preprocess", 5), ("predict", 4), ("train", 3), ("pretrain", 2)])
def test_a_fault_here_and_there_costs_nothing(name, points, ready, tmp_path):
    disturbed(name, ready, tmp_path, sample(ready(name)[3], points))


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_a_fault_anywhere_costs_nothing(name, ready, tmp_path):
    disturbed(name, ready, tmp_path, range(ready(name)[3]))
