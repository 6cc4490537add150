"""The engine: rules that a field can have, and the check of a message against its table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from conductor_rpc.exceptions import BatchTooLarge, InvalidRequest, Violation

_MAX_VIOLATIONS = 50


class Rule(Protocol):
    """What a field must be like."""

    @property
    def required(self) -> bool:
        """Whether the field must be there."""
        ...

    def check(self, value: Any, path: str) -> Sequence[Violation]:
        """Violations of a value that is there."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """Characters; NUL is refused, since no store takes it and no name holds it."""

    maximum: int
    required: bool = False

    def check(self, value: str, path: str) -> Sequence[Violation]:
        """Violations of a text."""
        if len(value) <= self.maximum and "\0" not in value:
            return ()
        found = []
        if len(value) > self.maximum:
            found.append(Violation(path, f"must be at most {self.maximum} characters"))
        if "\0" in value:
            found.append(Violation(path, "must not contain a NUL character"))
        return found


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a range; never NaN or infinite."""

    minimum: float = 0
    maximum: float = math.inf
    required: bool = False

    def check(self, value: float, path: str) -> Sequence[Violation]:
        """Violations of a number."""
        if not math.isfinite(value):
            return [Violation(path, "must be a finite number")]
        if value < self.minimum:
            text = "must not be negative" if self.minimum == 0 else f"must be at least {self.minimum}"
            return [Violation(path, text)]
        if value > self.maximum:
            return [Violation(path, f"must be at most {self.maximum}")]
        return ()


@dataclass(frozen=True, slots=True)
class Moment:
    """A Timestamp within the years in which builds happen: what lies outside is a mistake of unit or of clock."""

    required: bool = False
    minimum_seconds: int = 946_684_800  # 2000-01-01
    maximum_seconds: int = 4_102_444_800  # 2100-01-01

    def check(self, value: Timestamp, path: str) -> Sequence[Violation]:
        """Violations of a moment."""
        if not (self.minimum_seconds <= value.seconds < self.maximum_seconds and 0 <= value.nanos < 1_000_000_000):
            return [Violation(path, "must be a time between the years 2000 and 2100")]
        return ()


@dataclass(frozen=True, slots=True)
class Span:
    """A Duration that is not negative and no longer than ten years."""

    required: bool = False
    maximum_seconds: int = 10 * 366 * 86_400

    def check(self, value: Duration, path: str) -> Sequence[Violation]:
        """Violations of a duration."""
        if value.seconds < 0 or value.nanos < 0:
            return [Violation(path, "must not be negative")]
        if value.seconds > self.maximum_seconds or value.nanos > 999_999_999:
            return [Violation(path, "must be a duration of at most ten years")]
        return ()


@dataclass(frozen=True, slots=True)
class Known:
    """A value of an enum that says something: not 0, and known to this release."""

    enum: Any
    required: bool = False

    def check(self, value: int, path: str) -> Sequence[Violation]:
        """Violations of an enum value."""
        return () if value in _numbers(self.enum) else [Violation(path, "must be a known value")]


@dataclass(frozen=True, slots=True)
class Nested:
    """A message with a table of its own."""

    required: bool = False

    def check(self, value: Message, path: str) -> Sequence[Violation]:
        """Violations within the message."""
        return violations(value, path)


@dataclass(frozen=True, slots=True)
class Many:
    """A list with a rule for each item."""

    maximum: int
    item: Rule | None = None
    required: bool = False

    def check(self, value: Any, path: str) -> Sequence[Violation]:
        """Violations of the list and of its items."""
        if len(value) > self.maximum:
            return [Violation(path, f"must hold at most {self.maximum} items")]
        if self.item is None:
            return ()
        return [found for index, item in enumerate(value) for found in self.item.check(item, f"{path}[{index}]")]


@dataclass(frozen=True, slots=True)
class Batch:
    """A list whose items are checked by whoever handles them one by one; too many are refused as BATCH_TOO_LARGE."""

    maximum: int
    required: bool = False

    def check(self, value: Any, path: str) -> Sequence[Violation]:
        """Raises:
        BatchTooLarge: there are too many items.
        """
        if len(value) > self.maximum:
            raise BatchTooLarge(path, len(value), self.maximum)
        return ()


@lru_cache(maxsize=256)
def _numbers(enum: Any) -> frozenset[int]:
    return frozenset(enum.values())


COUNT = Number(minimum=0)
TENANT = Text(128, required=True)

Table = Mapping[str, Rule]
"""The rules of a message's fields."""
Together = Callable[[Any], Iterator[Violation]]
"""A rule between the fields of a message, checked when each field by itself holds."""


class _Check(NamedTuple):
    """A line of a table, as far as it can be worked out beforehand."""

    name: str
    rule: Rule
    has_presence: bool
    """Whether the field knows if it is set; else it is there when it is not its default."""


TABLES: dict[type[Message], Table] = {}
_TOGETHER: dict[type[Message], Together] = {}
_CHECKS: dict[type[Message], tuple[_Check, ...]] = {}


def declare(tables: Mapping[type[Message], Table], together: Mapping[type[Message], Together]) -> None:
    """Take the tables of messages into force."""
    TABLES.update(tables)
    _TOGETHER.update(together)
    for message, table in tables.items():
        # In the order of the fields, whatever the table's.
        fields = sorted((message.DESCRIPTOR.fields_by_name[name] for name in table), key=lambda field: field.number)
        _CHECKS[message] = tuple(_Check(field.name, table[field.name], field.has_presence) for field in fields)


def counts(message: type[Message], *names: str) -> dict[str, Rule]:
    """The rule of counts for every integer field of a message, and for the fields named."""
    integers = {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32}
    fields = [field.name for field in message.DESCRIPTOR.fields if field.type in integers]
    return dict.fromkeys((*fields, *names), COUNT)


def violations(message: Message, path: str = "") -> list[Violation]:
    """Every field that breaks its rule, at most 50; paths are relative to ``path``.

    Raises:
        BatchTooLarge: a batch holds too many items.
    """
    checks = _CHECKS.get(type(message))
    if checks is None:
        return []
    prefix = f"{path}." if path else ""
    found: list[Violation] = []
    for name, rule, has_presence in checks:
        if has_presence:
            value = getattr(message, name) if message.HasField(name) else None
        else:
            value = getattr(message, name) or None
        if value is None:
            if rule.required:
                found.append(Violation(prefix + name, "is required"))
        elif broken := rule.check(value, prefix + name):
            found.extend(broken)
    together = _TOGETHER.get(type(message))
    if together is not None and not found:
        found.extend(Violation(prefix + v.field, v.description) for v in together(message))
    return found[:_MAX_VIOLATIONS]


def validate(message: Message) -> None:
    """Raises:
    InvalidRequest: fields break their rules.
    BatchTooLarge: a batch holds too many items.
    """
    found = violations(message)
    if found:
        raise InvalidRequest(found)
