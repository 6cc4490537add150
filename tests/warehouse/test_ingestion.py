"""Batches are stored whole or not at all, by whoever and however often they are brought."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

import programs
from conductor.build.v1.build_context_pb2 import BuildContext
from conductor_warehouse.bulk import ingest_many
from conductor_warehouse.ingestion import ingest
from warehouse.histories import (
    START,
    Build,
    assert_log_is_right,
    clear,
    completed_event,
    dump,
    events_of,
    queued_event,
    random_history,
)

BUILDS = random_history(seed=30, count=150)
EVENTS = events_of(BUILDS)
SECOND = timedelta(seconds=1)


@pytest.fixture
def events_file(tmp_path: Path) -> Path:
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join(EVENTS))
    return file


def test_a_build_is_what_both_of_its_events_tell(warehouse: psycopg.Connection) -> None:
    build = Build("b1", START, START + 100 * SECOND, duration=90.5)
    for events in ([queued_event(build), completed_event(build)], [completed_event(build), queued_event(build)]):
        clear(warehouse)
        for event in events:
            ingest(warehouse, [event])
        [row] = warehouse.execute(
            "SELECT repository, pipeline, branch, queued_time, completed_time, outcome, duration, passed_duration,"
            " context FROM builds"
        ).fetchall()
        assert row[:-1] == (
            *("acme/shop", "test", "main", START, START + 100 * SECOND),
            *("SUCCESS", 90.5, 90.5),
        )
        assert BuildContext.FromString(row[-1]).change.added_line_count == 12


def test_a_completed_build_that_was_never_queued_counts(warehouse: psycopg.Connection) -> None:
    ingest(warehouse, [completed_event(Build("b1", START, START + SECOND, duration=1.0))])
    assert warehouse.execute("SELECT queued_time, context FROM builds").fetchall() == [(START, None)]


def test_of_two_stories_the_later_one_counts(warehouse: psycopg.Connection) -> None:
    first = completed_event(Build("b1", START, START + 10 * SECOND, "FAILURE", 10.0))
    later = completed_event(Build("b1", START, START + 20 * SECOND, "SUCCESS", 20.0), event_id="again")
    for events in ([first, later], [later, first]):
        clear(warehouse)
        for event in events:
            assert ingest(warehouse, [event]).stored == 1
        assert warehouse.execute("SELECT outcome, duration FROM builds").fetchall() == [("SUCCESS", 20.0)]


def test_duplicates_change_nothing(warehouse: psycopg.Connection) -> None:
    result = ingest(warehouse, EVENTS + EVENTS[:10])
    assert (result.received, result.stored, result.duplicates) == (len(EVENTS) + 10, len(EVENTS), 10)
    before = dump(warehouse)
    [rows] = warehouse.execute("SELECT count(*) FROM feature_log_tenant_load_v1").fetchall()
    result = ingest(warehouse, EVENTS)
    assert (result.stored, result.duplicates, result.feature_rows) == (0, len(EVENTS), 0)
    assert dump(warehouse) == before
    assert warehouse.execute("SELECT count(*) FROM feature_log_tenant_load_v1").fetchall() == [rows]


def test_a_batch_that_fails_leaves_nothing(warehouse: psycopg.Connection) -> None:
    warehouse.execute("ALTER TABLE feature_log_tenant_load_v1 ADD CHECK (queued_count_1h < 3)")
    with pytest.raises(psycopg.errors.CheckViolation):
        ingest(warehouse, [*EVENTS, b"garbage"])
    assert not any(dump(warehouse).values())


def test_it_refuses_to_acknowledge_before_the_commit(warehouse_url: str) -> None:
    with psycopg.connect(warehouse_url) as connection:
        connection.execute("SELECT 1")
        with pytest.raises(RuntimeError, match="commit"):
            ingest(connection, EVENTS)


def test_an_empty_batch_is_no_error(warehouse: psycopg.Connection) -> None:
    assert ingest(warehouse, []).received == 0
    assert ingest_many(warehouse, []).received == 0


@pytest.mark.parametrize("order", ["same", "opposite"])
def test_two_who_ingest_the_same_events_at_once_end_as_one_would(warehouse_url: str, order: str) -> None:
    orders = [EVENTS, EVENTS if order == "same" else EVENTS[::-1], EVENTS[1::2]]

    def bring(events: list[bytes]) -> int:
        with psycopg.connect(warehouse_url, autocommit=True) as connection:
            return sum(ingest(connection, events[at : at + 7]).stored for at in range(0, len(events), 7))

    with ThreadPoolExecutor(len(orders)) as threads:
        stored = sum(threads.map(bring, orders))
    assert stored == len(EVENTS)
    with psycopg.connect(warehouse_url) as connection:
        assert_log_is_right(connection, BUILDS)


# The third batch's rows are written and its transaction is not committed, or it is and nobody was told.
_KILLED = """
import os, signal, sys
from pathlib import Path
import psycopg
from conductor_warehouse import bulk, ingestion
from conductor_warehouse.features import log as feature_log
from conductor_warehouse.event_files import read_event_file

url, file, point = sys.argv[1:]
append, batches = feature_log.append, 0

def killed_append(*arguments):
    global batches
    batches += 1
    count = append(*arguments)
    if point == "before commit" and batches == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return count

def killed_progress(result):
    if point == "after commit" and result.received >= 90:
        os.kill(os.getpid(), signal.SIGKILL)

feature_log.append = killed_append
with psycopg.connect(url, autocommit=True) as connection:
    bulk.ingest_many(connection, read_event_file(Path(file)), batch_size=30, progress=killed_progress)
"""


@pytest.mark.parametrize("point", ["before commit", "after commit"])
def test_killed_midway_and_run_again_it_ends_the_same(warehouse_url: str, events_file: Path, point: str) -> None:
    assert programs.run(_KILLED, warehouse_url, str(events_file), point) == -signal.SIGKILL
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        [(stored,)] = connection.execute("SELECT count(*) FROM inbox").fetchall()
        assert stored % 30 == 0
        # Those of the third batch are there exactly if it was committed.
        assert stored == 60 if point == "before commit" else stored >= 90
        result = ingest_many(connection, EVENTS, batch_size=30)
        assert (result.stored, result.duplicates) == (len(EVENTS) - stored, stored)
        assert_log_is_right(connection, BUILDS)
        after_the_crash = dump(connection)
        clear(connection)
        ingest_many(connection, EVENTS, batch_size=30)
        assert dump(connection) == after_the_crash


def test_a_server_that_crashes_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    from conductor_warehouse import schema
    from conductor_workbench.embedded import EmbeddedPostgres

    with EmbeddedPostgres(tmp_path / "postgres", keep=False) as server:
        url = server.create_database("crash")
        schema.migrate(url)
        acknowledged = 0
        with psycopg.connect(url, autocommit=True) as connection:
            for at in range(0, 60, 20):
                acknowledged += ingest(connection, EVENTS[at : at + 20]).stored
            os.kill(server.pid, signal.SIGQUIT)
            with pytest.raises(psycopg.OperationalError):
                for at in range(60, len(EVENTS), 20):
                    acknowledged += ingest(connection, EVENTS[at : at + 20]).stored
        server.kill()
        server.start()
        with psycopg.connect(url, autocommit=True) as connection:
            [(stored,)] = connection.execute("SELECT count(*) FROM inbox").fetchall()
            assert stored >= acknowledged >= 60
            ingest_many(connection, EVENTS)
            assert_log_is_right(connection, BUILDS)


def test_two_who_need_the_same_partition_at_once_both_get_it(warehouse: psycopg.Connection, warehouse_url: str) -> None:
    if warehouse.execute("SELECT has_timescale()").fetchone() == (True,):
        pytest.skip("TimescaleDB makes its own chunks")
    ensure = "SELECT ensure_partitions('completed_builds', '2031-01-05', '2031-01-06')"
    with psycopg.connect(warehouse_url) as first, psycopg.connect(warehouse_url, autocommit=True) as second:
        first.execute(ensure)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(second.execute, ensure)
            while not warehouse.execute("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchall():
                assert not waiting.done()
            first.commit()
            waiting.result()
    assert warehouse.execute("SELECT to_regclass('completed_builds_203101') IS NOT NULL").fetchone() == (True,)
