"""Gives a feature view the rows that history asks for, while events come in and older versions of it serve.

Ingestion appends rows of a new view from the moment that its log exists, and they are right from the first one: a row
follows from the facts. What is missing are the rows of the moments before, and those are what is computed here, event
by event of the inbox in the order of time, in transactions that take turns with ingestion's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from conductor_warehouse import subjects
from conductor_warehouse.events import EVENT_TYPES, Event
from conductor_warehouse.features import log
from conductor_warehouse.features.registry import DEFINITIONS
from conductor_warehouse.locks import lock_tenants

_EVENTS_AT_ONCE = 1_000
_RESULTS_AT_ONCE = 20_000_000
"""Bytes of events: test runs hold thousands of results each."""


@dataclass(frozen=True)
class BackfillProgress:
    """How far a backfill is."""

    view_key: str
    tenant_id: str
    tenants_done: int
    tenants: int
    events: int
    """Events of this tenant that were gone through, those of earlier attempts included."""
    rows: int
    """Rows appended by this attempt, of all tenants."""


@dataclass(frozen=True)
class _Position:
    """The last event that was gone through."""

    event_time: datetime
    source: str
    event_id: str
    events: int
    rows: int


def backfill(
    connection: Connection[Any],
    view_key: str,
    tenant_ids: Sequence[str] | None = None,
    *,
    restart: bool = False,
    batch_size: int = _EVENTS_AT_ONCE,
    progress: Callable[[BackfillProgress], None] = lambda _: None,
) -> int:
    """Append the rows that a view lacks; returns how many.

    Goes on where an earlier attempt was stopped or killed. Safe to repeat, and beside ingestion and other backfills.
    Backfilled rows became known now: a frame *as served* does not have them.

    Args:
        connection: the owner's, without a transaction under way.
        view_key: the view with its version.
        tenant_ids: these only; None: all that have events.
        restart: begin anew, whatever has been gone through.
        batch_size: events of a transaction, at most.
        progress: told after each transaction.

    Raises:
        KeyError: there is no such view.
        psycopg.Error: the database did not answer or refused; what is committed stays.
    """
    definition = DEFINITIONS[view_key]
    kinds = sorted(_event_types(view_key))
    tenants = sorted(tenant_ids) if tenant_ids is not None else _tenants(connection)
    if restart:
        connection.execute(
            "DELETE FROM feature_backfills WHERE view_key = %s AND tenant_id = ANY (%s)", (view_key, tenants)
        )
    rows = 0
    for done, tenant_id in enumerate(tenants):
        while True:
            with connection.transaction():
                created = lock_tenants(connection, {tenant_id})
                position = _position(connection, view_key, tenant_id)
                events = _next(connection, tenant_id, kinds, position, batch_size)
                if not events:
                    _finish(connection, view_key, tenant_id)
                    break
                what = subjects.wanted(events)[view_key]
                appended = log.append_view(connection, definition, what, created)
                _store(connection, view_key, tenant_id, events[-1], len(events), appended)
            rows += appended
            known = position.events if position else 0
            progress(BackfillProgress(view_key, tenant_id, done, len(tenants), known + len(events), rows))
    return rows


def status(connection: Connection[Any], view_key: str) -> list[dict[str, object]]:
    """Of each tenant with events: how far the view's backfill is, if it was begun."""
    rows = connection.execute(
        """
        SELECT tenant_id, event_count, row_count, event_time, started_time, finished_time
        FROM (SELECT DISTINCT tenant_id FROM inbox) AS tenant
        LEFT JOIN feature_backfills AS known USING (tenant_id)
        WHERE view_key = %s OR view_key IS NULL ORDER BY tenant_id
        """,
        (view_key,),
    ).fetchall()
    names = ("tenant", "events", "rows", "up_to", "started", "finished")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _event_types(view_key: str) -> set[str]:
    """Types of events that the view is computed from, as its lineage says."""
    lineage = DEFINITIONS[view_key].view.lineage
    return {kind for kind in EVENT_TYPES for column in lineage if column.startswith(f"{kind}.")}


def _tenants(connection: Connection[Any]) -> list[str]:
    """Tenants with events, by index: one step for each tenant, however many events they have."""
    rows = connection.execute(
        """
        WITH RECURSIVE tenant(tenant_id) AS (
          SELECT min(tenant_id) FROM inbox
          UNION ALL
          SELECT (SELECT min(tenant_id) FROM inbox WHERE inbox.tenant_id > tenant.tenant_id) FROM tenant
          WHERE tenant_id IS NOT NULL
        )
        SELECT tenant_id FROM tenant WHERE tenant_id IS NOT NULL
        """
    )
    return [tenant for (tenant,) in rows]


def _position(connection: Connection[Any], view_key: str, tenant_id: str) -> _Position | None:
    row = connection.execute(
        "SELECT event_time, source, event_id, event_count, row_count FROM feature_backfills"
        " WHERE view_key = %s AND tenant_id = %s",
        (view_key, tenant_id),
    ).fetchone()
    return _Position(*row) if row else None


def _next(
    connection: Connection[Any], tenant_id: str, kinds: Sequence[str], position: _Position | None, limit: int
) -> list[Event]:
    """The events after a position, in the order of time."""
    rows = connection.execute(
        """
        SELECT source, event_id, event_type, event_time, subject, data FROM inbox
        WHERE tenant_id = %(tenant)s AND event_type = ANY (%(kinds)s)
          AND (%(time)s::timestamptz IS NULL
            OR (event_time >= %(time)s AND (event_time, source, event_id) > (%(time)s, %(source)s, %(id)s)))
        ORDER BY event_time, source, event_id LIMIT %(limit)s
        """,
        {
            "tenant": tenant_id,
            "kinds": list(kinds),
            "time": position and position.event_time,
            "source": position and position.source,
            "id": position and position.event_id,
            "limit": limit,
        },
        binary=True,
    )
    events: list[Event] = []
    size = 0
    for source, event_id, kind, time, subject, data in rows:
        events.append(Event(tenant_id, source, event_id, kind, time, subject, EVENT_TYPES[kind].FromString(data)))
        size += len(data)
        if size > _RESULTS_AT_ONCE:
            break
    return events


def _store(connection: Connection[Any], view_key: str, tenant_id: str, last: Event, events: int, rows: int) -> None:
    connection.execute(
        """
        INSERT INTO feature_backfills AS known
          (view_key, tenant_id, event_time, source, event_id, event_count, row_count)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (view_key, tenant_id) DO UPDATE SET (event_time, source, event_id) =
            (excluded.event_time, excluded.source, excluded.event_id),
          event_count = known.event_count + excluded.event_count, row_count = known.row_count + excluded.row_count,
          updated_time = clock_timestamp(), finished_time = NULL
        """,
        (view_key, tenant_id, last.time, last.source, last.event_id, events, rows),
    )


def _finish(connection: Connection[Any], view_key: str, tenant_id: str) -> None:
    connection.execute(
        "UPDATE feature_backfills SET finished_time = coalesce(finished_time, clock_timestamp())"
        " WHERE view_key = %s AND tenant_id = %s",
        (view_key, tenant_id),
    )
