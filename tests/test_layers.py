"""Imports run downwards: the table of docs/architecture.md, enforced."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "fmseg"
FLOORS = {
    1: {"workspace", "registry", "console", "files", "errors", "_version", "archive"},
    2: {"records"},
    3: {"imaging", "networks"},
    4: {"planning", "sampling", "tasks", "learning", "inference", "reporting"},
    5: {"stages"},
    6: {"cli", "api", "predictor", "__main__", "__init__"},
}
#: stages that only measure, plan and show: torch takes seconds to import
WITHOUT_TORCH = (
    "compare",
    "convert",
    "doctor",
    "explain",
    "fingerprint",
    "listing",
    "plan",
    "preprocess",
    "report",
    "view",
)
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def imported_modules(path: Path) -> list[str]:
    """All absolute imports of a file, hidden inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.startswith("fmseg.")]


def violation(source: list[str], target: list[str]) -> bool:
    """Whether ``source`` may not import ``target``; both are module paths below fmseg."""
    room, other = source[0], target[0]
    if other not in FLOOR_OF:
        return False  # a name of fmseg/__init__, such as __version__
    if room == other:
        return room == "stages" and len(source) > 1 and len(target) > 1 and source[1] != target[1]
    if FLOOR_OF[room] == FLOOR_OF[other]:
        return FLOOR_OF[room] not in (1, 6)
    return FLOOR_OF[room] < FLOOR_OF[other]


def test_every_room_has_a_floor():
    rooms = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    assert rooms - {"py", "__pycache__"} <= set(FLOOR_OF)


def test_imports_run_downwards():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        source = list(path.relative_to(PACKAGE).with_suffix("").parts)
        for name in imported_modules(path):
            if violation(source, name.split(".")[1:]):
                wrong.append(f"{'/'.join(source)}.py -> {name}")
    assert not wrong, wrong


def test_the_rule_catches_upward_sideways_and_stage_to_stage_imports():
    assert violation(["records", "plans"], ["imaging", "case"])
    assert violation(["imaging", "case"], ["networks", "vit"])
    assert violation(["stages", "train"], ["stages", "plan"])
    assert not violation(["stages", "train"], ["learning", "loop"])
    assert not violation(["imaging", "case"], ["imaging", "readers"])


def test_what_shows_and_prepares_imports_no_torch():
    modules = ", ".join(f"fmseg.stages.{name}" for name in WITHOUT_TORCH)
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
