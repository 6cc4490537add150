"""What ``usage.updated`` does to ``usage_reports`` and ``usage_measurements``, and which feature rows it touches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection, sql

from conductor_warehouse import partitions
from conductor_warehouse.events import USAGE_UPDATED, Event, to_datetime
from conductor_warehouse.features.moments import Touched
from conductor_warehouse.staging import FLOAT, TEXT, TIME, batch_of, stage
from conductor_warehouse.subjects.upsert import Key, latest, read, upsert, views_of
from conductor_warehouse.times import to_microseconds

EVENT_TYPES = (USAGE_UPDATED,)
METRICS = ("build_count", "stored_bytes", "user_count", "webhook_count")

_KEYS = {"tenant_id": TEXT, "measured_time": TIME}
_FACTS = {"tenant_id": TEXT, "measured_time": TIME, "metric": TEXT, "value": FLOAT}
_Fact = tuple[str, datetime, str, float]
_VIEWS = views_of(USAGE_UPDATED)


def store(connection: Connection[Any], events: Sequence[Event]) -> dict[str, Touched]:
    """Store measurements of usage. Returns what they mean for each view, by its key."""
    reports = latest(events, _key)
    if not reports:
        return {}
    known = set(read(connection, "usage_reports", _KEYS, list(reports), ()))
    written = set(upsert(connection, "usage_reports", _KEYS, {}, [(event, key) for key, event in reports.items()]))
    facts = [fact for key, event in reports.items() if key in written for fact in _facts(event)]
    if corrected := sorted(written & known):
        connection.execute(
            sql.SQL("DELETE FROM usage_measurements USING {} AS old WHERE {} = {}").format(
                stage(connection, "usage_keys", batch_of(_KEYS, corrected)),
                sql.SQL("(usage_measurements.tenant_id, usage_measurements.measured_time)"),
                sql.SQL("(old.tenant_id, old.measured_time)"),
            )
        )
    if facts:
        times = [fact[1] for fact in facts]
        partitions.ensure(connection, "usage_measurements", to_microseconds(min(times)), to_microseconds(max(times)))
        names = sql.SQL(", ").join(map(sql.Identifier, _FACTS))
        connection.execute(
            sql.SQL("INSERT INTO usage_measurements ({names}) SELECT {names} FROM {staged}").format(
                names=names, staged=stage(connection, "usage_measurements", batch_of(_FACTS, facts))
            )
        )
    touched = {view.key: Touched() for view in _VIEWS}
    want(touched, events)
    for view in _VIEWS:
        for tenant_id, measured_time in written:
            touched[view.key].change(((tenant_id,),), to_microseconds(measured_time))
    return touched


def want(touched: Mapping[str, Touched], events: Iterable[Event]) -> None:
    """A measurement wants the tenant's row, as of its time."""
    for view in _VIEWS:
        for event in events:
            touched[view.key].want(((event.tenant_id,),), to_microseconds(to_datetime(event.data.measured_time)))


def _key(event: Event) -> Key:
    return (event.tenant_id, to_datetime(event.data.measured_time))


def _facts(event: Event) -> Iterator[_Fact]:
    for metric in METRICS:
        if event.data.HasField(metric):
            yield (event.tenant_id, to_datetime(event.data.measured_time), metric, float(getattr(event.data, metric)))
