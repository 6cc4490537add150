"""Processes that ingest made-up events at once."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple

import psycopg

from conductor_warehouse.bulk import ingest_many
from conductor_warehouse.ingestion import ingest
from conductor_workbench.embedded.child import ChildFailed

_MOST_PREPARED = 100_000
"""Events of a worker; of more, each is made when its turn comes, and making it counts."""
_START_SECONDS = 300

EventsOf = Callable[[int, int], Iterator[bytes]]
"""Makes a worker's events: by its number, so many."""


class Mark(NamedTuple):
    """How far a worker is."""

    events: int
    seconds: float
    """Since all began."""


def ingest_at_once(
    url: str, events_of: EventsOf, count: int, workers: int, progress: Callable[[int], None] = lambda _: None
) -> tuple[float, list[list[Mark]]]:
    """Seconds from the first event to the last commit, and each worker's marks, one after each of its commits.

    Args:
        url: of a migrated database.
        events_of: the events.
        count: of all workers together.
        workers: processes, which share the events evenly.
        progress: told, now and then, how many events all workers have taken in.

    Raises:
        ChildFailed: a worker died.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers + 1), context.Queue()
    so_far = context.Array("q", workers)
    processes = [
        context.Process(
            target=_work, args=(url, events_of, worker, count // workers, barrier, so_far, results), daemon=True
        )
        for worker in range(workers)
    ]
    for process in processes:
        process.start()
    barrier.wait(timeout=_START_SECONDS)
    begin = time.perf_counter()
    found: list[list[Mark]] = []
    told = 0
    while len(found) < workers:
        try:
            found.append(results.get(timeout=0.5))
        except queue.Empty:
            if any(process.exitcode for process in processes):
                raise ChildFailed("a process that ingests events has died") from None
            done = sum(so_far[:])
            if done > told:
                progress(done)
                told = done
    seconds = time.perf_counter() - begin
    for process in processes:
        process.join()
    return seconds, found


def _work(url: str, events_of: EventsOf, worker: int, count: int, barrier: Barrier, so_far: Any, results: Any) -> None:
    events: Iterable[bytes] = events_of(worker, count)
    if count <= _MOST_PREPARED:
        events = list(events)
    with psycopg.connect(url, autocommit=True) as connection:
        # Imports and first plans are not what is measured.
        ingest(connection, events_of(worker + 100, 2))
        barrier.wait(timeout=_START_SECONDS)
        begin = time.perf_counter()
        marks = [Mark(0, 0.0)]

        def mark(received: int) -> None:
            marks.append(Mark(received, time.perf_counter() - begin))
            so_far[worker] = received

        ingest_many(connection, events, progress=lambda result: mark(result.received))
    results.put(marks)
