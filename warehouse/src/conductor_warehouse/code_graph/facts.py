"""What one file says of itself, by its contents alone: kept by the contents' digest, so that it is read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

FACTS_VERSION = 1
"""Raised when files are to be read anew, because other things are read from them."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A function, class or the like, however deep inside others."""

    name: str
    """With what it is inside of: ``Cart.total``."""
    kind: str
    first_line: int
    last_line: int


@dataclass(frozen=True, slots=True)
class Unit:
    """A definition at the file's top level: what other files can name."""

    name: str
    first_line: int
    last_line: int
    references: tuple[str, ...]
    """Names that its code mentions, which may be of this file or of another; ``module.name`` for a module's."""


@dataclass(frozen=True, slots=True)
class Import:
    """A name that a file takes from elsewhere."""

    specifier: str
    """Where from, as the language writes it: ``..pkg.module``, ``./module``, ``com.acme``, ``example.org/pkg``."""
    name: str
    """What: a name, ``*`` for all names, or nothing for the module itself."""
    binding: str
    """What it is called here; empty where it is not called anything."""
    exported: bool = False
    """Whether others may take it from here, by the name of the binding."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """All that is read from a file."""

    package: str = ""
    """What it says its package is, in Java and Go."""
    units: tuple[Unit, ...] = ()
    definitions: tuple[Definition, ...] = ()
    imports: tuple[Import, ...] = ()
    references: tuple[str, ...] = ()
    """Names that code outside of all units mentions."""
    tests: tuple[str, ...] = ()
    """Names of definitions that a test runner would run."""
    syntax_errors: bool = False
    """Some of it could not be parsed; the rest was read."""
    problem: str = ""
    """Why nothing was read."""

    def to_json(self) -> bytes:
        """As it is stored."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> FileFacts:
        """What :meth:`to_json` made."""
        facts: FileFacts = _from(cls, orjson.loads(data))
        return facts


_PARTS: dict[str, Any] = {"units": Unit, "definitions": Definition, "imports": Import}


def _from(kind: Any, record: dict[str, Any]) -> Any:
    return kind(**{name: _value(name, value) for name, value in record.items()})


def _value(name: str, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return tuple(_from(_PARTS[name], one) for one in value) if name in _PARTS else tuple(value)
