"""How fast events become rows, beside raw COPY of the same rows, and how soon their features are online."""

from __future__ import annotations

import itertools
import multiprocessing
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psycopg

from conductor_warehouse import schema
from conductor_warehouse.bulk import ingest_many
from conductor_warehouse.ingestion import ingest
from conductor_workbench.bench.copy_floor import measure_floor
from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.freshness import measure_freshness
from conductor_workbench.bench.ingestion_events import RESULTS_PER_RUN, build_events, test_events
from conductor_workbench.embedded import EmbeddedPostgres, EmbeddedRedis
from conductor_workbench.embedded.child import ChildFailed

BUILD_EVENTS = 60_000
"""How many are ingested where nobody says otherwise."""
_TEST_RUNS = 60
_FRESHNESS_SECONDS = 10.0
_WORKERS = 2
_MOST_PREPARED = 100_000
"""Events of a worker; of more, each is made when its turn comes, and making it counts."""
_STRETCHES = 10
"""Of a run, whose rates make the curve."""
EventsOf = Callable[[int, int], Iterator[bytes]]
"""Makes a worker's events: of so many, by its number."""


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
        seconds, curve = _ingest(url, events_of, count, workers)
        found[f"workers_{workers}"] = {
            "items_per_s": significant(count * items / seconds),
            "worker_items_per_s_by_tenth": [significant(rate * items) for rate in curve],
        }
    with psycopg.connect(url, autocommit=True) as connection:
        floor = measure_floor(connection)
        found["bytes_per_item"] = significant(_bytes(connection) / count / items)
        found["compressed_bytes_per_item"] = _compress(connection) and significant(_bytes(connection) / count / items)
    found["floor"] = {
        "items_per_s": significant(count * items / floor["rows_seconds"]),
        "items_per_s_in_blocks": significant(count * items / floor["blocks_seconds"]),
    }
    best = max(found[f"workers_{workers}"]["items_per_s"] for workers in (1, _WORKERS))
    found["items_per_s"] = best
    found["share_of_floor"] = significant(best / found["floor"]["items_per_s"])
    return found


def _ingest(url: str, events_of: EventsOf, count: int, workers: int) -> tuple[float, list[float]]:
    """Seconds from the first event to the last commit, and the first worker's rate in each tenth of its events."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers + 1), context.Queue()
    processes = [
        context.Process(target=_work, args=(url, events_of, worker, count // workers, barrier, results), daemon=True)
        for worker in range(workers)
    ]
    for process in processes:
        process.start()
    barrier.wait(timeout=300)
    begin = time.perf_counter()
    curves: list[list[float]] = []
    while len(curves) < workers:
        try:
            curves.append(results.get(timeout=0.5))
        except queue.Empty:
            if any(process.exitcode for process in processes):
                raise ChildFailed("a process that ingests events has died") from None
    seconds = time.perf_counter() - begin
    for process in processes:
        process.join()
    return seconds, curves[0]


def _work(url: str, events_of: EventsOf, worker: int, count: int, barrier: Barrier, results: Any) -> None:
    events: Iterable[bytes] = events_of(worker, count)
    if count <= _MOST_PREPARED:
        events = list(events)
    marks = [(0, 0.0)]
    with psycopg.connect(url, autocommit=True) as connection:
        # Imports and first plans are not what is measured.
        ingest(connection, events_of(worker + 100, 2))
        barrier.wait(timeout=300)
        begin = time.perf_counter()
        ingest_many(
            connection,
            events,
            progress=lambda so_far: marks.append((so_far.received, time.perf_counter() - begin)),
        )
    results.put(_rates(marks))


def _rates(marks: list[tuple[int, float]]) -> list[float]:
    """Events per second in each stretch of the way."""
    places = [round(part * (len(marks) - 1) / _STRETCHES) for part in range(_STRETCHES + 1)]
    return [
        (marks[end][0] - marks[begin][0]) / (marks[end][1] - marks[begin][1])
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


def _bytes(connection: psycopg.Connection[Any]) -> int:
    """What tables and indexes take, with partitions and chunks."""
    row = connection.execute(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN"
        " ('public', '_timescaledb_internal'))"
    ).fetchone()
    return int(row[0]) if row else 0
