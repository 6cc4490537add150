"""What is looked at of each type of event: a table of fields, each with its unit and its plausible range.

The range is what is believable, not what is allowed: beyond it a value is counted, and told of when there are many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from conductor.build.v1.build_context_pb2 import BuildTrigger
from conductor.events.v1.build_pb2 import BuildOutcome
from conductor.events.v1.deployment_pb2 import DeploymentOutcome
from conductor.events.v1.incident_pb2 import IncidentSeverity
from conductor.events.v1.quality_pb2 import QualityGateStatus
from conductor.events.v1.test_pb2 import TestOutcome
from conductor_warehouse import events as catalogue

_NAN = math.nan
_DAY = 86_400.0
_MAXIMUM_ITEMS = 2_000
"""Items of one batch that are looked at, evenly spread: a run holds thousands of test results."""

Messages = Sequence[Any]
Read = Callable[[Messages], list[Any]]
"""Reads a field of many messages at once: a float each (NaN where it is not told), a name, or whether it is told."""


class Kind(StrEnum):
    """What a field's values are."""

    NUMBER = "number"
    CATEGORY = "category"
    PRESENCE = "presence"
    """Names, texts and parts: only whether they are told matters."""


@dataclass(frozen=True)
class Field:
    """A field that is profiled."""

    name: str
    kind: Kind
    read: Read
    unit: str = ""
    """Of a number: "s", "bytes", "1" for counts and ratios."""
    lower: float = -math.inf
    upper: float = math.inf
    """The plausible range of a number, both included."""
    essential: bool = False
    """Features and models are nothing without it: a batch in which it collapses may be parked."""


@dataclass(frozen=True)
class Spec:
    """What is looked at of one type of event."""

    time: Callable[[Any], Any]
    """The moment that the message tells of, as a Timestamp."""
    fields: tuple[Field, ...]


def items(messages: Messages, name: str) -> list[Any]:
    """Items of a repeated field of all the messages, a sample of at most 2,000 that is the same each time."""
    counts = [len(getattr(message, name)) for message in messages]
    step = max(1, math.ceil(sum(counts) / _MAXIMUM_ITEMS))
    sample: list[Any] = []
    offset = 0
    for message, count in zip(messages, counts, strict=True):
        sample += getattr(message, name)[offset:count:step]
        offset = offset - count if offset >= count else (offset - count) % step
    return sample


def _span(name: str, within: str = "") -> Read:
    def read(messages: Messages) -> list[float]:
        values = []
        for message in items(messages, within) if within else messages:
            if message.HasField(name):
                span = getattr(message, name)
                values.append(span.seconds + span.nanos / 1e9)
            else:
                values.append(_NAN)
        return values

    return read


def _number(name: str, within: str = "") -> Read:
    def read(messages: Messages) -> list[float]:
        parts = [getattr(message, within) for message in messages] if within else messages
        return [float(getattr(part, name)) if part.HasField(name) else _NAN for part in parts]

    return read


def _count(name: str) -> Read:
    return lambda messages: [float(len(getattr(message, name))) for message in messages]


def _between(first: str, last: str) -> Read:
    def read(messages: Messages) -> list[float]:
        values = []
        for message in messages:
            if message.HasField(first):
                one, other = getattr(message, first), getattr(message, last)
                values.append(other.seconds - one.seconds + (other.nanos - one.nanos) / 1e9)
            else:
                values.append(_NAN)
        return values

    return read


def _issues(messages: Messages) -> list[float]:
    return [
        float(sum(value for _, value in message.issues.ListFields())) if message.HasField("issues") else _NAN
        for message in messages
    ]


def _told(name: str, within: str = "") -> Read:
    """Whether a text or a list is not empty."""

    def read(messages: Messages) -> list[bool]:
        parts = [getattr(message, within) for message in messages] if within else messages
        return [bool(getattr(part, name)) for part in parts]

    return read


def _has(name: str, within: str = "") -> Read:
    """Whether a message within is there."""

    def read(messages: Messages) -> list[bool]:
        parts = [getattr(message, within) for message in messages] if within else messages
        return [part.HasField(name) for part in parts]

    return read


def _name(name: str, values: Any, prefix: str, within: str = "", items_of: str = "") -> Read:
    names = {number: text.removeprefix(prefix) for text, number in values.items()}

    def read(messages: Messages) -> list[str]:
        parts: Messages = items(messages, items_of) if items_of else messages
        if within:
            parts = [getattr(part, within) for part in parts]
        return [names.get(getattr(part, name), "UNKNOWN") for part in parts]

    return read


def _duration(name: str, read: Read, upper: float = 7 * _DAY, *, essential: bool = False) -> Field:
    return Field(name, Kind.NUMBER, read, "s", 0.0, upper, essential)


def _quantity(name: str, read: Read, upper: float = 1e9, unit: str = "1") -> Field:
    return Field(name, Kind.NUMBER, read, unit, 0.0, upper)


def _presence(*names: str) -> tuple[Field, ...]:
    return tuple(Field(name, Kind.PRESENCE, _told(name)) for name in names)


def _category(name: str, read: Read) -> Field:
    return Field(name, Kind.CATEGORY, read)


SPECS: Mapping[str, Spec] = {
    catalogue.TENANT_CREATED: Spec(lambda data: data.created_time, _presence("display_name", "plan")),
    catalogue.BUILD_QUEUED: Spec(
        lambda data: data.context.queued_time,
        (
            _category("trigger", _name("trigger", BuildTrigger, "BUILD_TRIGGER_", "context")),
            Field("branch", Kind.PRESENCE, _told("branch", "context")),
            Field("actor", Kind.PRESENCE, _told("actor", "context")),
            Field("commit_sha", Kind.PRESENCE, _told("commit_sha", "context")),
            Field("change", Kind.PRESENCE, _has("change", "context")),
            Field("repository_state", Kind.PRESENCE, _has("repository_state", "context")),
            *(
                _quantity(name, lambda messages, name=name: _number(name, "change")([m.context for m in messages]), 1e7)  # type: ignore[misc]
                for name in ("added_line_count", "deleted_line_count", "modified_file_count")
            ),
        ),
    ),
    catalogue.BUILD_COMPLETED: Spec(
        lambda data: data.completed_time,
        (
            _duration("duration", _span("duration"), essential=True),
            _duration("waiting_duration", _span("waiting_duration"), 30 * _DAY),
            _quantity("attempt_count", _number("attempt_count"), 100),
            _quantity("job_count", _number("job_count"), 10_000),
            _category("outcome", _name("outcome", BuildOutcome, "BUILD_OUTCOME_")),
            *_presence("branch"),
        ),
    ),
    catalogue.TEST_COMPLETED: Spec(
        lambda data: data.completed_time,
        (
            _quantity("result_count", _count("results"), 50_000),
            _duration("result_duration", _span("duration", "results"), _DAY, essential=True),
            _category("result_outcome", _name("outcome", TestOutcome, "TEST_OUTCOME_", items_of="results")),
            _duration("run_duration", _between("started_time", "completed_time"), 2 * _DAY),
            *_presence("changed_paths", "pipeline", "branch", "commit_sha", "build_id"),
        ),
    ),
    catalogue.TEST_QUARANTINED: Spec(lambda data: data.quarantined_time, _presence("reason")),
    catalogue.TEST_RELEASED: Spec(lambda data: data.released_time, _presence("reason")),
    catalogue.QUALITY_GATE_EVALUATED: Spec(
        lambda data: data.evaluated_time,
        (
            _quantity("coverage_ratio", _number("coverage_ratio"), 1.0),
            _quantity("score_count", _count("scores"), 256),
            _quantity("issue_count", _issues, 1e7),
            _category("status", _name("status", QualityGateStatus, "QUALITY_GATE_STATUS_")),
            *_presence("commit_sha", "build_id", "conditions"),
        ),
    ),
    catalogue.USAGE_UPDATED: Spec(
        lambda data: data.measured_time,
        (
            _quantity("build_count", _number("build_count")),
            _quantity("stored_bytes", _number("stored_bytes"), 1e18, "bytes"),
            _quantity("user_count", _number("user_count")),
            _quantity("webhook_count", _number("webhook_count")),
        ),
    ),
    catalogue.DEPLOYMENT_COMPLETED: Spec(
        lambda data: data.completed_time,
        (
            _duration("deployment_duration", _between("started_time", "completed_time")),
            _category("outcome", _name("outcome", DeploymentOutcome, "DEPLOYMENT_OUTCOME_")),
            *_presence("commit_sha", "build_id"),
        ),
    ),
    catalogue.INCIDENT_OPENED: Spec(
        lambda data: data.opened_time,
        (
            _category("severity", _name("severity", IncidentSeverity, "INCIDENT_SEVERITY_")),
            *_presence("repository", "environment", "deployment_id"),
        ),
    ),
    catalogue.INCIDENT_RESOLVED: Spec(lambda data: data.resolved_time, _presence("deployment_id")),
    catalogue.CHANGE_REQUEST_MERGED: Spec(
        lambda data: data.merged_time,
        (
            _duration("open_duration", _between("opened_time", "merged_time"), 3650 * _DAY),
            _quantity("commit_count", _number("commit_count"), 1e5),
            _quantity("review_count", _number("review_count"), 1e5),
            _quantity("comment_count", _number("comment_count"), 1e5),
            Field("change", Kind.PRESENCE, _has("change")),
            *_presence("target_branch", "author", "merge_commit_sha"),
        ),
    ),
}
"""What is looked at, by the type of event."""
