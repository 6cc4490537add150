"""What ``test.quarantined`` and ``test.released`` do to ``test_quarantines``, and which feature rows they touch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection

from conductor_features.views import View
from conductor_warehouse.events import TEST_QUARANTINED, TEST_RELEASED, Event, to_datetime
from conductor_warehouse.features.moments import Touched
from conductor_warehouse.staging import BOOLEAN, TEXT, TIME
from conductor_warehouse.subjects import test_repositories
from conductor_warehouse.subjects.upsert import Key, latest, upsert, views_of
from conductor_warehouse.times import to_microseconds

EVENT_TYPES = (TEST_QUARANTINED, TEST_RELEASED)

_KEYS = {"tenant_id": TEXT, "repository": TEXT, "test_id": TEXT, "changed_time": TIME}
_COLUMNS = {"quarantined": BOOLEAN, "reason": TEXT}
_VIEWS = views_of(*EVENT_TYPES)


def store(connection: Connection[Any], events: Sequence[Event]) -> dict[str, Touched]:
    """Store who is quarantined since when. Returns what it means for each view, by its key."""
    changes = latest(events, _key)
    test_repositories.note(connection, [(event.tenant_id, event.data.repository, _time(event)) for event in events])
    rows = [(event, (*key, event.type == TEST_QUARANTINED, event.data.reason)) for key, event in changes.items()]
    upsert(connection, "test_quarantines", _KEYS, _COLUMNS, rows)
    touched = {view.key: Touched() for view in _VIEWS}
    want(touched, events)
    for view in _VIEWS:
        for event in events:
            touched[view.key].change((_entity(view, event),), to_microseconds(_time(event)))
    return touched


def want(touched: Mapping[str, Touched], events: Iterable[Event]) -> None:
    """An event wants a row of its test, as of its time."""
    for event in events:
        for view in _VIEWS:
            if view.key in touched:
                touched[view.key].want((_entity(view, event),), to_microseconds(_time(event)))


def _key(event: Event) -> Key:
    return (event.tenant_id, event.data.repository, event.data.test_id, _time(event))


def _time(event: Event) -> datetime:
    data = event.data
    return to_datetime(data.quarantined_time if event.type == TEST_QUARANTINED else data.released_time)


def _entity(view: View, event: Event) -> tuple[str, ...]:
    values = {"tenant_id": event.tenant_id, "repository": event.data.repository, "test_id": event.data.test_id}
    return tuple(values[key] for key in view.entity)
