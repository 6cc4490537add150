"""How fast events become rows, beside raw COPY of the same rows, and how soon their features are online."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from conductor_warehouse import schema
from conductor_workbench.bench.copy_floor import measure_floor
from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.freshness import measure_freshness
from conductor_workbench.bench.ingestion_events import RESULTS_PER_RUN, build_events, test_events
from conductor_workbench.bench.ingestion_workers import EventsOf, Mark, ingest_at_once
from conductor_workbench.embedded import EmbeddedPostgres, EmbeddedRedis

BUILD_EVENTS = 60_000
"""How many are ingested where nobody says otherwise."""
_TEST_RUNS = 60
_FRESHNESS_SECONDS = 10.0
_WORKERS = 2
_STRETCHES = 10
"""Of a run, whose rates make the curve."""


def measure_ingestion(directory: Path, say: Callable[[str], None], build_event_count: int = BUILD_EVENTS) -> Figures:
    """Figures of build events and of test runs: one worker, two workers, the floor, the curve, freshness, storage.

    Each measurement has a database of its own. With more build events the curve gets longer.

    Raises:
        ChildFailed: a worker died.
    """
    with (
        EmbeddedPostgres(directory / "postgres", keep=False) as postgres,
        EmbeddedRedis(directory / "redis") as redis,
    ):
        say(f"Ingesting {build_event_count:,} build events")
        builds = _compare(postgres, "builds", build_events, build_event_count, 1)
        say(f"Ingesting {_TEST_RUNS} test runs")
        tests = _compare(postgres, "tests", test_events, _TEST_RUNS, RESULTS_PER_RUN)
        say("Measuring freshness")
        freshness = measure_freshness(postgres, redis.url, _FRESHNESS_SECONDS)
    return {"builds": builds, "tests": tests, "freshness": freshness}


def _compare(postgres: EmbeddedPostgres, name: str, events_of: EventsOf, count: int, items: int) -> Figures:
    """``items``: rows that each event holds, test results for example."""
    found: Figures = {"events": count, "items_per_event": items}
    for workers in (1, _WORKERS):
        url = postgres.create_database(f"bench_{name}_{workers}")
        schema.migrate(url)
        seconds, marks = ingest_at_once(url, events_of, count, workers)
        found[f"workers_{workers}"] = {
            "items_per_s": significant(count * items / seconds),
            "worker_items_per_s_by_tenth": [significant(rate * items) for rate in _rates(marks[0])],
        }
    with psycopg.connect(url, autocommit=True) as connection:
        floor = measure_floor(connection)
        found["bytes_per_item"] = significant(stored_bytes(connection) / count / items)
        found["compressed_bytes_per_item"] = _compress(connection) and significant(
            stored_bytes(connection) / count / items
        )
    found["floor"] = {
        "items_per_s": significant(count * items / floor["rows_seconds"]),
        "items_per_s_in_blocks": significant(count * items / floor["blocks_seconds"]),
    }
    best = max(found[f"workers_{workers}"]["items_per_s"] for workers in (1, _WORKERS))
    found["items_per_s"] = best
    found["share_of_floor"] = significant(best / found["floor"]["items_per_s"])
    return found


def _rates(marks: list[Mark]) -> list[float]:
    """Events per second in each stretch of the way."""
    places = [round(part * (len(marks) - 1) / _STRETCHES) for part in range(_STRETCHES + 1)]
    return [
        (marks[end].events - marks[begin].events) / (marks[end].seconds - marks[begin].seconds)
        for begin, end in itertools.pairwise(dict.fromkeys(places))
    ]


def _compress(connection: psycopg.Connection[Any]) -> bool | None:
    """Compress all that can be; None without TimescaleDB."""
    if connection.execute("SELECT has_timescale()").fetchone() != (True,):
        return None
    connection.execute(
        "SELECT compress_chunk(chunk, if_not_compressed => true) FROM time_tables, show_chunks(table_name) AS chunk"
    )
    return True


def stored_bytes(connection: psycopg.Connection[Any]) -> int:
    """What tables and indexes take, with partitions and chunks."""
    row = connection.execute(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN"
        " ('public', '_timescaledb_internal'))"
    ).fetchone()
    return int(row[0]) if row else 0
