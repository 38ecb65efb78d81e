import functools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from fmseg.sampling.workers import Workers


def square(number: int, *, deadly: frozenset[int] = frozenset()) -> str:
    if number in deadly:
        os.kill(os.getpid(), signal.SIGSEGV)
    return f"{number * number}"


def dead(number: int) -> str:
    return f"{number} died"


@pytest.mark.parametrize("num_processes", [0, 2])
@pytest.mark.parametrize("num_items", [0, 1, 37])
def test_results_come_in_order(num_processes, num_items):
    workers = Workers(square, dead, num_processes, "fmseg.errors", chunk_size=3)
    assert list(workers.map(range(num_items))) == [str(number**2) for number in range(num_items)]


def test_a_crash_costs_its_case_alone():
    deadly = frozenset({4, 30})
    workers = Workers(functools.partial(square, deadly=deadly), dead, 2, "fmseg.errors", chunk_size=2)
    wanted = [f"{number} died" if number in deadly else str(number**2) for number in range(33)]
    assert list(workers.map(range(33))) == wanted


def test_a_script_that_its_processes_cannot_import_is_told_so():
    """A script without a guard, here one without a file, kills each of them at its start."""
    code = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        from test_workers import *
        list(Workers(square, dead, 2, "fmseg.errors").map(range(50)))
        """
    )
    command = [sys.executable, "-", str(Path(__file__).parent)]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=False)
    assert "EnvironmentProblem" in done.stderr and "__main__" in done.stderr.splitlines()[-1]
    assert done.stderr.count("FileNotFoundError") < 10, "nothing is tried case by case"


def test_the_processes_end_with_a_killed_parent(tmp_path):
    code = textwrap.dedent(
        """
        import os, sys, time
        sys.path.insert(0, sys.argv[1])
        from test_workers import *
        def main():
            for pid in Workers(note_and_wait, dead, 2, "fmseg.errors", chunk_size=1).map([sys.argv[2]] * 20):
                pass
        if __name__ == "__main__":
            main()
        """
    )
    script = tmp_path / "main.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script), str(Path(__file__).parent), str(tmp_path)])
    wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    process.kill()
    process.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def note_and_wait(folder: str) -> str:
    Path(folder, f"{os.getpid()}.pid").touch()
    time.sleep(30)
    return ""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def wait_until(condition) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited for 20 s in vain")
