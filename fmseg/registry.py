"""Name -> thing, for everything that users can add: recipes, decoders, readers, planners, losses.

Registries are filled when their package is imported and only read afterwards. Out-of-tree parts are loaded
with ``load_plugins`` before the first lookup.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar

from fmseg.errors import UnknownName, UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """A dictionary that refuses duplicates and answers unknown names with the nearest one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        """Enter ``item`` under ``name``. Raises UsageError if the name is taken."""
        if name in self._items:
            raise UsageError(f"There is a {self.kind} called '{name}' already. Choose another name.")
        self._items[name] = item
        return item

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters a class or function under ``name``."""
        return lambda item: self.add(name, item)

    def __getitem__(self, name: str) -> T:
        if name not in self._items:
            raise UnknownName(unknown(self.kind, name, self._items))
        return self._items[name]

    def __contains__(self, name: str) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._items)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return a sentence that names the nearest known name and lists all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    there = f" There are: {', '.join(names)}." if names else " There are none."
    return f"No {kind} is called '{name}'.{guess}{there}"


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules that register parts of their own. Raises UsageError if one cannot be imported."""
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(f"The plugin '{name}' is no name of a module. Write it as in 'my_lab.decoders'.")
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f"The plugin '{name}' cannot be imported ({error}). Install it, or run where it lies."
            ) from error
