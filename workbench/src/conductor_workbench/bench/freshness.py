"""How soon after its acknowledgement an event's feature row is online."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
from redis import Redis

from conductor_features.keys import entity_key
from conductor_features.views import TENANT_LOAD
from conductor_warehouse import schema
from conductor_warehouse.ingestion import ingest
from conductor_warehouse.tailing_writer import TailingWriter
from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.ingestion_events import START, build_events, event, stamp
from conductor_workbench.embedded import EmbeddedPostgres

_RATE = 100
"""Events per second that come in while freshness is measured."""


def measure_freshness(postgres: EmbeddedPostgres, redis_url: str, seconds: float) -> Figures:
    """Milliseconds from an event's acknowledgement until its feature row is online, while others come in."""
    url = postgres.create_database("bench_freshness")
    schema.migrate(url)
    key = entity_key(TENANT_LOAD.key, ("fresh",))
    delays: list[float] = []
    with (
        _tailing(url, redis_url),
        psycopg.connect(url, autocommit=True) as connection,
        Redis.from_url(redis_url) as redis,
        _load(url),
    ):
        begin, number = time.monotonic(), 0
        while time.monotonic() - begin < seconds:
            at = START + timedelta(seconds=number)
            context = {"repository": "r", "pipeline": "p", "queuedTime": stamp(at)}
            data = {"buildId": f"b{number}", "context": context}
            before = redis.get(key)
            ingest(connection, [event("build.queued", f"b{number}", at, "fresh", data)])
            acknowledged = time.monotonic()
            while redis.get(key) == before and time.monotonic() - acknowledged < 10:
                time.sleep(0.001)
            delays.append((time.monotonic() - acknowledged) * 1000)
            number += 1
    delays.sort()
    return {
        "other_events_per_s": _RATE,
        "events": len(delays),
        "p50_ms": significant(statistics.median(delays)),
        "p95_ms": significant(delays[int(0.95 * len(delays))]),
        "most_ms": significant(delays[-1]),
    }


@contextmanager
def _tailing(url: str, redis_url: str) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=TailingWriter(url, redis_url).run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _load(url: str) -> Iterator[None]:
    """Build events at a steady rate, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=_send, args=(url, stop))
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join()


def _send(url: str, stop: Any) -> None:
    events = list(build_events(9, 60 * _RATE))
    size = _RATE // 10
    with psycopg.connect(url, autocommit=True) as connection:
        for begin in range(0, len(events), size):
            if stop.wait(0.1):
                return
            ingest(connection, events[begin : begin + size])
