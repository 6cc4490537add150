"""Takes events from a Redis Stream into the warehouse, with the guarantees of every other way in.

Consumers of one group share the stream. An entry is acknowledged, and removed from the stream, after the commit of its
event. What a consumer that died had read stays pending in the group and is claimed by another one; taking an event in
twice changes nothing. So no event is lost, and none is stored twice, wherever a consumer is killed.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import psycopg
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from conductor_warehouse.ingestion import IngestResult, ingest

_LOG = logging.getLogger(__name__)
EVENT_FIELD = b"event"
"""Field of an entry that holds one CloudEvent as JSON."""
_FIRST_RETRY_SECONDS = 0.1
_BLOCK_MILLISECONDS = 250
"""How long a read waits for entries, and so how often a consumer looks whether it should stop."""
_TIMEOUT_SECONDS = 5.0

_Entry = tuple[bytes, dict[bytes, bytes] | None]
"""Id and fields; no fields where the entry has been deleted while it was pending."""


class StreamConsumer:
    """One consumer of a group. Runs until it is told to stop, through restarts of Redis and PostgreSQL."""

    def __init__(
        self,
        database_url: str,
        redis_url: str,
        *,
        stream: str,
        group: str,
        consumer: str,
        batch_size: int = 1_000,
        claim_seconds: float = 30.0,
        retry_seconds: float = 5.0,
        tenant_id: str | None = None,
        progress: Callable[[IngestResult], None] = lambda _: None,
    ) -> None:
        """
        Args:
            database_url: the warehouse; the tables' owner unless there is a ``tenant_id``.
            redis_url: where the stream is.
            stream: its key.
            group: consumers with the same group share the stream. Created at the stream's beginning if it is not there.
            consumer: this one's name, its own within the group. One that comes back goes on with what it had read.
            batch_size: entries in a transaction.
            claim_seconds: how long an entry is pending before another consumer may claim it.
            retry_seconds: longest pause between attempts while Redis or PostgreSQL does not answer.
            tenant_id: the tenant that all events must belong to; None takes any.
            progress: told, after each batch, what has become of the events so far.
        """
        self._database_url, self._redis_url = database_url, redis_url
        self._stream, self._group, self._consumer = stream, group, consumer
        self._batch_size, self._retry_seconds = batch_size, retry_seconds
        self._claim_milliseconds = int(claim_seconds * 1000)
        self._tenant_id, self._progress = tenant_id, progress
        self.total = IngestResult()

    def run(self, stop: threading.Event) -> IngestResult:
        """Take entries until ``stop`` is set; a batch under way is finished and acknowledged first."""
        pause = _FIRST_RETRY_SECONDS
        while not stop.is_set():
            try:
                with (
                    psycopg.connect(self._database_url, autocommit=True, connect_timeout=5) as connection,
                    Redis.from_url(self._redis_url, socket_timeout=_TIMEOUT_SECONDS) as redis,
                ):
                    self._create_group(redis)
                    # What this consumer had read when it ended last time.
                    while not stop.is_set() and self._take(connection, redis, self._read(redis, b"0")):
                        pause = _FIRST_RETRY_SECONDS
                    while not stop.is_set():
                        self._take(connection, redis, self._claim(redis))
                        self._take(connection, redis, self._read(redis, b">"))
                        pause = _FIRST_RETRY_SECONDS
            except (psycopg.Error, RedisError, OSError) as error:
                _LOG.warning("events are not taken from the stream, trying again in %.1f s: %s", pause, error)
                stop.wait(pause)
                pause = min(2 * pause, self._retry_seconds)
        return self.total

    def _create_group(self, redis: Redis) -> None:
        try:
            redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _read(self, redis: Redis, after: bytes) -> list[_Entry]:
        """Entries that nobody has read (after ``>``), or this consumer's pending ones (after ``0``)."""
        found = redis.xreadgroup(
            self._group,
            self._consumer,
            {self._stream: after},
            count=self._batch_size,
            block=_BLOCK_MILLISECONDS if after == b">" else None,
        )
        return cast(Any, found)[0][1] if found else []

    def _claim(self, redis: Redis) -> list[_Entry]:
        """Entries that another consumer read and has not acknowledged for too long."""
        _, entries, *_ = cast(
            Any,
            redis.xautoclaim(
                self._stream, self._group, self._consumer, self._claim_milliseconds, count=self._batch_size
            ),
        )
        return cast(list[_Entry], entries)

    def _take(self, connection: psycopg.Connection[Any], redis: Redis, entries: Sequence[_Entry]) -> bool:
        """Store the entries' events, then acknowledge the entries and remove them; returns whether there were any."""
        if not entries:
            return False
        events = [_event(fields) for _, fields in entries if fields]
        if events:
            self.total.add(ingest(connection, events, self._tenant_id))
        ids = [entry for entry, _ in entries]
        with redis.pipeline(transaction=True) as pipeline:
            pipeline.xack(self._stream, self._group, *ids)
            pipeline.xdel(self._stream, *ids)
            pipeline.execute()
        self._progress(self.total)
        return True


def _event(fields: dict[bytes, bytes]) -> bytes:
    """The event as it came. An entry without one becomes a dead letter that shows what it held."""
    event = fields.get(EVENT_FIELD)
    if event is not None:
        return event
    return json.dumps(
        {name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()}
    ).encode()
