"""The engine: rules that a field can have, and the check of a message against its table."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress, count, islice, repeat
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from conductor_rpc.exceptions import BatchTooLarge, InvalidRequest, Violation

_MAX_VIOLATIONS = 50
_MOST_TOLD = 100
"""Characters of a value that a violation repeats."""


class Rule(Protocol):
    """What a field must be like."""

    @property
    def required(self) -> bool:
        """Whether the field must be there."""
        ...

    def check(self, value: Any, path: str) -> Sequence[Violation]:
        """Violations of a value that is there. ``path`` leads to it from the message that holds it."""
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
class Content:
    """Bytes."""

    maximum: int
    required: bool = False

    def check(self, value: bytes, path: str) -> Sequence[Violation]:
        """Violations of bytes."""
        return [Violation(path, f"must be at most {self.maximum} bytes")] if len(value) > self.maximum else ()


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a range; never NaN or infinite."""

    minimum: float = 0
    maximum: float = sys.float_info.max
    required: bool = False

    def check(self, value: float, path: str) -> Sequence[Violation]:
        """Violations of a number."""
        if self.minimum <= value <= self.maximum:
            return ()
        if not math.isfinite(value):
            return [Violation(path, "must be a finite number")]
        if value < self.minimum:
            text = "must not be negative" if self.minimum == 0 else f"must be at least {self.minimum}"
            return [Violation(path, text)]
        return [Violation(path, f"must be at most {self.maximum}")]


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
        found = violations(value)
        return [Violation(f"{path}.{v.field}", v.description) for v in found] if found else ()


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
        check, items = self.item.check, value[:]  # a slice is a list, and twice as quick to go through
        found: list[Violation] = []
        for index in compress(count(), map(check, items, repeat(path))):
            found += check(items[index], f"{path}[{index}]")
            if len(found) >= _MAX_VIOLATIONS:  # no more are told
                break
        return found


@dataclass(frozen=True, slots=True)
class Thousands:
    """A list of thousands of messages: each is looked at only where those around it do not hold together."""

    maximum: int
    hold: Callable[[Sequence[Any]], bool]
    """Whether each of some messages keeps all of its rules."""
    required: bool = False

    def check(self, value: Sequence[Any], path: str) -> Sequence[Violation]:
        """Violations of the list and of its items."""
        if len(value) > self.maximum:
            return [Violation(path, f"must hold at most {self.maximum} items")]
        items = list(value)
        found: list[Violation] = []
        waiting = [(0, len(items))]
        while waiting and len(found) < _MAX_VIOLATIONS:
            begin, end = waiting.pop()
            if self.hold(items[begin:end]):
                continue
            if end - begin == 1:
                found += Nested().check(items[begin], f"{path}[{begin}]")
            else:
                middle = (begin + end) // 2
                waiting += [(middle, end), (begin, middle)]
        return found


@dataclass(frozen=True, slots=True)
class Names:
    """A list of texts, none of them empty. There may be thousands: each is looked at only when not all of them hold."""

    maximum: int
    length: int
    """Of each, in characters."""
    once: bool = False
    """None may stand there twice."""
    required: bool = False

    def check(self, value: Any, path: str) -> Sequence[Violation]:
        """Violations of the list and of its items."""
        if len(value) > self.maximum:
            return [Violation(path, f"must hold at most {self.maximum} items")]
        names = list(value)
        all_hold = all(names) and max(map(len, names), default=0) <= self.length and "\0" not in "".join(names)
        if all_hold and not (self.once and len(set(names)) < len(names)):
            return ()
        return list(islice(self._broken(names, path), _MAX_VIOLATIONS))

    def _broken(self, names: Sequence[str], path: str) -> Iterator[Violation]:
        item, seen = Text(self.length), set[str]()
        for index, name in enumerate(names):
            at = f"{path}[{index}]"
            yield from item.check(name, at) if name else [Violation(at, "must not be empty")]
            if self.once and name in seen:
                yield Violation(at, f"stands there twice: {name[:_MOST_TOLD]!r}")
            seen.add(name)


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


_Holds = Callable[[Any], bool]
"""Whether fields of a message hold."""


class _Checks(NamedTuple):
    """A table, as far as it can be worked out beforehand."""

    rules: Mapping[FieldDescriptor, Rule]
    """In the order of the fields."""
    hold: Sequence[_Holds]
    """All true: each field by itself holds. Most messages do, so this is what is quick."""


TABLES: dict[type[Message], Table] = {}
_TOGETHER: dict[type[Message], Together] = {}
_CHECKS: dict[type[Message], _Checks] = {}
_INTEGERS = frozenset({FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32})


def declare(tables: Mapping[type[Message], Table], together: Mapping[type[Message], Together]) -> None:
    """Take the tables of messages into force."""
    TABLES.update(tables)
    _TOGETHER.update(together)
    for message, table in tables.items():
        fields: list[Any] = sorted(
            (message.DESCRIPTOR.fields_by_name[name] for name in table), key=lambda field: field.number
        )
        rules = {field: table[field.name] for field in fields}
        _CHECKS[message] = _Checks(rules, _all_of(message, rules))


def _all_of(message: type[Message], rules: Mapping[Any, Rule]) -> Sequence[_Holds]:
    """What is asked of a message so that all of its fields hold."""
    counts = [field for field, rule in rules.items() if rule == COUNT and field.type in _INTEGERS]
    together = counts if len(counts) > 1 else []
    others = [_one_holds(message(), field, rule) for field, rule in rules.items() if field not in together]
    return [_counts_hold([field.name for field in together]), *others] if together else others


def _one_holds(empty: Message, field: Any, rule: Rule) -> _Holds:
    name, check, required = field.name, rule.check, rule.required

    def holds_or_is_empty(message: Any) -> bool:
        value = getattr(message, name)
        return not check(value, name) if value else not required

    def is_absent_or_holds(message: Any) -> bool:
        return not check(getattr(message, name), name) if message.HasField(name) else not required

    def holds_or_is_absent(message: Any) -> bool:
        if check(getattr(message, name), name):
            return not required and not message.HasField(name)
        return not required or message.HasField(name)

    if not field.has_presence:
        return holds_or_is_empty
    # What is absent reads as zero or empty. Where that would hold, hardly ever has anybody to ask whether it is there.
    return is_absent_or_holds if check(getattr(empty, name), name) else holds_or_is_absent


def _counts_hold(names: Sequence[str]) -> _Holds:
    """Of two or more, read at one go; one that is absent reads as 0."""
    read = attrgetter(*names)
    return lambda message: min(read(message)) >= 0


def counts(message: type[Message], *names: str) -> dict[str, Rule]:
    """The rule of counts for every integer field of a message, and for the fields named."""
    fields = [field.name for field in message.DESCRIPTOR.fields if field.type in _INTEGERS]
    return dict.fromkeys((*fields, *names), COUNT)


def violations(message: Message) -> list[Violation]:
    """Every field that breaks its rule, in the order of the fields, at most 50.

    Raises:
        BatchTooLarge: a batch holds too many items.
    """
    checks = _CHECKS.get(type(message))
    if checks is None:
        return []
    for holds in checks.hold:
        if not holds(message):
            return _broken(message, checks.rules)[:_MAX_VIOLATIONS]
    together = _TOGETHER.get(type(message))
    return list(together(message))[:_MAX_VIOLATIONS] if together is not None else []


def _broken(message: Message, rules: Mapping[FieldDescriptor, Rule]) -> list[Violation]:
    values = dict(message.ListFields())
    found: list[Violation] = []
    for field, rule in rules.items():
        if field in values:
            found.extend(rule.check(values[field], field.name))
        elif rule.required:
            found.append(Violation(field.name, "is required"))
    return found


def validate(message: Message) -> None:
    """Raises:
    InvalidRequest: fields break their rules.
    BatchTooLarge: a batch holds too many items.
    """
    found = violations(message)
    if found:
        raise InvalidRequest(found)
