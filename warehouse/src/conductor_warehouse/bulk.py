"""Takes in many events: files, streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from psycopg import Connection

from conductor_warehouse.data_quality.mode import Mode
from conductor_warehouse.events import Incoming, parse
from conductor_warehouse.ingestion import IngestResult, ingest_parsed


def ingest_many(
    connection: Connection[Any],
    events: Iterable[Incoming],
    tenant_id: str | None = None,
    *,
    batch_size: int = 5_000,
    batch_bytes: int = 8 << 20,
    mode: Mode = Mode.PARK,
    progress: Callable[[IngestResult], None] = lambda _: None,
) -> IngestResult:
    """Take in events batch by batch. While the database stores one batch the next is read.

    Args:
        connection: one without a transaction under way.
        events: any number of them.
        tenant_id: the tenant that all must belong to, or None for any.
        batch_size: events per transaction, at most.
        batch_bytes: bytes of events per transaction: no more are added to a batch that has as many.
        mode: whether a batch that looks wrong as a whole is parked.
        progress: told, after each commit, what became of the events so far.

    Raises:
        psycopg.Error: the database did not answer or refused. What ``progress`` was told of is stored; taking the
            same events in again stores the rest.
    """
    total = IngestResult()
    with ThreadPoolExecutor(1, thread_name_prefix="ingest") as database:
        running: Future[IngestResult] | None = None
        for batch in _batches(events, batch_size, batch_bytes):
            parsed = [parse(event, tenant_id) for event in batch]
            if running is not None:
                total.add(running.result())
                progress(total)
            running = database.submit(ingest_parsed, connection, parsed, tenant_id, mode=mode)
        if running is not None:
            total.add(running.result())
            progress(total)
    return total


def _batches(events: Iterable[Incoming], most: int, most_bytes: int) -> Iterator[list[Incoming]]:
    batch: list[Incoming] = []
    size = 0
    for event in events:
        batch.append(event)
        size += len(event) if isinstance(event, bytes) else event.ByteSize()
        if len(batch) >= most or size >= most_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
