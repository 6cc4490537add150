"""What ``tenant.created`` does to ``tenants``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from conductor_warehouse.events import TENANT_CREATED, Event, to_datetime
from conductor_warehouse.features.moments import Touched
from conductor_warehouse.staging import TEXT, TIME
from conductor_warehouse.subjects.upsert import latest, upsert

EVENT_TYPES = (TENANT_CREATED,)

_KEYS = {"tenant_id": TEXT}
_COLUMNS = {"display_name": TEXT, "plan": TEXT, "created_time": TIME}


def store(connection: Connection[Any], events: Sequence[Event]) -> dict[str, Touched]:
    """Store tenants. They touch no features."""
    tenants = latest(events, lambda event: (event.tenant_id,))
    rows = [
        (event, (*key, event.data.display_name, event.data.plan, to_datetime(event.data.created_time)))
        for key, event in tenants.items()
    ]
    upsert(connection, "tenants", _KEYS, _COLUMNS, rows)
    return {}
