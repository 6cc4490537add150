"""Events as they come in, and what reading makes of them: an :class:`Event`, or a :class:`Rejected` one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.events.v1.build_pb2 import BuildCompleted, BuildQueued
from conductor.events.v1.change_request_pb2 import ChangeRequestMerged
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.events.v1.deployment_pb2 import DeploymentCompleted
from conductor.events.v1.incident_pb2 import IncidentOpened, IncidentResolved
from conductor.events.v1.quality_pb2 import QualityGateEvaluated
from conductor.events.v1.tenant_pb2 import TenantCreated
from conductor.events.v1.test_pb2 import TestCompleted
from conductor.events.v1.test_quarantine_pb2 import TestQuarantined, TestReleased
from conductor.events.v1.usage_pb2 import UsageUpdated
from conductor_rpc import rules
from conductor_rpc.exceptions import Violation
from conductor_warehouse import cdevents, event_bounds, json_form
from conductor_warehouse.times import to_microseconds

BUILD_QUEUED = "build.queued"
BUILD_COMPLETED = "build.completed"
TENANT_CREATED = "tenant.created"
TEST_COMPLETED = "test.completed"
TEST_QUARANTINED = "test.quarantined"
TEST_RELEASED = "test.released"
QUALITY_GATE_EVALUATED = "quality_gate.evaluated"
USAGE_UPDATED = "usage.updated"
DEPLOYMENT_COMPLETED = "deployment.completed"
INCIDENT_OPENED = "incident.opened"
INCIDENT_RESOLVED = "incident.resolved"
CHANGE_REQUEST_MERGED = "change_request.merged"
EVENT_TYPES: Mapping[str, type[Message]] = {
    TENANT_CREATED: TenantCreated,
    BUILD_QUEUED: BuildQueued,
    BUILD_COMPLETED: BuildCompleted,
    TEST_COMPLETED: TestCompleted,
    TEST_QUARANTINED: TestQuarantined,
    TEST_RELEASED: TestReleased,
    QUALITY_GATE_EVALUATED: QualityGateEvaluated,
    USAGE_UPDATED: UsageUpdated,
    DEPLOYMENT_COMPLETED: DeploymentCompleted,
    INCIDENT_OPENED: IncidentOpened,
    INCIDENT_RESOLVED: IncidentResolved,
    CHANGE_REQUEST_MERGED: ChangeRequestMerged,
}
"""The message that each type of event carries."""
_TYPES: Mapping[type[Message], str] = {message: name for name, message in EVENT_TYPES.items()}

MAXIMUM_EVENT_BYTES = 1 << 20
"""Largest event taken, in its JSON or its binary form."""
MAXIMUM_TEST_EVENT_BYTES = 16 << 20
"""Largest ``test.completed``, which holds the results of all tests of a run."""
FUTURE_TOLERANCE = timedelta(days=1)
"""An event from further ahead comes from a broken clock. Its features would hide all real ones until that time."""

_LAST_TIMES: Mapping[type[Message], str] = {
    TenantCreated: "created_time",
    BuildCompleted: "completed_time",
    TestCompleted: "completed_time",
    TestQuarantined: "quarantined_time",
    TestReleased: "released_time",
    QualityGateEvaluated: "evaluated_time",
    UsageUpdated: "measured_time",
    DeploymentCompleted: "completed_time",
    IncidentOpened: "opened_time",
    IncidentResolved: "resolved_time",
    ChangeRequestMerged: "merged_time",
}
"""The latest moment that each message tells of."""
_KEPT_BYTES = 4096
"""How much of an event that is too large is kept in its dead letter."""
_MAXIMUM_REASON = 500
_ATTRIBUTES = {
    "tenantid": "tenant_id",
    "source": "source",
    "id": "id",
    "specversion": "spec_version",
    "type": "type",
    "subject": "subject",
}
"""Attributes of the JSON form and the envelope's fields, in the order in which they are read."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROUNDING = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Event:
    """An event that holds to its rules."""

    tenant_id: str
    source: str
    event_id: str
    type: str
    time: datetime
    """When it happened, in UTC, cut to microseconds."""
    subject: str
    data: Any
    """The message of :data:`EVENT_TYPES` that ``type`` names."""

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes two events the same one."""
        return (self.tenant_id, self.source, self.event_id)

    @property
    def rank(self) -> list[str]:
        """Orders events that tell of the same thing: the greatest one counts. Sorts in PostgreSQL as it does here."""
        return [f"{to_microseconds(self.time):020d}", self.source, self.event_id]


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event that can't be taken in, with the reason and what could be read of it."""

    reason: str
    form: Literal["json", "protobuf"]
    payload: bytes
    digest: bytes
    """SHA-256 of the whole payload."""
    truncated: bool = False
    """Whether only the beginning of the payload is kept."""
    tenant_id: str = ""
    source: str = ""
    event_id: str = ""


Incoming = bytes | CloudEvent
"""An event as it comes in: CloudEvents JSON in UTF-8, or the protobuf message."""


class _Invalid(ValueError):
    """The event can't be taken in; the message is the reason."""


def parse(incoming: Incoming, tenant_id: str | None = None, now: datetime | None = None) -> Event | Rejected:
    """Read one event and hold it to the rules. Never raises for what it is given.

    Args:
        incoming: the event.
        tenant_id: tenant that it must belong to; None takes any.
        now: the present, for telling events of the future; the clock's by default.
    """
    envelope = CloudEvent()
    try:
        if isinstance(incoming, CloudEvent):
            envelope, size = incoming, incoming.ByteSize()
            _limit_size(size, _maximum_bytes(envelope.type))
            data = _data(envelope)
        else:
            size = len(incoming)
            _limit_size(size, MAXIMUM_TEST_EVENT_BYTES)
            data = _from_usual_json(incoming, envelope) or _from_json(incoming, envelope)
        _limit_size(size, _maximum_bytes(envelope.type))
        _require(rules.violations(data), "data")
        if tenant_id is not None and envelope.tenant_id != tenant_id:
            raise _Invalid("tenantid: is not the tenant that events are taken for")
        _require(_beyond_rules(data, now or datetime.now(UTC)), "data")
        time = to_datetime(envelope.time)
    except (ValueError, TypeError, RecursionError, DecodeError, json_format.Error) as error:
        return _rejected(incoming, envelope, tenant_id, error)
    return Event(
        tenant_id=envelope.tenant_id,
        source=envelope.source,
        event_id=envelope.id,
        # Not the envelope's: a CDEvent is made into one of our own.
        type=_TYPES[type(data)],
        time=time,
        subject=envelope.subject,
        data=data,
    )


def to_datetime(moment: Timestamp) -> datetime:
    """The moment in UTC, cut to microseconds, which is what PostgreSQL holds."""
    return _EPOCH + timedelta(seconds=moment.seconds, microseconds=moment.nanos // 1000)


def to_seconds(span: Duration) -> float:
    """The duration in seconds."""
    return span.seconds + span.nanos / 1e9


def _limit_size(size: int, maximum: int) -> None:
    if size > maximum:
        raise _Invalid(f"an event of {size} bytes is larger than {maximum}")


def _maximum_bytes(event_type: str) -> int:
    kind = cdevents.translated_type(event_type) or event_type
    return MAXIMUM_TEST_EVENT_BYTES if kind == TEST_COMPLETED else MAXIMUM_EVENT_BYTES


def _from_usual_json(line: bytes, envelope: CloudEvent) -> Message | None:
    """As :func:`_from_json`, where everything is spelt the usual way; None, and an empty envelope, where it is not."""
    try:
        content = json_form.read_object(line)
        kind = EVENT_TYPES.get(content.get("type", ""))
        if kind is None:
            return None
        event_bounds.require_lists(content.get("data"), kind)
        data = json_form.to_message(content.get("data"), kind)
        usual = CloudEvent(
            id=content.get("id", ""),
            source=content.get("source", ""),
            spec_version=content.get("specversion", ""),
            type=content.get("type", ""),
            time=json_form.to_time(content.get("time")),
            tenant_id=content.get("tenantid", ""),
            subject=content.get("subject", ""),
        )
    except (ValueError, TypeError):
        return None
    if not usual.spec_version or rules.violations(usual):
        return None
    envelope.CopyFrom(usual)
    return data


def _from_json(line: bytes, envelope: CloudEvent) -> Message:
    """Fills the envelope as far as it can be read, so that a dead letter can say whose it is; returns the data."""
    content = event_bounds.read_json(line.decode())
    if not isinstance(content, dict):
        raise _Invalid("an event is a JSON object")
    attributes = {field: _text(content, name) for name, field in (*_ATTRIBUTES.items(), ("tenantid", "tenant_id"))}
    for field, value in attributes.items():
        setattr(envelope, field, value)
    if not envelope.spec_version:
        raise _Invalid("specversion: is required")
    time = _text(content, "time")
    if time:
        envelope.time.FromJsonString(time)
    message = _checked_type(envelope)
    data = content.get("data")
    if not isinstance(data, dict):
        raise _Invalid("data: is required, as a JSON object")
    return _from_content(data, message, envelope)


def _data(envelope: CloudEvent) -> Message:
    message = _checked_type(envelope)
    form = envelope.WhichOneof("data")
    if form == "text_data":
        content = event_bounds.read_json(envelope.text_data)
        if not isinstance(content, dict):
            raise _Invalid("text_data: must be a JSON object")
        return _from_content(content, message, envelope)
    if form == "proto_data":
        event_bounds.require_bytes(envelope.proto_data.value, type(message))
        if not envelope.proto_data.Unpack(message):
            raise _Invalid(f"proto_data: must be a {message.DESCRIPTOR.full_name}")
        return message
    raise _Invalid("data: is required")


def _from_content(content: dict[str, Any], message: Message, envelope: CloudEvent) -> Message:
    if cdevents.translated_type(envelope.type):
        content = cdevents.translate(envelope.type, content, envelope.time.ToJsonString())
    event_bounds.require_lists(content, type(message))
    return json_format.ParseDict(content, message)


def _checked_type(envelope: CloudEvent) -> Message:
    """An empty message of the event's type; raises for an envelope that breaks its rules."""
    _require(rules.violations(envelope))
    kind = EVENT_TYPES.get(cdevents.translated_type(envelope.type) or envelope.type)
    if kind is None:
        raise _Invalid(f"type: {envelope.type!r} is not known")
    return kind()


def _text(content: dict[str, Any], name: str) -> str:
    value = content.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _Invalid(f"{name}: must be a string")
    return value


def _require(violations: list[Violation] | Iterator[Violation], prefix: str = "") -> None:
    found = list(violations)
    if found:
        raise _Invalid("; ".join(f"{prefix}.{v.field}: {v.description}".lstrip(".") for v in found))


def _beyond_rules(data: Message, now: datetime) -> Iterator[Violation]:
    """What a message must be like as an event, beside the rules that it has everywhere."""
    if isinstance(data, BuildQueued):
        if to_datetime(data.context.queued_time) > now + FUTURE_TOLERANCE:
            yield Violation("context.queued_time", "must not be in the future")
        return
    last = _LAST_TIMES[type(data)]
    if to_datetime(getattr(data, last)) > now + FUTURE_TOLERANCE:
        yield Violation(last, "must not be in the future")
    if isinstance(data, BuildCompleted) and data.HasField("duration"):
        duration = timedelta(seconds=to_seconds(data.duration))
        if duration > to_datetime(data.completed_time) - to_datetime(data.queued_time) + _ROUNDING:
            yield Violation("duration", "must not be longer than from queued_time to completed_time")


def _rejected(incoming: Incoming, envelope: CloudEvent, tenant_id: str | None, error: Exception) -> Rejected:
    form: Literal["json", "protobuf"] = "protobuf" if isinstance(incoming, CloudEvent) else "json"
    payload = incoming.SerializeToString(deterministic=True) if isinstance(incoming, CloudEvent) else incoming
    too_large = len(payload) > _maximum_bytes(envelope.type)
    if too_large:
        error = _Invalid(f"an event of {len(payload)} bytes is larger than {_maximum_bytes(envelope.type)}")
    return Rejected(
        reason=_storable(_reason(error), _MAXIMUM_REASON),
        form=form,
        payload=payload[:_KEPT_BYTES] if too_large else payload,
        digest=hashlib.sha256(form.encode() + b"\0" + payload).digest(),
        truncated=too_large,
        # Within a tenant's stream a dead letter is that tenant's, whatever it says itself.
        tenant_id=tenant_id if tenant_id is not None else _storable(envelope.tenant_id, 128),
        source=_storable(envelope.source, 512),
        event_id=_storable(envelope.id, 256),
    )


def _reason(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return "not UTF-8"
        case json.JSONDecodeError():
            return f"not JSON: {error}"
        case RecursionError():
            return "nested too deeply"
        case _Invalid():
            return str(error)
        case _:
            return f"data: {error}"


def _storable(text: str, maximum: int) -> str:
    """PostgreSQL takes neither NUL nor halves of surrogate pairs."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode(errors="replace").decode()[:maximum]
