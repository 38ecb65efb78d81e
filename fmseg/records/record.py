"""The parent of all records: frozen, strict, versioned JSON.

Nothing in a record says "auto": the planner resolves every choice to a number. Sequences are tuples, since
``frozen`` does not freeze a list.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python

from fmseg.errors import BadRecord
from fmseg.files import read_json, sha256, to_json, write_bytes
from fmseg.registry import unknown


class Part(BaseModel):
    """A piece of a record: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with some values changed, validated. Raises BadRecord naming a wrong key or value."""
        return self.parse(self.model_dump(mode="json") | to_jsonable_python(changes), type(self).__name__)

    @classmethod
    def parse(cls, value: Any, source: str) -> Self:
        """Validate a JSON value. Raises BadRecord that names ``source`` and each wrong key."""
        try:
            # JSON mode, since strict Python mode refuses lists where tuples are meant
            return cls.model_validate_json(json.dumps(value))
        except ValidationError as error:
            raise BadRecord(f"{source}: {explain_validation(error, cls)}") from error

    def digest(self) -> str:
        """Return the SHA-256 of the content, the same on every machine."""
        return sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode())


class Record(Part):
    """A part that is a file of its own, with a version and migrations from older ones."""

    VERSION: ClassVar[int] = 1
    #: version -> function from that version's dict to the next one's; never edited once released
    MIGRATIONS: ClassVar[dict[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}

    def save(self, path: Path) -> None:
        """Write the record atomically, its version first."""
        write_bytes(path, self.content())

    def content(self) -> bytes:
        """Return the file's bytes."""
        return to_json({"version": self.VERSION, **self.model_dump(mode="json")})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read, migrate and validate. Raises BadRecord naming file and key."""
        return cls.read(read_json(path), str(path))

    @classmethod
    def read(cls, value: Any, source: str) -> Self:
        """Migrate and validate the JSON value of a file. Raises BadRecord naming ``source`` and key."""
        if not isinstance(value, dict) or not isinstance(value.get("version"), int) or value["version"] < 1:
            raise BadRecord(f"{source}: there is no 'version' in it, so this is not a {cls.__name__} of fmseg.")
        value = dict(value)
        version = value.pop("version")
        if version > cls.VERSION:
            raise BadRecord(
                f"{source}: written by a newer fmseg (version {version}; this one knows {cls.VERSION}). Update fmseg."
            )
        while version < cls.VERSION:
            value = cls.MIGRATIONS[version](value)
            version += 1
        return cls.parse(value, source)


def explain_validation(error: ValidationError, cls: type[BaseModel]) -> str:
    """Return pydantic's findings as one sentence a key."""
    sentences = []
    for finding in error.errors():
        key = ".".join(str(part) for part in finding["loc"])
        if finding["type"] == "extra_forbidden":
            sentences.append(unknown("key", key, cls.model_fields))
        elif finding["type"] == "missing":
            sentences.append(f"the key '{key}' is missing.")
        elif finding["type"] == "value_error" and not key:  # of values that do not fit together
            sentences.append(f"{finding['msg'].removeprefix('Value error, ')}.")
        else:
            sentences.append(f"'{key}' is {str(finding['input'])[:80]!r}: {finding['msg'].lower()}.")
    return " ".join(sentences)


def differing(one: Part, other: Part) -> list[str]:
    """Return the names of the values in which two parts of a kind differ, with single values themselves."""
    found = []
    # not of a dump, which leaves some defaults out
    for key in type(one).model_fields:
        first, second = getattr(one, key), getattr(other, key)
        if first != second:
            is_single = isinstance(first, int | float | str) and isinstance(second, int | float | str)
            found.append(f"{key} {first}, now {second}" if is_single else key)
    return found
