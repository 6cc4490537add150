"""Committed rows reach Redis: all of them, soon, and again after a loss."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import redis

import ending
import programs
from conductor_features.codec import decode
from conductor_features.filling import position_key
from conductor_features.keys import entity_key
from conductor_features.rows import to_microseconds
from conductor_features.views import BUILD_VIEWS, VIEWS
from conductor_warehouse import schema
from conductor_warehouse.cursors import lags
from conductor_warehouse.features import log as feature_log
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.tailing_writer import TailingWriter, tail
from conductor_workbench.embedded import EmbeddedPostgres, EmbeddedRedis
from databases import migrated
from machine import within
from warehouse.histories import (
    START,
    Build,
    completed_event,
    events_of,
    latest_rows,
    queued_event,
    random_history,
)

SECOND = timedelta(seconds=1)
EVENTS = events_of(random_history(seed=50, count=80))


@contextmanager
def tailing(database_url: str, redis_url: str, **settings: Any) -> Iterator[None]:
    writer = TailingWriter(database_url, redis_url, retry_seconds=0.2, **settings)
    with ending.thread(writer.run):
        yield


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def online(redis_url: str, database_url: str) -> dict[Any, Any]:
    """What Redis holds for every entity of the logs: (event time, bits of the values)."""
    found = {}
    with redis.Redis.from_url(redis_url) as client, psycopg.connect(database_url) as connection:
        for view in BUILD_VIEWS:
            for entity in {moment[0] for moment in latest_rows(connection, view)}:
                key = entity_key(view.key, entity)
                value = client.get(key)
                if value is not None:
                    row = decode(key, value, len(view.fields))
                    found[view.key, entity] = (row.event_time_us, row.values.tobytes())
    return found


def logged(database_url: str) -> dict[Any, Any]:
    """The same, by the logs."""
    found = {}
    with psycopg.connect(database_url) as connection:
        for view in BUILD_VIEWS:
            for (entity, at), row in sorted(latest_rows(connection, view).items()):
                values = np.array(list(row.values()), dtype=np.float64)
                found[view.key, entity] = (to_microseconds(at), values.tobytes())
    return found


def test_log_online_value_and_recomputation_agree_bit_for_bit(warehouse_url: str, redis_url: str) -> None:
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        for at in range(0, len(EVENTS), 25):
            ingest(connection, EVENTS[at : at + 25])
            TailingWriter(warehouse_url, redis_url, batch_size=10).catch_up()
        expected = logged(warehouse_url)
        assert online(redis_url, warehouse_url) == expected
        assert len(expected) > 15
        assert [lag.rows for lag in lags(connection)] == [0] * len(VIEWS)
        for view in BUILD_VIEWS:
            moments = sorted(latest_rows(connection, view))
            recomputed = feature_log.compute(connection, view, moments)
            of_log = [tuple(latest_rows(connection, view)[moment].values()) for moment in moments]
            assert np.array(recomputed, dtype=np.float64).tobytes() == np.array(of_log, dtype=np.float64).tobytes()


def test_rows_of_a_transaction_that_commits_late_are_not_missed(warehouse_url: str, redis_url: str) -> None:
    """Numbers are drawn before the commit: the one who drew first may commit last."""
    row = "INSERT INTO feature_log_tenant_load_v1 (tenant_id, event_timestamp, created, queued_count_1h) VALUES"
    writer = TailingWriter(warehouse_url, redis_url)
    with psycopg.connect(warehouse_url) as early, psycopg.connect(warehouse_url, autocommit=True) as late:
        late.execute("SELECT ensure_partitions('feature_log_tenant_load_v1', now(), now())")
        # TimescaleDB makes a chunk for the first row, and who comes second waits for it.
        late.execute(f"{row} ('nobody', now(), now(), 0)")
        late.execute("DELETE FROM feature_log_tenant_load_v1")
        early.execute(f"{row} ('early', now(), now(), 1)")
        late.execute(f"{row} ('late', now(), now(), 2)")
        with writer._connected() as (reading, _, client):
            pending = writer._carry_all(reading, client, threading.Event())
        assert pending
        assert online(redis_url, warehouse_url) == {}
        early.commit()
    writer.catch_up()
    assert {entity for _, entity in online(redis_url, warehouse_url)} == {("early",), ("late",)}


def test_corrections_of_the_same_moment_reach_redis(warehouse_url: str, redis_url: str) -> None:
    writer = TailingWriter(warehouse_url, redis_url)
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        ingest(connection, [completed_event(Build("b2", START, START + 90 * SECOND, duration=90.0))])
        writer.catch_up()
        ingest(connection, [completed_event(Build("b1", START, START + 10 * SECOND, duration=10.0))])
        writer.catch_up()
    assert online(redis_url, warehouse_url) == logged(warehouse_url)


def test_an_acknowledged_event_is_online_within_a_second(warehouse_url: str, redis_url: str) -> None:
    view = VIEWS["tenant_load_v1"]
    key = entity_key(view.key, ("acme",))
    delays = []
    with (
        tailing(warehouse_url, redis_url),
        psycopg.connect(warehouse_url, autocommit=True) as connection,
        redis.Redis.from_url(redis_url) as client,
    ):
        until(lambda: bool(client.get(position_key(view.key))))
        first = time.monotonic()
        for number in range(40):
            build = Build(f"b{number}", START + number * SECOND, None)
            ingest(connection, [queued_event(build)])
            begin = time.monotonic()
            moment = to_microseconds(build.queued)
            until(lambda moment=moment: _event_time(client.get(key), key) == moment)  # type: ignore[misc]
            delays.append(time.monotonic() - begin)
    assert within(sorted(delays)[int(0.95 * len(delays))], 1.0, first, share=0.95)


def _event_time(value: bytes | None, key: bytes) -> int | None:
    return decode(key, value, len(VIEWS["tenant_load_v1"].fields)).event_time_us if value else None


def test_redis_that_lost_everything_is_filled_again(
    warehouse_url: str, warehouse: psycopg.Connection, own_redis: EmbeddedRedis
) -> None:
    with tailing(warehouse_url, own_redis.url, batch_size=7):
        ingest(warehouse, EVENTS[:100])
        until(lambda: online(own_redis.url, warehouse_url) == logged(warehouse_url))
        own_redis.kill()
        ingest(warehouse, EVENTS[100:])
        time.sleep(0.3)  # long enough to fail at least once
        own_redis.start()
        until(lambda: online(own_redis.url, warehouse_url) == logged(warehouse_url))
        with redis.Redis.from_url(own_redis.url) as client:
            client.flushall()
        until(lambda: online(own_redis.url, warehouse_url) == logged(warehouse_url))


def test_redis_that_fell_back_is_brought_up_again(warehouse_url: str, redis_url: str) -> None:
    """A replica took over that lacks the last writes, its position among them."""
    writer = TailingWriter(warehouse_url, redis_url)
    with (
        psycopg.connect(warehouse_url, autocommit=True) as connection,
        redis.Redis.from_url(redis_url) as client,
    ):
        ingest(connection, EVENTS[:60])
        writer.catch_up()
        before = {key: client.dump(key) for key in client.scan_iter()}
        ingest(connection, EVENTS[60:])
        writer.catch_up()
        client.flushall()
        for key, value in before.items():
            client.restore(key, 0, value)
    writer.catch_up()
    assert online(redis_url, warehouse_url) == logged(warehouse_url)


def test_a_redis_that_served_another_database_is_filled_from_this_one(
    embedded_postgres: EmbeddedPostgres, warehouse_url: str, redis_url: str
) -> None:
    with migrated(embedded_postgres) as other:
        for url in (other, warehouse_url):
            with psycopg.connect(url, autocommit=True) as connection:
                ingest(connection, EVENTS)
            TailingWriter(url, redis_url).catch_up()
        with redis.Redis.from_url(redis_url) as client:
            for key in client.keys("cf1:*"):
                client.delete(key)
        # The position that Redis holds is that of `warehouse_url`; for the other one it means nothing.
        TailingWriter(other, redis_url).catch_up()
        assert online(redis_url, other) == logged(other)


def test_it_survives_a_restart_of_postgres(tmp_path: Path, redis_url: str) -> None:
    with EmbeddedPostgres(tmp_path / "postgres", keep=False) as server:
        url = server.create_database("restarted")
        schema.migrate(url)
        with tailing(url, redis_url):
            with psycopg.connect(url, autocommit=True) as connection:
                ingest(connection, EVENTS[:50])
            until(lambda: online(redis_url, url) == logged(url))
            server.kill()
            server.start()
            with psycopg.connect(url, autocommit=True) as connection:
                ingest(connection, EVENTS[50:])
            until(lambda: online(redis_url, url) == logged(url))


def test_of_two_writers_one_works_and_the_other_takes_over(warehouse_url: str, redis_url: str) -> None:
    with psycopg.connect(warehouse_url, autocommit=True) as connection, tailing(warehouse_url, redis_url):
        with tailing(warehouse_url, redis_url):
            ingest(connection, EVENTS[:50])
            until(lambda: online(redis_url, warehouse_url) == logged(warehouse_url))
        ingest(connection, EVENTS[50:])
        until(lambda: online(redis_url, warehouse_url) == logged(warehouse_url))


def test_killed_midway_it_goes_on_where_it_was(warehouse_url: str, redis_url: str) -> None:
    program = (
        "import os, signal, sys\n"
        "from conductor_warehouse import tailing_writer as t\n"
        "save, saved = t.save_cursor, 0\n"
        "def killed(*arguments):\n"
        "    global saved\n"
        "    saved += 1\n"
        "    if saved == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    save(*arguments)\n"
        "t.save_cursor = killed\n"
        "t.TailingWriter(*sys.argv[1:], batch_size=20).catch_up()\n"
    )
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        ingest(connection, EVENTS)
    assert programs.run(program, warehouse_url, redis_url) == -signal.SIGKILL
    assert online(redis_url, warehouse_url) != logged(warehouse_url)
    TailingWriter(warehouse_url, redis_url).catch_up()
    assert online(redis_url, warehouse_url) == logged(warehouse_url)


def test_it_waits_for_services_that_are_not_there_and_stops_at_once(tmp_path: Path) -> None:
    nowhere = f"postgresql://conductor@/x?host={tmp_path}"
    with ending.thread(lambda stop: tail(nowhere, f"unix://{tmp_path}/none.sock", stop)) as thread:
        time.sleep(0.5)
        assert thread.is_alive()
        begin = time.monotonic()
    assert within(time.monotonic() - begin, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_carries_rows_and_ends_on_a_signal(
    warehouse_url: str, redis_url: str, number: signal.Signals
) -> None:
    environment = os.environ | {"CONDUCTOR_DATABASE_URL": warehouse_url, "CONDUCTOR_REDIS_URL": redis_url}
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        ingest(connection, EVENTS)
    command = [sys.executable, "-m", "conductor_client.command", "warehouse", "tail"]
    with ending.process(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"Carrying feature rows" in process.stdout.readline()
        until(lambda: online(redis_url, warehouse_url) == logged(warehouse_url))
        process.send_signal(number)
        assert process.wait(60) == 0
