"""What a batch of events costs does not depend on how much is known already: it reads as many rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from conductor_warehouse.bulk import ingest_many
from conductor_warehouse.ingestion import ingest
from conductor_workbench.bench.ingestion_events import START, event, stamp
from warehouse.histories import Build, completed_event, queued_event

pytestmark = pytest.mark.long

LITTLE, MUCH, BATCH = 4_000, 24_000, 500


def _runs() -> Iterator[bytes]:
    """Runs of ten tests that also touch two files, and what a gate and a meter say at that time."""
    for number in itertools.count():
        at = START + timedelta(minutes=5 * number)
        results = [
            {"testId": f"test-{test}", "outcome": "TEST_OUTCOME_" + ("FAILED" if number % 3 == 0 else "PASSED")}
            for test in range(10)
        ]
        run = {"runId": f"run-{number}", "repository": "shop", "completedTime": stamp(at), "results": results}
        yield event("test.completed", f"run-{number}", at, "acme", {**run, "changedPaths": ["a.py", "b.py"]})
        gate = {"evaluationId": f"gate-{number}", "repository": "shop", "branch": "main", "evaluatedTime": stamp(at)}
        gate |= {
            "status": "QUALITY_GATE_STATUS_PASSED",
            "scores": [{"metric": "maintainability", "value": 0.5}],
            "coverageRatio": 0.8,
        }
        yield event("quality_gate.evaluated", f"gate-{number}", at, "acme", gate)
        usage = {"measuredTime": stamp(at), "buildCount": str(number), "storedBytes": "1000"}
        yield event("usage.updated", f"usage-{number}", at, "acme", usage)


def _builds() -> Iterator[bytes]:
    """Two pipelines, so that the longest window, 500 builds, is full early on."""
    for number in itertools.count():
        queued = START + timedelta(seconds=30 * number)
        pipeline = f"pipeline-{number % 2}"
        build = Build(f"b{number}", queued, queued + timedelta(seconds=20), duration=20.0, pipeline=pipeline)
        yield queued_event(build)
        yield completed_event(build)


def _history() -> Iterator[bytes]:
    """Nine of ten events are of builds."""
    builds, runs = _builds(), _runs()
    for number in itertools.count():
        yield next(runs if number % 10 == 9 else builds)


def _rows_read(connection: psycopg.Connection) -> int:
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)"
        " + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)"
    ).fetchone()
    assert row is not None
    return int(row[0])


def _read_by_a_batch(connection: psycopg.Connection, events: Iterator[bytes]) -> int:
    """Rows and index entries read for one batch, with the planner knowing how large the tables are."""
    connection.execute("ANALYZE")
    before = _rows_read(connection)
    result = ingest(connection, list(itertools.islice(events, BATCH)))
    assert (result.stored, result.dead_letter_count, result.parked) == (BATCH, 0, 0)
    return _rows_read(connection) - before


def test_a_batch_reads_as_much_of_a_large_warehouse_as_of_a_small_one(warehouse: psycopg.Connection) -> None:
    events = _history()
    ingest_many(warehouse, itertools.islice(events, LITTLE))
    small = _read_by_a_batch(warehouse, events)
    ingest_many(warehouse, itertools.islice(events, MUCH - LITTLE))
    large = _read_by_a_batch(warehouse, events)
    assert large < 1.2 * small
