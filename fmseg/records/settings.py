"""``--set key=value``: change single numbers of a plan or recipe, nested ones as ``views.num_locals=8``."""

import json
from typing import Any, TypeVar

from fmseg.errors import UsageError
from fmseg.records.record import Part
from fmseg.registry import unknown

P = TypeVar("P", bound=Part)

#: ends of the names of numbers that are counted in iterations
SCHEDULES = ("_iterations", "validation_interval")


def apply_settings(part: P, settings: dict[str, str]) -> P:
    """Return ``part`` with the settings applied.

    Another number of ``iterations`` stretches the schedules (warm-ups, the interval of validations) along with
    it, unless they are set too. Raises UsageError for a key that is not there, BadRecord for a wrong value.
    """
    planned = part.model_dump()
    for key, text in settings.items():
        part = _changed(part, key, parse_setting(text), f"--set {key}={text}")
    if "iterations" in settings:
        stretched = part.model_dump()["iterations"] / planned["iterations"]
        schedules = [key for key in planned if key.endswith(SCHEDULES) and key not in settings]
        part = part.evolve(**{key: max(round(planned[key] * stretched), 1) for key in schedules})
        # phases have a length of their own, under the same name
        phases = [key for key, value in planned.items() if isinstance(value, dict) and "iterations" in value]
        for key in phases:
            if not any(name == key or name == f"{key}.iterations" for name in settings):
                length = max(round(planned[key]["iterations"] * stretched), 1)
                part = part.evolve(**{key: planned[key] | {"iterations": length}})
    return part


def parse_setting(text: str) -> Any:
    """Return the value of ``key=value``: JSON where it is JSON (numbers, true, [224, 224]), else a string."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _changed(part: P, key: str, value: Any, source: str) -> P:
    first, _, rest = key.partition(".")
    if first not in type(part).model_fields:
        raise UsageError(f"{source}: {unknown('setting', first, type(part).model_fields)}")
    if not rest:
        return part.evolve(**{first: value})
    inner = getattr(part, first)
    if not isinstance(inner, Part):
        raise UsageError(f"{source}: '{first}' is a single value. Type --set {first}=...")
    return part.evolve(**{first: _changed(inner, rest, value, source)})
