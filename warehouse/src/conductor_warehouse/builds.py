"""What the events of builds do to the table ``builds``, and which feature rows they touch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection

from conductor.events.v1.build_pb2 import BuildCompleted, BuildOutcome, BuildQueued
from conductor_features.views import VIEWS, View
from conductor_warehouse.events import BUILD_COMPLETED, BUILD_QUEUED, Event, to_datetime, to_seconds
from conductor_warehouse.feature_log import Entity, Touched

_BuildKey = tuple[str, str]
"""Tenant and build id."""


class _Facts(NamedTuple):
    """What feature rows are computed from."""

    repository: str
    pipeline: str
    branch: str
    queued_time: datetime
    completed_time: datetime | None
    outcome: str | None
    duration: float | None


def _from(event_type: str) -> tuple[View, ...]:
    """Views that are computed from such events, as their lineage says."""
    return tuple(v for v in VIEWS.values() if any(column.startswith(f"{event_type}.") for column in v.lineage))


_QUEUED_VIEWS, _COMPLETED_VIEWS = _from(BUILD_QUEUED), _from(BUILD_COMPLETED)


def store(connection: Connection[Any], events: Sequence[Event]) -> dict[str, Touched]:
    """Store events of builds; events of other types are passed over. Returns what they mean for each view, by its key.

    The order of events does not matter: of two that tell the same of a build, the one of the later time counts.
    """
    queued = [event for event in events if event.type == BUILD_QUEUED]
    completed = [event for event in events if event.type == BUILD_COMPLETED]
    keys = sorted({_key(event) for event in (*queued, *completed)})
    if not keys:
        return {}
    before = _read(connection, keys)
    _store_queued(connection, _latest(queued))
    _store_completed(connection, _latest(completed))
    touched = {view.key: Touched() for view in (*_COMPLETED_VIEWS, *_QUEUED_VIEWS)}
    _touch_moments(touched, queued, completed)
    _touch_changes(touched, before, _read(connection, keys))
    return touched


def _key(event: Event) -> _BuildKey:
    return (event.tenant_id, event.data.build_id)


def _latest(events: Iterable[Event]) -> list[Event]:
    """For each build the event that counts, in the order of builds."""
    latest: dict[_BuildKey, Event] = {}
    for event in events:
        known = latest.get(_key(event))
        if known is None or event.rank > known.rank:
            latest[_key(event)] = event
    return [latest[key] for key in sorted(latest)]


def _read(connection: Connection[Any], keys: Sequence[_BuildKey]) -> dict[_BuildKey, _Facts]:
    rows = connection.execute(
        """
        SELECT tenant_id, build_id, repository, pipeline, branch, queued_time, completed_time, outcome, duration
        FROM builds JOIN unnest(%s::text[], %s::text[]) AS key(tenant_id, build_id) USING (tenant_id, build_id)
        """,
        ([tenant for tenant, _ in keys], [build for _, build in keys]),
    )
    return {(tenant, build): _Facts(*facts) for tenant, build, *facts in rows}


def _store_queued(connection: Connection[Any], events: Sequence[Event]) -> None:
    _upsert(
        connection,
        "queued_event",
        {
            "context_repository": "text",
            "context_pipeline": "text",
            "context_branch": "text",
            "context_queued_time": "timestamptz",
            "context": "bytea",
        },
        events,
        [_queued_row(event.data) for event in events],
    )


def _queued_row(data: BuildQueued) -> tuple[Any, ...]:
    context = data.context
    return (
        context.repository,
        context.pipeline,
        context.branch,
        to_datetime(context.queued_time),
        context.SerializeToString(deterministic=True),
    )


def _store_completed(connection: Connection[Any], events: Sequence[Event]) -> None:
    _upsert(
        connection,
        "completed_event",
        {
            "completed_repository": "text",
            "completed_pipeline": "text",
            "completed_branch": "text",
            "completed_queued_time": "timestamptz",
            "completed_time": "timestamptz",
            "outcome": "text",
            "duration": "double precision",
            "waiting_duration": "double precision",
            "attempt_count": "integer",
            "job_count": "integer",
        },
        events,
        [_completed_row(event.data) for event in events],
    )


def _completed_row(data: BuildCompleted) -> tuple[Any, ...]:
    return (
        data.repository,
        data.pipeline,
        data.branch,
        to_datetime(data.queued_time),
        to_datetime(data.completed_time),
        BuildOutcome.Name(data.outcome).removeprefix("BUILD_OUTCOME_"),
        to_seconds(data.duration) if data.HasField("duration") else None,
        to_seconds(data.waiting_duration) if data.HasField("waiting_duration") else None,
        data.attempt_count if data.HasField("attempt_count") else None,
        data.job_count if data.HasField("job_count") else None,
    )


def _upsert(
    connection: Connection[Any],
    event_column: str,
    columns: Mapping[str, str],
    events: Sequence[Event],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """Write columns of builds, each row from its event, unless they are from a greater event already."""
    if not events:
        return
    names = ", ".join(columns)
    arrays = ", ".join(f"%s::{kind}[]" for kind in columns.values())
    statement = f"""
        INSERT INTO builds AS build (tenant_id, build_id, {event_column}, {names})
        SELECT tenant_id, build_id, ARRAY[event_time, event_source, event_id], {names}
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], {arrays})
          AS row(tenant_id, build_id, event_time, event_source, event_id, {names})
        ON CONFLICT (tenant_id, build_id) DO UPDATE
          SET ({event_column}, {names}) = (excluded.{event_column}, {", ".join(f"excluded.{name}" for name in columns)})
          WHERE build.{event_column} IS NULL OR build.{event_column} < excluded.{event_column}
    """  # noqa: S608 - made of this module's own constants
    values = [(*_key(event), *event.rank, *row) for event, row in zip(events, rows, strict=True)]
    connection.execute(statement.encode(), [list(column) for column in zip(*values, strict=True)])


def _touch_moments(touched: Mapping[str, Touched], queued: Iterable[Event], completed: Iterable[Event]) -> None:
    """An event wants rows of its own entities, as of the moment that it tells of."""
    for event in completed:
        data, moment = event.data, to_datetime(event.data.completed_time)
        for view in _COMPLETED_VIEWS:
            entity = _entity(view, event.tenant_id, data.repository, data.pipeline, data.branch)
            if entity:
                touched[view.key].moments.add((entity, moment))
    for event in queued:
        data, moment = event.data.context, to_datetime(event.data.context.queued_time)
        for view in _QUEUED_VIEWS:
            entity = _entity(view, event.tenant_id, data.repository, data.pipeline, data.branch)
            if entity:
                touched[view.key].moments.add((entity, moment))


def _touch_changes(
    touched: Mapping[str, Touched], before: Mapping[_BuildKey, _Facts], after: Mapping[_BuildKey, _Facts]
) -> None:
    """Rows that exist already may change, where facts did: at their old moment and at their new one."""
    for key, new in after.items():
        old = before.get(key)
        if old == new:
            continue
        for facts, other in ((old, new), (new, old)):
            if facts is None:
                continue
            place = (key[0], facts.repository, facts.pipeline, facts.branch)
            moved = other is None or facts[:3] != other[:3]
            if facts.completed_time is not None and (moved or other is None or facts[4:] != other[4:]):
                for view in _COMPLETED_VIEWS:
                    entity = _entity(view, *place)
                    if entity:
                        touched[view.key].change(entity, facts.completed_time)
            if moved or other is None or facts.queued_time != other.queued_time:
                for view in _QUEUED_VIEWS:
                    entity = _entity(view, *place)
                    if entity:
                        touched[view.key].change(entity, facts.queued_time)


def _entity(view: View, tenant_id: str, repository: str, pipeline: str, branch: str) -> Entity | None:
    """The entity of a view that a build belongs to; None where the build does not tell it."""
    values = {"tenant_id": tenant_id, "repository": repository, "pipeline": pipeline, "branch": branch}
    entity = tuple(values[key] for key in view.entity)
    return entity if all(entity) else None
