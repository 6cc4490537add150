"""Rules of fields: one table per message, declared here, checked by the small engine below.

``violations(message)`` tells every field that breaks its rule; ``validate(message)`` raises. A message without a table
has no rules. Fields that are absent are checked only for being required.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.build.v1.build_context_pb2 import BuildContext, ChangeSet, RepositoryState
from conductor.events.v1.build_pb2 import BuildCompleted, BuildOutcome, BuildQueued
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.events.v1.event_service_pb2 import PublishEventsRequest
from conductor.prediction.v1.build_duration_pb2 import BatchPredictBuildDurationsRequest, PredictBuildDurationRequest
from conductor_rpc.exceptions import BatchTooLarge, InvalidRequest, Violation

_MAX_VIOLATIONS = 50


class Rule(Protocol):
    """What a field must be like."""

    @property
    def required(self) -> bool:
        """Whether the field must be there."""
        ...

    def check(self, value: Any, path: str) -> Iterable[Violation]:
        """Violations of a value that is there."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """Characters; NUL is refused, since no store takes it and no name holds it."""

    maximum: int
    required: bool = False

    def check(self, value: str, path: str) -> Iterable[Violation]:
        """Violations of a text."""
        if len(value) > self.maximum:
            yield Violation(path, f"must be at most {self.maximum} characters")
        if "\0" in value:
            yield Violation(path, "must not contain a NUL character")


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a range; never NaN or infinite."""

    minimum: float = 0
    maximum: float = math.inf
    required: bool = False

    def check(self, value: float, path: str) -> Iterable[Violation]:
        """Violations of a number."""
        if not math.isfinite(value):
            yield Violation(path, "must be a finite number")
        elif value < self.minimum:
            yield Violation(path, "must not be negative" if self.minimum == 0 else f"must be at least {self.minimum}")
        elif value > self.maximum:
            yield Violation(path, f"must be at most {self.maximum}")


@dataclass(frozen=True, slots=True)
class Moment:
    """A Timestamp within the years in which builds happen: what lies outside is a mistake of unit or of clock."""

    required: bool = False
    minimum_seconds: int = 946_684_800  # 2000-01-01
    maximum_seconds: int = 4_102_444_800  # 2100-01-01

    def check(self, value: Timestamp, path: str) -> Iterable[Violation]:
        """Violations of a moment."""
        if not (self.minimum_seconds <= value.seconds < self.maximum_seconds and 0 <= value.nanos < 1_000_000_000):
            yield Violation(path, "must be a time between the years 2000 and 2100")


@dataclass(frozen=True, slots=True)
class Span:
    """A Duration that is not negative and no longer than ten years."""

    required: bool = False
    maximum_seconds: int = 10 * 366 * 86_400

    def check(self, value: Duration, path: str) -> Iterable[Violation]:
        """Violations of a duration."""
        if value.seconds < 0 or value.nanos < 0:
            yield Violation(path, "must not be negative")
        elif value.seconds > self.maximum_seconds or value.nanos > 999_999_999:
            yield Violation(path, "must be a duration of at most ten years")


@dataclass(frozen=True, slots=True)
class Known:
    """A value of an enum that says something: not 0, and known to this release."""

    enum: Any
    required: bool = False

    def check(self, value: int, path: str) -> Iterable[Violation]:
        """Violations of an enum value."""
        if value not in self.enum.values():
            yield Violation(path, "must be a known value")


@dataclass(frozen=True, slots=True)
class Nested:
    """A message with a table of its own."""

    required: bool = False

    def check(self, value: Message, path: str) -> Iterable[Violation]:
        """Violations within the message."""
        return violations(value, path)


@dataclass(frozen=True, slots=True)
class Many:
    """A list with a rule for each item."""

    maximum: int
    item: Rule | None = None
    required: bool = False

    def check(self, value: Any, path: str) -> Iterable[Violation]:
        """Violations of the list and of its items."""
        if len(value) > self.maximum:
            yield Violation(path, f"must hold at most {self.maximum} items")
        elif self.item is not None:
            for index, item in enumerate(value):
                yield from self.item.check(item, f"{path}[{index}]")


@dataclass(frozen=True, slots=True)
class Batch:
    """A list whose items are checked by whoever handles them one by one; too many are refused as BATCH_TOO_LARGE."""

    maximum: int
    required: bool = False

    def check(self, value: Any, path: str) -> Iterable[Violation]:
        """Raises:
        BatchTooLarge: there are too many items.
        """
        if len(value) > self.maximum:
            raise BatchTooLarge(path, len(value), self.maximum)
        return ()


COUNT = Number(minimum=0)
TENANT = Text(128, required=True)
MAX_BATCH_REQUESTS = 1024
MAX_BATCH_EVENTS = 1000


def _counts(message: type[Message], *names: str) -> dict[str, Rule]:
    """The rule of counts for every integer field of a message, and for the fields named."""
    integers = {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32}
    fields = [field.name for field in message.DESCRIPTOR.fields if field.type in integers]
    return dict.fromkeys((*fields, *names), COUNT)


TABLES: Mapping[type[Message], Mapping[str, Rule]] = {
    ChangeSet: {**_counts(ChangeSet), "file_extensions": Many(64, Text(64))},
    RepositoryState: {
        **_counts(RepositoryState, "test_lines_per_thousand"),
        "language": Text(64),
        "build_tool": Text(64),
    },
    BuildContext: {
        "repository": Text(256, required=True),
        "pipeline": Text(256, required=True),
        "branch": Text(256),
        "actor": Text(256),
        "commit_sha": Text(64),
        "queued_time": Moment(),
        "change": Nested(),
        "repository_state": Nested(),
    },
    PredictBuildDurationRequest: {
        "tenant_id": TENANT,
        "build": Nested(required=True),
        "contribution_count": Number(0, 32),
    },
    BatchPredictBuildDurationsRequest: {"tenant_id": TENANT, "requests": Batch(MAX_BATCH_REQUESTS)},
    CloudEvent: {
        "id": Text(256, required=True),
        "source": Text(512, required=True),
        "spec_version": Text(8),
        "type": Text(128, required=True),
        "time": Moment(required=True),
        "tenant_id": TENANT,
        "subject": Text(512),
    },
    PublishEventsRequest: {"tenant_id": TENANT, "events": Batch(MAX_BATCH_EVENTS)},
    BuildQueued: {"build_id": Text(128, required=True), "context": Nested(required=True)},
    BuildCompleted: {
        "build_id": Text(128, required=True),
        "repository": Text(256, required=True),
        "pipeline": Text(256, required=True),
        "branch": Text(256),
        "queued_time": Moment(required=True),
        "completed_time": Moment(required=True),
        "outcome": Known(BuildOutcome, required=True),
        "duration": Span(),
        "waiting_duration": Span(),
        "attempt_count": Number(1),
        "job_count": COUNT,
    },
}


def _queued_time_required(message: BuildQueued) -> Iterator[Violation]:
    if message.HasField("context") and not message.context.HasField("queued_time"):
        yield Violation("context.queued_time", "is required")


def _completed_after_queued(message: BuildCompleted) -> Iterator[Violation]:
    queued, completed = message.queued_time, message.completed_time
    if (completed.seconds, completed.nanos) < (queued.seconds, queued.nanos):
        yield Violation("completed_time", "must not be before queued_time")


def _spec_version(message: CloudEvent) -> Iterator[Violation]:
    if message.spec_version not in {"", "1.0"}:
        yield Violation("spec_version", 'must be "1.0"')


TOGETHER: Mapping[type[Message], Callable[[Any], Iterator[Violation]]] = {
    BuildQueued: _queued_time_required,
    BuildCompleted: _completed_after_queued,
    CloudEvent: _spec_version,
}
"""Rules between the fields of a message."""

_REQUIRED: Mapping[type[Message], tuple[str, ...]] = {
    message: tuple(name for name, rule in table.items() if rule.required) for message, table in TABLES.items()
}


def violations(message: Message, path: str = "") -> list[Violation]:
    """Every field that breaks its rule, at most 50; paths are relative to ``path``.

    Raises:
        BatchTooLarge: a batch holds too many items.
    """
    table = TABLES.get(type(message))
    if table is None:
        return []
    prefix = f"{path}." if path else ""
    found: list[Violation] = []
    present = set()
    for field, value in message.ListFields():
        name = field.name
        present.add(name)
        rule = table.get(name)
        if rule is not None:
            found.extend(rule.check(value, prefix + name))
    found.extend(Violation(prefix + name, "is required") for name in _REQUIRED[type(message)] if name not in present)
    together = TOGETHER.get(type(message))
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
