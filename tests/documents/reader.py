"""Does what a page says, line by line, as a reader would in a terminal.

Commands of fmseg run in this process, which saves each of them some seconds of imports; what else is typed is given to
bash. Servers run beside until the page has come to its end.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from contextlib import chdir
from importlib.metadata import version
from pathlib import Path

from differences import FILES, NOT_RUN, PLACES, SHORTER
from packaging.requirements import Requirement
from pages import ROOT, Block

from fmseg.cli import frame

#: beginning of a line that ends only when it is told to -> what it says once it is ready, perhaps with an address, and
#: what of that must answer
SERVERS = {
    "fmseg view": (re.compile(r"Open (http://\S+)"), ""),
    "fmseg serve": (re.compile(r"(http://127[\d.:]+\d)"), "/health"),
    "dask scheduler": (re.compile(r"Scheduler at:"), ""),
    "dask worker": (re.compile(r"Registered to:"), ""),
}
PATIENCE_S = 120


def is_run(block: Block, line: str) -> bool:
    """Return whether a line is run here."""
    return not any(block.page == each.page and line.startswith(each.line) for each in NOT_RUN)


def written_otherwise(text: str, places: dict[str, str]) -> str:
    """Return a block's text as it is typed here."""
    for pattern, other in PLACES:
        text = pattern.sub(other.format(**places), text)
    return "\n".join(shortened(line) for line in text.splitlines()) + "\n"


def shortened(line: str) -> str:
    """Return a line with the settings behind a command of fmseg that make it short."""
    found = re.match(r"(?:\S*torchrun .*-m |python -m )?fmseg (?:--root \S+ )?(.*)", line)
    added = [words for beginning, words in SHORTER.items() if found and f"{found[1]} ".startswith(f"{beginning} ")]
    if not added:
        return line
    typed, mark, rest = line.partition("  #")
    typed, amp, _ = typed.rstrip().partition(" &")
    return f"{typed} {added[0]}{amp}{mark}{rest}"


def type_line(line: str, folder: Path) -> None:
    """Type one command of fmseg in a folder; it must end well."""
    arguments = shlex.split(line, comments=True)[1:]
    with chdir(folder):
        try:
            frame.main(arguments)
        except SystemExit as left:
            assert left.code == 0, f"exit code {left.code} of: {line}"


class Reader:
    """Someone who follows one page from top to bottom."""

    def __init__(self, folder: Path, places: dict[str, str]) -> None:
        self.folder, self.places = folder, places
        self.place = folder
        self.names: dict[str, object] = {"__name__": "__main__"}
        self.servers: list[tuple[str, subprocess.Popen[str]]] = []
        self.counts: dict[str, int] = {}

    def follow(self, block: Block) -> None:
        """Do what one block says. Raises AssertionError if it does not end well."""
        number = self.counts.get(block.language, 0)
        self.counts[block.language] = number + 1
        text = written_otherwise(block.text, self.places)
        if (block.page, block.language, number) in FILES:
            self._lay_down(text, *FILES[block.page, block.language, number])
        elif block.language == "python":
            with chdir(self.place):
                exec(compile(text, f"{block.page}:{block.line}", "exec"), self.names)
        elif block.language == "bash":
            (self.folder / "script.sh").write_text(text)
            self._give_to_bash("bash script.sh", self.folder)
        elif block.language == "console":
            self._type(block)
        else:
            assert block.language == "text", f"{block.page}:{block.line}: FILES does not say what this is for"

    def leave(self) -> None:
        """End the servers as Ctrl-C does; they must end well."""
        for line, process in reversed(self.servers):
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, f"exit code {process.returncode} of: {line}"

    def end(self) -> None:
        """End what is left of the servers, however they are."""
        for _, process in self.servers:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _lay_down(self, text: str, name: str, check: str | None) -> None:
        path = self.folder / written_otherwise(name, self.places).strip()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(with_other_rows(text, path) if path.suffix == ".csv" and path.exists() else text)
        if check:
            type_line(written_otherwise(check, self.places).strip(), self.folder)

    def _type(self, block: Block) -> None:
        for written in block.lines:
            if not is_run(block, written):
                continue
            line = written_otherwise(written, self.places).strip()
            first, *rest = shlex.split(line, comments=True)
            if first == "cd":
                self.place = self.place / rest[0]
            elif first == "export":
                name, _, value = rest[0].partition("=")
                os.environ[name] = value
            elif first == "pip":
                need_extra(rest[-1])
            elif any(line.startswith(beginning) for beginning in SERVERS):
                self._serve(line)
            elif first == "fmseg" and "--gpus" not in rest:
                type_line(line, self.place)
            else:
                self._give_to_bash(line, self.place)

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def _give_to_bash(self, line: str, place: Path) -> None:
        where = ROOT if "-m pytest" in line else place
        done = subprocess.run(
            ["bash", "-c", line], cwd=where, env=self._environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

    def _serve(self, line: str) -> None:
        """Start a server, and wait until it says that it is there; what says an address must answer at it."""
        said = self.folder / f"server_{len(self.servers)}.txt"
        with open(said, "w") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {line.partition('#')[0]}"],
                cwd=self.place, env=self._environment(), stdout=output, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        self.servers.append((line, process))
        ((ready, path),) = (each for beginning, each in SERVERS.items() if line.startswith(beginning))
        end = time.monotonic() + PATIENCE_S
        while (found := ready.search(said.read_text())) is None:
            assert process.poll() is None and time.monotonic() < end, f"{line}\n{said.read_text()}"
            time.sleep(0.1)
        if found.groups():
            with urllib.request.urlopen(found[1] + path, timeout=PATIENCE_S) as answer:
                assert answer.status == 200


def with_other_rows(text: str, path: Path) -> str:
    """Return a table of a page, and below it the rows of the one that lies there about cases that are not in it."""
    there = path.read_text().splitlines()
    shown = text.splitlines()
    assert shown[0] == there[0], f"{path.name} has other columns"
    cases = {row.partition(",")[0] for row in shown}
    return "\n".join([*shown, *(row for row in there if row.partition(",")[0] not in cases)]) + "\n"


def need_extra(wanted: str) -> None:
    """Check that an extra of fmseg exists, and that what it asks for is here; nothing is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extra,) = Requirement(wanted).extras
    for part in map(Requirement, project["optional-dependencies"][extra]):
        assert part.specifier.contains(version(part.name)), part
