"""What an event costs while the warehouse grows."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql

from conductor_warehouse import schema
from conductor_warehouse.ingestion import ingest
from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.ingestion import stored_bytes
from conductor_workbench.bench.ingestion_events import build_events
from conductor_workbench.bench.ingestion_workers import ingest_at_once
from conductor_workbench.embedded import EmbeddedPostgres

_FIRST = 100_000
"""Events at the curve's first point; before it the warehouse is nearly empty."""
_WORKERS = 2
_TURNS = 5
_BATCH = 5_000
_BY_TURNS = (1 + _TURNS) * _BATCH
_GROWN, _FIRST_POINT, _BESIDE = "bench_grown", "bench_first_point", "bench_beside"


def measure_curve(directory: Path, say: Callable[[str], None], count: int) -> Figures:
    """CPU time per build event, features and all, after 0.1, 0.2, 0.5, 1, 2, 5, … million events.

    At each point batches go by turns into the warehouse that has grown so far and into one that has the first point's
    events only: the ratio is the growth's alone, whatever else the machine does meanwhile. CPU time is of the process
    that ingests and of its database connection. What PostgreSQL does in the background is not in it.

    Raises:
        ChildFailed: a process that ingests died.
        RuntimeError: events were refused, so the warehouse did not grow as it should.
    """
    points: list[Figures] = []
    with EmbeddedPostgres(directory / "postgres", keep=False) as postgres:
        url = postgres.create_database(_GROWN)
        schema.migrate(url)
        # How far the events of each worker have been taken in; the first one's go on by turns at each point.
        begins = [0] * _WORKERS
        for place in _places(count):
            share = (place - sum(begins)) // (2 * _WORKERS) * 2  # both events of a build
            events_of = partial(_events_from, tuple(begins))
            seconds, _ = ingest_at_once(url, events_of, share * _WORKERS, _WORKERS, progress=_told(say, begins, place))
            begins = [begin + share for begin in begins]
            if not points:
                _copy(postgres, _GROWN, _FIRST_POINT)
                first_begin = begins[0]
            _copy(postgres, _FIRST_POINT, _BESIDE)
            say(f"At {place:,} events beside {min(_FIRST, count):,}")
            with _connection(postgres, _GROWN) as grown, _connection(postgres, _BESIDE) as beside:
                more, same = (_events_from((begin,), 0, _BY_TURNS) for begin in (begins[0], first_begin))
                costs = _by_turns(grown, beside, more, same)
                begins[0] += _BY_TURNS
                _require_stored(grown, sum(begins))
                size = stored_bytes(grown)
            points.append(
                {
                    "events": place,
                    "items_per_s": significant(share * _WORKERS / seconds),
                    "cpu_us_per_item": significant(statistics.median(cost for cost, _ in costs)),
                    "cpu_us_per_item_at_first": significant(statistics.median(cost for _, cost in costs)),
                    "ratio": significant(statistics.median(cost / first for cost, first in costs)),
                    "bytes_per_item": significant(size / sum(begins)),
                }
            )
            say(f"At {place:,} events: {points[-1]}")
    return {"events": count, "points": points, "last_ratio": points[-1]["ratio"]}


def _events_from(begins: tuple[int, ...], worker: int, count: int) -> Iterator[bytes]:
    """A worker's next events. Those that warm a worker up are of a worker of their own."""
    begin = begins[worker] if worker < len(begins) else 0
    return build_events(worker, count, begin)


def _told(say: Callable[[str], None], begins: Sequence[int], place: int) -> Callable[[int], None]:
    stored = sum(begins)
    return lambda so_far: say(f"Ingested {stored + so_far:,} of {place:,} events")


def _require_stored(connection: psycopg.Connection[Any], count: int) -> None:
    row = connection.execute("SELECT count(*) FROM inbox").fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    if row[0] < count:
        raise RuntimeError(f"of {count} events {count - row[0]} were not stored")


def _places(count: int) -> Iterator[int]:
    """Where the curve has its points, in events."""
    for exponent in itertools.count():
        for step in (1, 2, 5):
            place = _FIRST * step * 10**exponent
            if place >= count:
                yield count
                return
            yield place


def _by_turns(
    grown: psycopg.Connection[Any], beside: psycopg.Connection[Any], more: Iterator[bytes], same: Iterator[bytes]
) -> Sequence[tuple[float, float]]:
    """CPU µs per event of each turn, in the grown warehouse and in the other."""
    costs = [
        (_cost(grown, list(itertools.islice(more, _BATCH))), _cost(beside, list(itertools.islice(same, _BATCH))))
        for _ in range(1 + _TURNS)
    ]
    return costs[1:]  # the first one of a connection makes its plans and temporary tables


def _cost(connection: psycopg.Connection[Any], events: Sequence[bytes]) -> float:
    processes = (psutil.Process(), psutil.Process(connection.info.backend_pid))
    before = _cpu_seconds(processes)
    ingest(connection, events)
    return 1e6 * (_cpu_seconds(processes) - before) / len(events)


def _cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    used = [process.cpu_times() for process in processes]
    return sum(times.user + times.system for times in used)


def _connection(postgres: EmbeddedPostgres, name: str) -> psycopg.Connection[Any]:
    return psycopg.connect(postgres.database_url(name), autocommit=True)


def _copy(postgres: EmbeddedPostgres, name: str, copy: str) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(copy)))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(copy), sql.Identifier(name)))
