"""Write docs/reference/commands.md from the command line itself: python docs/make_commands.py."""

from pathlib import Path
from typing import Any

import typer

import fmseg.cli.commands  # noqa: F401  (registers the commands)
from fmseg.cli.frame import COMMON, app

TARGET = Path(__file__).parent / "reference" / "commands.md"

HEAD = """\
# Commands

Written by `docs/make_commands.py` from the command line itself; `fmseg train --help`, for one, says the same.

A dataset is typed as its number (`501`), its name (`Dataset501_Heads`) or a part of it (`heads`); a fold as `0`,
`fold0` or `all`. Commands and options may be typed with dashes or underscores. Results go to stdout, progress and log
to stderr.

| exit code | means |
|--:|---|
| 0 | done |
| 1 | a fault of fmseg, or a training that broke down |
| 2 | typed wrongly, or an earlier step is missing; the message names it |
| 3 | the data are wrong; the message names file, problem and mend |
| 4 | the machine lacks something: disk, memory, a device, a right |
| 5 | done, but some inputs were skipped and are listed |
| 130, 143 | stopped by Ctrl-C or by the batch system, after a checkpoint |
"""


def commands() -> dict[str, Any]:
    """Return name -> command, in the order of the job."""
    group: Any = typer.main.get_command(app)
    return {name: group.commands[name] for name in group.list_commands(None)}


def page() -> str:
    """Return the whole page."""
    found = commands()
    overview = [(f"[{name}](#{name})", sentence(command)) for name, command in found.items()]
    options = [row(parameter) for parameter in next(iter(found.values())).params if parameter.name in COMMON]
    parts = [
        HEAD,
        table(("command", "does"), overview),
        "## Options of every command\n",
        table(("option", "meaning", "default"), options),
        *(section(name, command) for name, command in found.items()),
    ]
    return "\n".join(parts)


def section(name: str, command: Any) -> str:
    """Return what there is to say about one command."""
    text, example = command.help.split("\n\nExample: ")
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    places = [(p.name if p.required else f"[{p.name}]").upper() for p in arguments]
    own = [row(parameter) for parameter in command.params if parameter.name not in COMMON]
    usage = f"Arguments: {', '.join(f'`{place}`' for place in places)}. " if places else ""
    lines = [f"## {name}\n", f"{text}\n", f"{usage}Example: `{example.strip()}`\n"]
    return "\n".join(lines + ([table(("argument or option", "meaning", "default"), own)] if own else []))


def row(parameter: Any) -> tuple[str, str, str]:
    """Return names, meaning and default of an argument or option."""
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [names[0].upper()]
    meaning = parameter.help or ""
    if parameter.required:
        return listed(names), meaning, "needed"
    shown = "" if parameter.default in (None, False, True) else f"`{parameter.default}`"
    return listed(names), meaning, shown


def listed(names: list[str]) -> str:
    """Return the names of an option."""
    return ", ".join(f"`{name}`" for name in names)


def sentence(command: Any) -> str:
    """Return what a command does."""
    return str(command.help.split("\n\nExample: ")[0].replace("\n", " "))


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
