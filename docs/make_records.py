"""Write docs/reference/records.md from the records' own classes: python docs/make_records.py.

A record's fields, types and defaults come from pydantic, what they mean from the ``#:`` comments above them.
"""

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fmseg.records import bundle, description, fingerprint, foundation, plans, run, scores, selection
from fmseg.records.record import Part, Record

TARGET = Path(__file__).parent / "reference" / "records.md"

#: file on disk -> its record
FILES: dict[str, type[Part]] = {
    "dataset_fingerprint.json": fingerprint.Fingerprint,
    "cases.jsonl": fingerprint.CaseFacts,
    "plans.json": plans.Plans,
    "run.json of a fold": run.RunConfig,
    "run.json of a pretraining": run.PretrainConfig,
    "foundation.json": foundation.Foundation,
    "scores.json of label maps": scores.Scores,
    "scores.json of classes": scores.ClassificationScores,
    "selection.json": selection.Selection,
    "bundle.json in a .fmseg file": bundle.Bundle,
    "fmseg.json beside exported networks": description.Description,
}

HEAD = """\
# Records

Written by `docs/make_records.py` from the classes in `fmseg/records/`. Every record is a JSON file, or a line of one,
that is checked when it is read: an unknown key, a missing one or a wrong type is refused with its name. Files of older
versions are brought up to date in memory; a key with a default may be absent.

Lengths are in pixels unless a name ends in `_mm`; sizes are (height, width), spacings (z, y, x).
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD, "| file | record | version |", "|---|---|--:|"]
    for name, record in FILES.items():
        version = str(record.VERSION) if issubclass(record, Record) else "-"
        parts.append(f"| `{name}` | {_link(record)} | {version} |")
    parts.append("")
    parts += [section(record) for record in _ordered()]
    return "\n".join(parts)


def section(record: type[BaseModel]) -> str:
    """Return what there is to say about one record or part of one."""
    lines = [f"## {_title(record)}", "", inspect.cleandoc(record.__doc__ or "").replace("``", "`"), ""]
    lines += ["| key | type | meaning | default |", "|---|---|---|---|"]
    meanings = _meanings(record)
    for name, field in record.model_fields.items():
        cells = (f"`{name}`", _type(field.annotation), meanings.get(name, ""), _default(field))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _ordered() -> list[type[BaseModel]]:
    """Return the records that are files, and the parts in them, each once, behind what it is first needed in."""
    found: list[type[BaseModel]] = []
    waiting: list[type[BaseModel]] = list(FILES.values())
    while waiting:
        record = waiting.pop(0)
        if record not in found:
            found.append(record)
            inside = [part for field in record.model_fields.values() for part in _parts(field.annotation)]
            waiting = inside + waiting
    return found


@cache
def _title(record: type[BaseModel]) -> str:
    """Return a record's name; where another one has it too, with the file that it is in."""
    twins = [each for each in _ordered() if each.__name__ == record.__name__]
    return record.__name__ if len(twins) == 1 else f"{record.__name__} of {record.__module__.rpartition('.')[2]}"


def _parts(kind: Any) -> list[type[BaseModel]]:
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        return [kind]
    return [part for each in get_args(kind) for part in _parts(each)]


def _meanings(record: type[BaseModel]) -> dict[str, str]:
    """Return key -> the comment above it, of the record and what it inherits from."""
    found: dict[str, str] = {}
    for parent in reversed(record.__mro__):
        if parent in (Part, Record, BaseModel) or not issubclass(parent, BaseModel):
            continue
        said: list[str] = []
        for line in inspect.getsource(parent).splitlines():
            text = line.strip()
            if text.startswith("#:"):
                said.append(text.removeprefix("#:").strip())
            elif (match := re.match(r"(\w+): ", text)) and said:
                found[match[1]] = " ".join(said).replace("``", "`")
                said = []
            else:
                said = []
    return found


def _type(kind: Any) -> str:
    """Return a type as one reads it, with links to parts."""
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        return _link(kind)
    if kind is type(None):
        return "null"
    arguments = get_args(kind)
    if not arguments:
        return "..." if kind is Ellipsis else f"`{getattr(kind, '__name__', kind)}`"
    origin = getattr(kind, "__origin__", None)
    shown = [f"`{each!r}`" if isinstance(each, str) else _type(each) for each in arguments]
    if origin is dict:
        return f"{shown[0]} -> {shown[1]}"
    if origin is tuple:
        return f"list of {shown[0]}" if shown[-1] == "..." else f"[{', '.join(shown)}]"
    return " or ".join(shown)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "each part's own"
    return "empty" if value in ((), "") else "null" if value is None else f"`{value}`"


def _link(record: type[BaseModel]) -> str:
    return f"[{record.__name__}](#{_title(record).lower().replace(' ', '-')})"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
