"""Write the table of floors in docs/architecture.md from the code: python docs/make_architecture.py.

Floors are those of tests/test_layers.py, which enforces them; what a room imports is read from its files.
"""

import ast
import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fmseg"
TARGET = Path(__file__).parent / "architecture.md"
BEGIN, END = "<!-- floors: docs/make_architecture.py -->\n", "<!-- end of floors -->\n"


def table() -> str:
    """Return the table of floors, highest first: each room, what it is, and which rooms it imports."""
    floors: dict[int, set[str]] = _rules().FLOORS
    lines = ["| floor | room | what it is | imports |", "|--:|---|---|---|"]
    for floor in sorted(floors, reverse=True):
        for room in sorted(name for name in floors[floor] if not name.startswith("_")):
            imports = ", ".join(f"`{name}`" for name in _imports(room, floors, floor)) or "-"
            lines.append(
                f"| {floor} | `{room}{'/' if (PACKAGE / room).is_dir() else ''}` | {_meaning(room)} | {imports} |"
            )
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return docs/architecture.md with the table of today."""
    before, _, rest = TARGET.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def _rules() -> Any:
    spec = importlib.util.spec_from_file_location("test_layers", ROOT / "tests" / "test_layers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _imports(room: str, floors: dict[int, set[str]], floor: int) -> list[str]:
    """Return the rooms that a room imports, of its own floor and below it, highest first."""
    floor_of = {name: number for number, names in floors.items() for name in names}
    found = {
        name.split(".")[1]
        for path in _files(room)
        for name in _rules().imported_modules(path)
        if name.split(".")[1] in floor_of
    }
    return sorted(found - {room}, key=lambda name: (-floor_of[name], name))


def _files(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def _meaning(room: str) -> str:
    """Return the first sentence of a room's docstring."""
    path = PACKAGE / room / "__init__.py" if (PACKAGE / room).is_dir() else PACKAGE / f"{room}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").replace("``", "`").rstrip(".").replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
