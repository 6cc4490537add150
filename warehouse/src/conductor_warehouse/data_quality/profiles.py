"""Profiles in the database: read for the checks, updated with each batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

import orjson
from psycopg import Connection

from conductor_warehouse.data_quality import profile
from conductor_warehouse.data_quality.checks import Finding
from conductor_warehouse.data_quality.profile import Profile
from conductor_warehouse.times import to_datetime

Key = tuple[str, str]
"""A tenant and a type of events."""
_REFERENCE_DAYS = 7
"""The latest days with events that a batch is held against."""


@dataclass(frozen=True)
class _Day:
    received: date
    content: Mapping[str, Any]
    first: datetime | None
    last: datetime | None

    @cached_property
    def profile(self) -> Profile:
        return profile.from_json(self.content, self.first, self.last)


@dataclass(frozen=True)
class Known:
    """What is known of the tenants of a batch."""

    received: datetime
    """The database's clock, in UTC."""
    days: Mapping[Key, Sequence[_Day]]
    """The latest first."""

    def before(self, key: Key) -> Profile:
        """What the tenant's events of this type looked like lately."""
        return profile.merge(day.profile for day in self.days.get(key, ()))

    def today(self, key: Key) -> Profile:
        """What today's looked like so far."""
        return profile.merge(day.profile for day in self.days.get(key, ()) if day.received == self.received.date())


@dataclass
class Update:
    """What a batch adds to one tenant's day and type."""

    received: int
    stored: int
    new: Profile

    @property
    def duplicates(self) -> int:
        """Events that had been stored before, or came twice."""
        return self.received - self.stored


def read(connection: Connection[Any], keys: Iterable[Key]) -> Known:
    """What is known of tenants and their events, and the time."""
    ordered = sorted(keys)
    rows = connection.execute(
        """
        SELECT clock_timestamp(), tenant_id, event_type, received_date, profile::text,
          first_event_time, last_event_time
        FROM unnest(%s::text[], %s::text[]) AS key(tenant_id, event_type)
        LEFT JOIN LATERAL (
          SELECT received_date, profile, first_event_time, last_event_time FROM data_profiles AS known
          WHERE (known.tenant_id, known.event_type) = (key.tenant_id, key.event_type)
          ORDER BY received_date DESC LIMIT %s
        ) AS day ON true
        """,
        ([tenant for tenant, _ in ordered], [kind for _, kind in ordered], _REFERENCE_DAYS),
    ).fetchall()
    days: dict[Key, list[_Day]] = {}
    for _, tenant, kind, received, content, first, last in rows:
        if received is not None:
            days.setdefault((tenant, kind), []).append(_Day(received, orjson.loads(content), first, last))
    return Known(rows[0][0].astimezone(UTC), days)


def write(connection: Connection[Any], known: Known, updates: Mapping[Key, Update]) -> None:
    """Add to the profiles of today."""
    rows = []
    for key, update in sorted(updates.items()):
        whole = profile.merge([known.today(key), update.new])
        rows.append(
            (
                *key,
                update.received,
                update.stored,
                update.duplicates,
                None if whole.first_time is None else to_datetime(whole.first_time),
                None if whole.last_time is None else to_datetime(whole.last_time),
                orjson.dumps(profile.to_json(whole)).decode(),
            )
        )
    if not rows:
        return
    connection.execute(
        """
        INSERT INTO data_profiles AS known (tenant_id, event_type, received_count, stored_count, duplicate_count,
          first_event_time, last_event_time, profile, received_date, batch_count)
        SELECT *, %s::date, 1 FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[],
          %s::timestamptz[], %s::timestamptz[], %s::jsonb[])
        ON CONFLICT (tenant_id, event_type, received_date) DO UPDATE SET
          batch_count = known.batch_count + 1,
          received_count = known.received_count + excluded.received_count,
          stored_count = known.stored_count + excluded.stored_count,
          duplicate_count = known.duplicate_count + excluded.duplicate_count,
          first_event_time = excluded.first_event_time,
          last_event_time = excluded.last_event_time,
          profile = excluded.profile
        """,
        (known.received.date(), *(list(column) for column in zip(*rows, strict=True))),
    )


def write_findings(connection: Connection[Any], known: Known, findings: Sequence[tuple[str, Finding]]) -> None:
    """Keep what checks found, each with its tenant; of a day's alike, how many there were and the latest."""
    if not findings:
        return
    rows = {
        (tenant, one.event_type, one.check, one.field, one.severity.value): (
            one.message,
            orjson.dumps(one.figures).decode(),
        )
        for tenant, one in findings
    }
    columns = zip(*((*key, *content) for key, content in sorted(rows.items())), strict=True)
    connection.execute(
        """
        INSERT INTO data_findings AS known (tenant_id, event_type, check_name, field, severity, message, figures,
          received_date, batch_count, first_time, last_time)
        SELECT *, %s::date, 1, clock_timestamp(), clock_timestamp()
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::jsonb[])
        ON CONFLICT (tenant_id, received_date, event_type, check_name, field, severity) DO UPDATE SET
          batch_count = known.batch_count + 1, last_time = excluded.last_time,
          message = excluded.message, figures = excluded.figures
        """,
        (known.received.date(), *(list(column) for column in columns)),
    )
