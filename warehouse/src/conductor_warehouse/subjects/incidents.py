"""What ``incident.opened`` and ``incident.resolved`` do to ``incidents``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from conductor.events.v1.incident_pb2 import IncidentOpened, IncidentResolved, IncidentSeverity
from conductor_warehouse.events import INCIDENT_OPENED, INCIDENT_RESOLVED, Event, to_datetime
from conductor_warehouse.features.moments import Touched
from conductor_warehouse.staging import TEXT, TIME
from conductor_warehouse.subjects.upsert import Key, latest, upsert

EVENT_TYPES = (INCIDENT_OPENED, INCIDENT_RESOLVED)

_KEYS = {"tenant_id": TEXT, "incident_id": TEXT}
_OPENED = {"repository": TEXT, "environment": TEXT, "severity": TEXT, "opened_time": TIME, "opened_deployment": TEXT}
_RESOLVED = {"resolved_time": TIME, "resolved_deployment": TEXT}


def store(connection: Connection[Any], events: Sequence[Event]) -> dict[str, Touched]:
    """Store incidents. They touch no features."""
    opened = latest((event for event in events if event.type == INCIDENT_OPENED), _key)
    resolved = latest((event for event in events if event.type == INCIDENT_RESOLVED), _key)
    upsert(
        connection,
        "incidents",
        _KEYS,
        _OPENED,
        [(event, (*key, *_opened_row(event.data))) for key, event in opened.items()],
        event_column="opened_event",
    )
    upsert(
        connection,
        "incidents",
        _KEYS,
        _RESOLVED,
        [(event, (*key, *_resolved_row(event.data))) for key, event in resolved.items()],
        event_column="resolved_event",
    )
    return {}


def _key(event: Event) -> Key:
    return (event.tenant_id, event.data.incident_id)


def _opened_row(data: IncidentOpened) -> tuple[Any, ...]:
    return (
        data.repository,
        data.environment,
        IncidentSeverity.Name(data.severity).removeprefix("INCIDENT_SEVERITY_"),
        to_datetime(data.opened_time),
        data.deployment_id,
    )


def _resolved_row(data: IncidentResolved) -> tuple[Any, ...]:
    return (to_datetime(data.resolved_time), data.deployment_id)
