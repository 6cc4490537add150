"""What the events of builds do to ``builds`` and ``completed_builds``, and which feature rows they touch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection, sql

from conductor.events.v1.build_pb2 import BuildCompleted, BuildOutcome, BuildQueued
from conductor_features.views import View
from conductor_warehouse import partitions
from conductor_warehouse.events import BUILD_COMPLETED, BUILD_QUEUED, Event, to_datetime, to_seconds
from conductor_warehouse.features.moments import Entity, Touched
from conductor_warehouse.staging import BYTES, FLOAT, INTEGER, TEXT, TIME, batch_of, stage
from conductor_warehouse.subjects.upsert import Key, latest, read, upsert, views_of
from conductor_warehouse.times import to_microseconds

EVENT_TYPES = (BUILD_QUEUED, BUILD_COMPLETED)

_KEYS = {"tenant_id": TEXT, "build_id": TEXT}
_QUEUED = {
    "context_repository": TEXT,
    "context_pipeline": TEXT,
    "context_branch": TEXT,
    "context_queued_time": TIME,
    "context": BYTES,
}
_COMPLETED = {
    "completed_repository": TEXT,
    "completed_pipeline": TEXT,
    "completed_branch": TEXT,
    "completed_queued_time": TIME,
    "completed_time": TIME,
    "outcome": TEXT,
    "duration": FLOAT,
    "waiting_duration": FLOAT,
    "attempt_count": INTEGER,
    "job_count": INTEGER,
}
_FACTS = {
    "tenant_id": TEXT,
    "build_id": TEXT,
    "repository": TEXT,
    "pipeline": TEXT,
    "branch": TEXT,
    "queued_time": TIME,
    "completed_time": TIME,
    "outcome": TEXT,
    "duration": FLOAT,
    "passed_duration": FLOAT,
}
_QUEUED_VIEWS, _COMPLETED_VIEWS = views_of(BUILD_QUEUED), views_of(BUILD_COMPLETED)
_OUTCOMES = {number: name.removeprefix("BUILD_OUTCOME_") for name, number in BuildOutcome.items()}


class _Facts(NamedTuple):
    """What feature rows and statistics are computed from."""

    repository: str
    pipeline: str
    branch: str
    queued_time: datetime
    completed_time: datetime | None
    outcome: str | None
    duration: float | None
    passed_duration: float | None


def store(connection: Connection[Any], events: Sequence[Event]) -> dict[str, Touched]:
    """Store events of builds. Returns what they mean for each view, by its key."""
    queued = latest((event for event in events if event.type == BUILD_QUEUED), _key)
    completed = latest((event for event in events if event.type == BUILD_COMPLETED), _key)
    keys = sorted({*queued, *completed})
    if not keys:
        return {}
    before = _read(connection, keys)
    upsert(
        connection,
        "builds",
        _KEYS,
        _QUEUED,
        [(event, (*key, *_queued_row(event.data))) for key, event in queued.items()],
        event_column="queued_event",
    )
    upsert(
        connection,
        "builds",
        _KEYS,
        _COMPLETED,
        [(event, (*key, *_completed_row(event.data))) for key, event in completed.items()],
        event_column="completed_event",
    )
    after = _read(connection, keys)
    _store_facts(connection, before, after)
    touched = {view.key: Touched() for view in (*_COMPLETED_VIEWS, *_QUEUED_VIEWS)}
    want(touched, events)
    _touch_changes(touched, before, after)
    return touched


def _key(event: Event) -> Key:
    return (event.tenant_id, event.data.build_id)


def _queued_row(data: BuildQueued) -> tuple[Any, ...]:
    context = data.context
    return (
        context.repository,
        context.pipeline,
        context.branch,
        to_datetime(context.queued_time),
        context.SerializeToString(deterministic=True),
    )


def _completed_row(data: BuildCompleted) -> tuple[Any, ...]:
    return (
        data.repository,
        data.pipeline,
        data.branch,
        to_datetime(data.queued_time),
        to_datetime(data.completed_time),
        _OUTCOMES[data.outcome],
        to_seconds(data.duration) if data.HasField("duration") else None,
        to_seconds(data.waiting_duration) if data.HasField("waiting_duration") else None,
        data.attempt_count if data.HasField("attempt_count") else None,
        data.job_count if data.HasField("job_count") else None,
    )


def _read(connection: Connection[Any], keys: Sequence[Key]) -> dict[Key, _Facts]:
    rows = read(connection, "builds", _KEYS, keys, _Facts._fields)
    return {(tenant, build): _Facts(*facts) for tenant, build, *facts in rows}


def _store_facts(connection: Connection[Any], before: Mapping[Key, _Facts], after: Mapping[Key, _Facts]) -> None:
    """Make ``completed_builds`` follow from ``builds``."""
    changed = [key for key, facts in after.items() if facts != before.get(key)]
    old = [(*key, *before[key]) for key in changed if key in before and before[key].completed_time is not None]
    new = [(*key, *after[key]) for key in changed if after[key].completed_time is not None]
    if old:
        connection.execute(
            sql.SQL(
                "DELETE FROM completed_builds AS fact USING {} AS old WHERE "
                "(fact.tenant_id, fact.repository, fact.completed_time, fact.build_id)"
                " = (old.tenant_id, old.repository, old.completed_time, old.build_id)"
            ).format(stage(connection, "completed_builds", batch_of(_FACTS, old)))
        )
    if new:
        times = [facts[6] for facts in new]
        partitions.ensure(connection, "completed_builds", to_microseconds(min(times)), to_microseconds(max(times)))
        names = sql.SQL(", ").join(map(sql.Identifier, _FACTS))
        connection.execute(
            sql.SQL("INSERT INTO completed_builds ({names}) SELECT {names} FROM {staged}").format(
                names=names, staged=stage(connection, "completed_builds", batch_of(_FACTS, new))
            )
        )


def want(touched: Mapping[str, Touched], events: Iterable[Event]) -> None:
    """An event wants rows of its own entities, as of the moment that it tells of."""
    of_queued, of_completed = _Entities(_QUEUED_VIEWS), _Entities(_COMPLETED_VIEWS)
    for event in events:
        if event.type == BUILD_COMPLETED:
            place, moment, entities = event.data, event.data.completed_time, of_completed
        else:
            place, moment, entities = event.data.context, event.data.context.queued_time, of_queued
        at = to_microseconds(to_datetime(moment))
        for key, entity in entities.of((event.tenant_id, place.repository, place.pipeline, place.branch)):
            touched[key].want(entity, at)


def _touch_changes(touched: Mapping[str, Touched], before: Mapping[Key, _Facts], after: Mapping[Key, _Facts]) -> None:
    """Rows that exist already may change, where facts did: at their old moment and at their new one."""
    of_queued, of_completed = _Entities(_QUEUED_VIEWS), _Entities(_COMPLETED_VIEWS)
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
                at = to_microseconds(facts.completed_time)
                for view, entity in of_completed.of(place):
                    touched[view].change(entity, at)
            if moved or other is None or facts.queued_time != other.queued_time:
                at = to_microseconds(facts.queued_time)
                for view, entity in of_queued.of(place):
                    touched[view].change(entity, at)


class _Entities:
    """The entities of some views that builds belong to, each place worked out once: a batch has few of them."""

    def __init__(self, views: Sequence[View]) -> None:
        self._views = views
        self._known: dict[tuple[str, ...], list[tuple[str, tuple[Entity]]]] = {}

    def of(self, place: tuple[str, ...]) -> list[tuple[str, tuple[Entity]]]:
        """By view: the entity of a build's tenant, repository, pipeline and branch; none where it does not tell it."""
        known = self._known.get(place)
        if known is None:
            values = dict(zip(("tenant_id", "repository", "pipeline", "branch"), place, strict=True))
            told = [(view.key, tuple(values[key] for key in view.entity)) for view in self._views]
            known = self._known[place] = [(key, (entity,)) for key, entity in told if all(entity)]
        return known
