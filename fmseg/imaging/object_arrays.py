"""Read NumPy files that hold a dictionary of arrays, without unpickling them.

Such a file is a pickle, and loading a pickle may run any code. Here its instructions are only parsed: texts, numbers,
lists, dictionaries and plain arrays of numbers are put together, and anything that names another function is refused.
FASS is published in this form.
"""

import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fmseg.imaging.case import Array, BadFile

MARK = object()
#: what arrays are pickled with -> how it is built here
RECONSTRUCT = re.compile(r"numpy\.(?:_core|core)\.multiarray _reconstruct")
NAMES = ("numpy ndarray", "numpy dtype", "_codecs encode")
MAX_BYTES = 2**30
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
NUMBERS = frozenset(("BININT", "BININT1", "BININT2", "LONG1", "INT", "LONG", "BINFLOAT", "FLOAT"))
TEXTS = frozenset(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"))
BYTES = frozenset(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "SHORT_BINSTRING", "BINSTRING", "STRING"))
IGNORED = frozenset(("PROTO", "FRAME"))
MEND = "Save plain arrays with np.save(..., allow_pickle=False)."


class _Array:
    """An array that is being put together."""

    def __init__(self) -> None:
        self.value: Any = None


class _Type:
    """A type of numbers that is being put together."""

    def __init__(self, name: str) -> None:
        self.dtype = np.dtype(name)


def read_dictionary(path: Path) -> dict[str, Any]:
    """Return the dictionary that np.save wrote as an array of one object: texts to arrays, or to dictionaries.

    Raises BadFile if it holds anything but texts, numbers and plain arrays.
    """
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            _, _, dtype = read(file)
        except ValueError as error:
            raise BadFile(path, "this is no NumPy file", MEND) from error
        content = file.read(MAX_BYTES + 1)
    if dtype != np.dtype(object) or len(content) > MAX_BYTES:
        raise BadFile(path, f"it holds {dtype} in {len(content)} bytes, no dictionary", MEND)
    try:
        found = _settled(_Parser(path).run(content))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise BadFile(path, f"its objects cannot be read ({error})", MEND) from error
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        raise BadFile(path, "it holds no dictionary", MEND)
    return found


class _Parser:
    """Follows the instructions of a pickle on a stack, as far as they only put values together."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        """Return what the pickle describes."""
        for code, argument, _ in pickletools.genops(content):
            if code.name == "STOP":
                return self.stack.pop()
            self._follow(code.name, argument)
        raise ValueError("it has no end")

    def _follow(self, name: str, argument: Any) -> None:
        steps: dict[str, Callable[[], None]] = {
            "MARK": lambda: self.stack.append(MARK),
            "EMPTY_TUPLE": lambda: self.stack.append(()),
            "EMPTY_LIST": lambda: self.stack.append([]),
            "EMPTY_DICT": lambda: self.stack.append({}),
            "TUPLE": lambda: self.stack.append(tuple(self._since_mark())),
            "LIST": lambda: self.stack.append(self._since_mark()),
            "APPEND": lambda: self.stack[-2].append(self.stack.pop()),
            "APPENDS": lambda: self._extend(),
            "SETITEM": lambda: self._set([self.stack.pop(-2), self.stack.pop()]),
            "SETITEMS": lambda: self._set(self._since_mark()),
            "DICT": lambda: self._new_dictionary(),
            "MEMOIZE": lambda: self.memory.update({len(self.memory): self.stack[-1]}),
            "GLOBAL": lambda: self._name(str(argument)),
            "STACK_GLOBAL": lambda: self._name(f"{self.stack.pop(-2)} {self.stack.pop()}"),
            "REDUCE": lambda: self._reduce(self.stack.pop(), self.stack.pop()),
            "BUILD": lambda: self._build(self.stack.pop()),
        }
        if name in IGNORED:
            return
        if name in NUMBERS | TEXTS | BYTES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memory[int(argument)])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memory[int(argument)] = self.stack[-1]
        elif name in steps:
            steps[name]()
        else:
            raise BadFile(self.path, f"it holds the instruction {name}, which no plain data needs", MEND)

    def _since_mark(self) -> list[Any]:
        place = len(self.stack) - 1 - self.stack[::-1].index(MARK)
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def _extend(self) -> None:
        items = self._since_mark()
        self.stack[-1].extend(items)

    def _new_dictionary(self) -> None:
        items = self._since_mark()
        self.stack.append({})
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _name(self, name: str) -> None:
        if name not in NAMES and not RECONSTRUCT.fullmatch(name):
            problem = f"it asks for '{name[:80]}', which could run code"
            raise BadFile(self.path, problem, "Do not open it with other programs either, unless you trust its author.")
        self.stack.append(name)

    def _reduce(self, arguments: tuple[Any, ...], name: Any) -> None:
        if RECONSTRUCT.fullmatch(str(name)):
            self.stack.append(_Array())
        elif name == "numpy dtype":
            if not re.fullmatch(r"[biuf]\d+|O8", str(arguments[0])):
                raise BadFile(self.path, f"it holds numbers of type {str(arguments[0])[:20]!r}", MEND)
            self.stack.append(_Type(str(arguments[0])))
        elif name == "_codecs encode":
            self.stack.append(str(arguments[0]).encode("latin-1"))
        else:
            raise ValueError("it calls what is no function")

    def _build(self, state: tuple[Any, ...]) -> None:
        target = self.stack[-1]
        if isinstance(target, _Type):
            if state[1] in ("<", ">"):
                target.dtype = target.dtype.newbyteorder(state[1])
            return
        _, shape, kind, is_fortran, data = state
        if isinstance(data, list):
            target.value = data
            return
        data = data.encode("latin-1") if isinstance(data, str) else data
        values = np.frombuffer(data, kind.dtype)
        values = values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)
        target.value = values.astype(kind.dtype.newbyteorder("="))


def _settled(value: Any) -> Any:
    """Return a value with its arrays in place."""
    if isinstance(value, _Array):
        return _settled(value.value)
    if isinstance(value, dict):
        return {_settled(key): _settled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_settled(item) for item in value]
    return value


def array_of(path: Path, value: Any, name: str) -> Array:
    """Return a value of the dictionary as a 2D array. Raises BadFile if it is none."""
    if not isinstance(value, np.ndarray) or value.ndim != 2:
        raise BadFile(path, f"'{name}' in it is no 2D array", MEND)
    return value
