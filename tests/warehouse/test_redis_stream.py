"""Events of a Redis Stream are stored once each, wherever a consumer is killed and however often they come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

import ending
from conductor_warehouse.streams.consumer import StreamConsumer
from conductor_warehouse.streams.redis_stream import RedisStream
from conductor_workbench.embedded import EmbeddedPostgres, EmbeddedRedis
from warehouse.catalogue import random_events, state
from warehouse.consuming import POINTS, die_at, state_at_once, until

STREAM, GROUP = "events", "warehouse"
EVENTS = random_events(4, 90)


def _fill(url: str, events: Sequence[bytes]) -> None:
    with redis.Redis.from_url(url) as client:
        for event in events:
            client.xadd(STREAM, {"event": event})


def _left(url: str) -> tuple[int, int]:
    """Entries of the stream, and those that are pending."""
    with redis.Redis.from_url(url) as client:
        pending: Any = client.xpending(STREAM, GROUP)
        return client.xlen(STREAM), pending["pending"]


@contextmanager
def _consuming(warehouse_url: str, redis_url: str, name: str = "second", **options: Any) -> Any:
    consumer = StreamConsumer(
        warehouse_url,
        RedisStream(
            redis_url,
            stream=STREAM,
            group=GROUP,
            consumer=name,
            **{"batch_size": 20, "claim_seconds": 0.001} | options,
        ),
        retry_seconds=0.1,
    )
    with ending.thread(consumer.run):
        yield consumer


@pytest.fixture(scope="module")
def expected(embedded_postgres: EmbeddedPostgres) -> dict[str, str]:
    return state_at_once(embedded_postgres, EVENTS)


def test_events_are_stored_and_their_entries_removed(
    warehouse_url: str, warehouse: psycopg.Connection, redis_url: str, expected: dict[str, str]
) -> None:
    _fill(redis_url, EVENTS[:50])
    with _consuming(warehouse_url, redis_url) as consumer:
        until(lambda: consumer.total.received == 50)
        _fill(redis_url, EVENTS[40:])  # ten of them again
        until(lambda: consumer.total.received == 100)
        until(lambda: _left(redis_url) == (0, 0))
    assert (consumer.total.stored, consumer.total.duplicates) == (90, 10)
    assert state(warehouse) == expected


def test_poison_is_parked_and_blocks_nobody(warehouse_url: str, warehouse: psycopg.Connection, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.xadd(STREAM, {"event": b"\xff\xfe garbage"})
        client.xadd(STREAM, {"something": "else"})
        client.xadd(STREAM, {"event": b'{"type": "build.exploded"}'})
    _fill(redis_url, EVENTS[:3])
    with _consuming(warehouse_url, redis_url) as consumer:
        until(lambda: consumer.total.received == 6)
        until(lambda: _left(redis_url) == (0, 0))
    assert (consumer.total.stored, consumer.total.dead_letter_count) == (3, 3)
    letters = warehouse.execute("SELECT payload FROM dead_letters").fetchall()
    assert (b'{"something": "else"}',) in letters


def test_two_consumers_share_a_stream(
    warehouse_url: str, warehouse: psycopg.Connection, redis_url: str, expected: dict[str, str]
) -> None:
    _fill(redis_url, EVENTS)
    with (
        _consuming(warehouse_url, redis_url, "one", batch_size=5, claim_seconds=60) as one,
        _consuming(warehouse_url, redis_url, "two", batch_size=5, claim_seconds=60) as two,
    ):
        until(lambda: one.total.received + two.total.received == len(EVENTS))
        until(lambda: _left(redis_url) == (0, 0))
    assert one.total.stored + two.total.stored == len(EVENTS)
    assert state(warehouse) == expected


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("heir", ["first", "second"])
def test_a_killed_consumer_loses_nothing(
    warehouse_url: str, warehouse: psycopg.Connection, redis_url: str, expected: dict[str, str], point: str, heir: str
) -> None:
    """The one that goes on is the same one, come back, or another one, which claims what was pending."""
    _fill(redis_url, EVENTS)
    die_at(point, warehouse_url, redis_url, STREAM, GROUP)
    stored = (warehouse.execute("SELECT count(*) FROM inbox").fetchone() or [0])[0]
    assert stored == (40 if point in {"committed", "acknowledged"} else 20)
    assert _left(redis_url) == ((50, 0) if point == "acknowledged" else (70, 20))
    with _consuming(warehouse_url, redis_url, heir):
        until(lambda: _left(redis_url) == (0, 0))
    assert state(warehouse) == expected


def test_redis_and_postgres_may_fail_meanwhile(
    warehouse_url: str, warehouse: psycopg.Connection, own_redis: EmbeddedRedis
) -> None:
    _fill(own_redis.url, EVENTS[:30])
    with _consuming(warehouse_url, own_redis.url) as consumer:
        until(lambda: consumer.total.received == 30)
        warehouse.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        _fill(own_redis.url, EVENTS[30:60])
        until(lambda: consumer.total.received >= 60)
        own_redis.kill()
        own_redis.start()  # with nothing: the group is gone too
        _fill(own_redis.url, EVENTS[60:])
        until(lambda: warehouse.execute("SELECT count(*) FROM inbox").fetchone() == (len(EVENTS),))


def test_the_command_consumes_until_sigterm(warehouse_url: str, warehouse: psycopg.Connection, redis_url: str) -> None:
    _fill(redis_url, EVENTS)
    command = [str(Path(sys.executable).parent / "conductor"), "warehouse", "consume", "-o", "json"]
    environment = os.environ | {
        "CONDUCTOR_DATABASE_URL": warehouse_url,
        "CONDUCTOR_EVENT_STREAM_URL": redis_url,
        "CONDUCTOR_EVENT_STREAM": STREAM,
    }
    with ending.process(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: warehouse.execute("SELECT count(*) FROM inbox").fetchone() == (len(EVENTS),))
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f'"stored": {len(EVENTS)}' in output
    with redis.Redis.from_url(redis_url) as client:
        assert client.xlen(STREAM) == 0
