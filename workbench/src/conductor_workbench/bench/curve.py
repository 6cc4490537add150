"""What an event costs while the warehouse grows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg

from conductor_warehouse import schema
from conductor_workbench.bench.figures import Figures, significant
from conductor_workbench.bench.ingestion import stored_bytes
from conductor_workbench.bench.ingestion_events import build_events
from conductor_workbench.bench.ingestion_workers import Mark, ingest_at_once
from conductor_workbench.embedded import EmbeddedPostgres

_WORKERS = 2
_FIRST = 100_000
"""Events up to the curve's first point; before it the warehouse is nearly empty."""


def measure_curve(directory: Path, say: Callable[[str], None], count: int) -> Figures:
    """Rate and CPU time per build event, features and all, between 0.1, 0.2, 0.5, 1, 2, 5, … million events.

    CPU time is of the processes that ingest and of their database connections, so it means the same beside other work;
    making the events is in it. What PostgreSQL does in the background is not.

    Raises:
        ChildFailed: a worker died.
    """
    with EmbeddedPostgres(directory / "postgres", keep=False) as postgres:
        url = postgres.create_database("bench_curve")
        schema.migrate(url)
        seconds, marks = ingest_at_once(
            url,
            build_events,
            count,
            _WORKERS,
            progress=lambda so_far: say(f"Ingested {so_far:,} of {count:,} build events"),
        )
        with psycopg.connect(url, autocommit=True) as connection:
            size = stored_bytes(connection)
    return {
        "events": count,
        "items_per_s": significant(count / seconds),
        "bytes_per_item": significant(size / count),
        "stretches": [_stretch(marks, begin, end) for begin, end in itertools.pairwise(_places(count))],
    }


def _places(count: int) -> Iterator[int]:
    """Ends of the stretches, in events of all workers."""
    yield 0
    for exponent in itertools.count():
        for step in (1, 2, 5):
            place = _FIRST * step * 10**exponent
            if place >= count:
                yield count
                return
            yield place


def _stretch(marks: Sequence[Sequence[Mark]], begin: int, end: int) -> Figures:
    """Each worker's share of the events between two places, put together."""
    events = seconds = cpu_seconds = 0.0
    for of_worker in marks:
        first, last = _nearest(of_worker, begin / len(marks)), _nearest(of_worker, end / len(marks))
        events += last.events - first.events
        seconds += (last.seconds - first.seconds) / len(marks)
        cpu_seconds += last.cpu_seconds - first.cpu_seconds
    if not events:
        return {"up_to": end}
    return {
        "up_to": end,
        "items_per_s": significant(events / seconds),
        "cpu_us_per_item": significant(1e6 * cpu_seconds / events),
    }


def _nearest(marks: Sequence[Mark], events: float) -> Mark:
    return min(marks, key=lambda mark: abs(mark.events - events))
