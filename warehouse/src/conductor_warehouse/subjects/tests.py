"""What ``test.completed`` does to ``test_runs`` and ``test_results``, and which feature rows it touches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from psycopg import Connection, sql

from conductor.events.v1.test_pb2 import TestCompleted, TestOutcome
from conductor_warehouse import partitions
from conductor_warehouse.events import TEST_COMPLETED, Event, to_datetime
from conductor_warehouse.features.moments import Entity, Touched
from conductor_warehouse.staging import FLOAT, INTEGER, TEXT, TEXTS, TIME, batch_of, stage
from conductor_warehouse.subjects import test_repositories
from conductor_warehouse.subjects.upsert import Key, latest, read, upsert, views_of
from conductor_warehouse.times import to_microseconds

EVENT_TYPES = (TEST_COMPLETED,)

_KEYS = {"tenant_id": TEXT, "run_id": TEXT}
_COLUMNS = {
    "repository": TEXT,
    "pipeline": TEXT,
    "branch": TEXT,
    "commit_sha": TEXT,
    "build_id": TEXT,
    "started_time": TIME,
    "completed_time": TIME,
    "changed_paths": TEXTS,
    "result_count": INTEGER,
    "failed_count": INTEGER,
}
_OUTCOMES = {number: name.removeprefix("TEST_OUTCOME_") for name, number in TestOutcome.items()}
_FAILED = frozenset({TestOutcome.TEST_OUTCOME_FAILED, TestOutcome.TEST_OUTCOME_ERROR})
"""Outcomes of a test that ran and did not pass."""


class _Run(NamedTuple):
    """A run as far as features depend on it."""

    repository: str
    completed_time: datetime
    changed_paths: Sequence[str]
    tests: Sequence[str]
    failed_tests: Sequence[str]


def store(connection: Connection[Any], events: Sequence[Event]) -> dict[str, Touched]:
    """Store test runs with their results. Returns what they mean for each view, by its key."""
    runs = latest(events, _key)
    if not runs:
        return {}
    told_before = test_repositories.note(
        connection,
        [(event.tenant_id, event.data.repository, to_datetime(event.data.completed_time)) for event in events],
    )
    before = _read(connection, list(runs))
    written = upsert(
        connection,
        "test_runs",
        _KEYS,
        _COLUMNS,
        [(event, (*key, *_row(event.data))) for key, event in runs.items()],
    )
    new = {key: runs[key].data for key in written}
    old = {key: before[key] for key in written if key in before}
    _delete_results(connection, old)
    _insert_results(connection, new)
    touched = {view.key: Touched() for view in _VIEWS}
    counted = {runs[key].identity for key in new}
    for event in events:
        run = _run(event.data)
        entities = _entities(touched, event.tenant_id, run)
        _want(touched, entities, run)
        if event.identity in counted:
            _change(touched, entities, event.tenant_id, run, told_before)
    for (tenant_id, _), run in old.items():
        _change(touched, _entities(touched, tenant_id, run), tenant_id, run, told_before)
    return touched


def want(touched: Mapping[str, Touched], events: Iterable[Event]) -> None:
    """A run wants rows of its tests, paths and pairs of both, as of its end; of flakiness only where tests failed."""
    for event in events:
        run = _run(event.data)
        _want(touched, _entities(touched, event.tenant_id, run), run)


def _want(touched: Mapping[str, Touched], entities: _ByView, run: _Run) -> None:
    for key, wanted in entities.items():
        touched[key].want(wanted, to_microseconds(run.completed_time))


def _change(
    touched: Mapping[str, Touched],
    entities: _ByView,
    tenant_id: str,
    run: _Run,
    told_before: Mapping[test_repositories.Repository, datetime],
) -> None:
    """What a run that counts, or no longer does, changes: where it comes late, rows too that it wants none of."""
    until = told_before.get((tenant_id, run.repository))
    late = until is not None and run.completed_time <= until
    changed = {**entities, **_entities(touched, tenant_id, run, _CHANGED_LATE)} if late else entities
    for key, of_view in changed.items():
        touched[key].change(of_view, to_microseconds(run.completed_time))


def _key(event: Event) -> Key:
    return (event.tenant_id, event.data.run_id)


def _row(data: TestCompleted) -> tuple[Any, ...]:
    return (
        data.repository,
        data.pipeline,
        data.branch,
        data.commit_sha,
        data.build_id,
        to_datetime(data.started_time) if data.HasField("started_time") else None,
        to_datetime(data.completed_time),
        list(data.changed_paths),
        len(data.results),
        [result.outcome in _FAILED for result in data.results].count(True),
    )


def _run(data: TestCompleted) -> _Run:
    results = list(data.results)
    return _Run(
        data.repository,
        to_datetime(data.completed_time),
        data.changed_paths,
        list(dict.fromkeys([result.test_id for result in results])),
        list(dict.fromkeys([result.test_id for result in results if result.outcome in _FAILED])),
    )


def _tests(tenant_id: str, run: _Run) -> list[Entity]:
    return [(tenant_id, run.repository, test) for test in run.tests]


def _failed_tests(tenant_id: str, run: _Run) -> list[Entity]:
    return [(tenant_id, run.repository, test) for test in run.failed_tests]


def _paths(tenant_id: str, run: _Run) -> list[Entity]:
    return [(tenant_id, run.repository, path) for path in dict.fromkeys(run.changed_paths)]


def _pairs(tenant_id: str, run: _Run) -> list[Entity]:
    paths = dict.fromkeys(run.changed_paths)
    return [(tenant_id, run.repository, test, path) for test in run.failed_tests for path in paths]


_VIEWS = views_of(TEST_COMPLETED)
_ByView = Mapping[str, Sequence[Entity]]
"""Entities by the view's key."""
_Kinds = Mapping[str, Callable[[str, _Run], list[Entity]]]
_WANTED: _Kinds = {
    "test_history": _tests,
    "test_flakiness": _failed_tests,
    "path_changes": _paths,
    "test_path_affinity": _pairs,
}
"""Entities that are to have a row as of a run, by the view's name, so that its next version is fed as well."""
_CHANGED_LATE: _Kinds = {"test_flakiness": _tests}
"""Where a late run may change later rows of others too."""


def _entities(keys: Iterable[str], tenant_id: str, run: _Run, kinds: _Kinds = _WANTED) -> _ByView:
    return {view.key: kinds[view.name](tenant_id, run) for view in _VIEWS if view.key in keys and view.name in kinds}


def _read(connection: Connection[Any], keys: Sequence[Key]) -> dict[Key, _Run]:
    """Runs that are there already."""
    found = read(connection, "test_runs", _KEYS, keys, ("repository", "completed_time", "changed_paths"))
    runs = {}
    for tenant_id, run_id, repository, completed_time, changed_paths in found:
        results = connection.execute(
            "SELECT test_id, outcome FROM test_results"
            " WHERE tenant_id = %s AND completed_time = %s AND run_id = %s ORDER BY result_number",
            (tenant_id, completed_time, run_id),
        ).fetchall()
        runs[tenant_id, run_id] = _Run(
            repository,
            completed_time,
            changed_paths,
            list(dict.fromkeys(test for test, _ in results)),
            list(dict.fromkeys(test for test, outcome in results if outcome in {"FAILED", "ERROR"})),
        )
    return runs


def _delete_results(connection: Connection[Any], old: Mapping[Key, _Run]) -> None:
    if not old:
        return
    keys = {**_KEYS, "completed_time": TIME}
    # Joined, and not compared with constants: TimescaleDB can't plan a deletion through a tenant's view whose condition
    # names the tenant once more ("variable not found in subplan target list").
    connection.execute(
        sql.SQL(
            "DELETE FROM test_results AS fact USING {} AS old WHERE"
            " (fact.tenant_id, fact.completed_time, fact.run_id) = (old.tenant_id, old.completed_time, old.run_id)"
        ).format(
            stage(connection, "old_runs", batch_of(keys, [(*key, run.completed_time) for key, run in old.items()]))
        )
    )


def _insert_results(connection: Connection[Any], runs: Mapping[Key, TestCompleted]) -> None:
    if not any(data.results for data in runs.values()):
        return
    batch = pa.concat_batches([_results(tenant_id, data) for (tenant_id, _), data in runs.items()])
    times = [to_microseconds(to_datetime(data.completed_time)) for data in runs.values()]
    partitions.ensure(connection, "test_results", min(times), max(times))
    names = sql.SQL(", ").join(map(sql.Identifier, batch.schema.names))
    connection.execute(
        sql.SQL("INSERT INTO test_results ({names}) SELECT {names} FROM {staged}").format(
            names=names, staged=stage(connection, "test_results", batch)
        )
    )


def _results(tenant_id: str, data: TestCompleted) -> pa.RecordBatch:
    results = list(data.results)
    count = len(results)

    def same(value: Any, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), count)

    return pa.record_batch(
        {
            "tenant_id": same(tenant_id, TEXT),
            "completed_time": same(to_datetime(data.completed_time), TIME),
            "run_id": same(data.run_id, TEXT),
            "result_number": pa.array(np.arange(count, dtype=np.int32), INTEGER),
            "repository": same(data.repository, TEXT),
            "test_id": pa.array([result.test_id for result in results], TEXT),
            "outcome": pa.array([_OUTCOMES[result.outcome] for result in results], TEXT),
            "duration": pa.array(
                [
                    (span := result.duration).seconds + span.nanos / 1e9 if result.HasField("duration") else None
                    for result in results
                ],
                FLOAT,
            ),
            "failure_message": pa.array([result.failure_message or None for result in results], TEXT),
        }
    )
