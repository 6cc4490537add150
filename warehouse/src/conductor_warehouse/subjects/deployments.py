"""What ``deployment.completed`` does to ``deployments``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from conductor.events.v1.deployment_pb2 import DeploymentCompleted, DeploymentOutcome
from conductor_warehouse.events import DEPLOYMENT_COMPLETED, Event, to_datetime
from conductor_warehouse.features.moments import Touched
from conductor_warehouse.staging import TEXT, TIME
from conductor_warehouse.subjects.upsert import latest, upsert

EVENT_TYPES = (DEPLOYMENT_COMPLETED,)

_KEYS = {"tenant_id": TEXT, "deployment_id": TEXT}
_COLUMNS = {
    "repository": TEXT,
    "environment": TEXT,
    "commit_sha": TEXT,
    "build_id": TEXT,
    "started_time": TIME,
    "completed_time": TIME,
    "outcome": TEXT,
}


def store(connection: Connection[Any], events: Sequence[Event]) -> dict[str, Touched]:
    """Store deployments. They touch no features."""
    deployments = latest(events, lambda event: (event.tenant_id, event.data.deployment_id))
    rows = [(event, (*key, *_row(event.data))) for key, event in deployments.items()]
    upsert(connection, "deployments", _KEYS, _COLUMNS, rows)
    return {}


def _row(data: DeploymentCompleted) -> tuple[Any, ...]:
    return (
        data.repository,
        data.environment,
        data.commit_sha,
        data.build_id,
        to_datetime(data.started_time) if data.HasField("started_time") else None,
        to_datetime(data.completed_time),
        DeploymentOutcome.Name(data.outcome).removeprefix("DEPLOYMENT_OUTCOME_"),
    )
