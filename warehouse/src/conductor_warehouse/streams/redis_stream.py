"""A Redis Stream as a source of events.

Consumers of one group share the stream. An entry is acknowledged, and removed, once its event is stored.
What a consumer that died had read stays pending in the group and is claimed by another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Self, cast

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from conductor_warehouse.streams.source import Batch

EVENT_FIELD = b"event"
"""Field of an entry that holds one CloudEvent as JSON."""
_BLOCK_MILLISECONDS = 250
"""How long a read waits for entries, and so how often a consumer looks whether it should stop."""
_TIMEOUT_SECONDS = 5.0

_Entry = tuple[bytes, dict[bytes, bytes] | None]
"""Id and fields; no fields where the entry has been deleted while it was pending."""


class RedisStream:
    """A stream, read by one consumer of a group: a :class:`~conductor_warehouse.streams.source.Source`."""

    failures: tuple[type[Exception], ...] = (RedisError, OSError)

    def __init__(
        self,
        url: str,
        *,
        stream: str,
        group: str,
        consumer: str,
        batch_size: int = 1_000,
        claim_seconds: float = 30.0,
    ) -> None:
        """
        Args:
            url: the Redis.
            stream: the stream's key.
            group: consumers with the same group share the stream. Created at the stream's beginning if it is not there.
            consumer: this one's name, its own within the group. One that comes back goes on with what it had read.
            batch_size: entries in a batch, at most.
            claim_seconds: how long an entry is pending before another consumer may claim it.
        """
        self._url, self._stream, self._group, self._consumer = url, stream, group, consumer
        self._batch_size = batch_size
        self._claim_milliseconds = int(claim_seconds * 1000)
        self._redis: Redis

    @property
    def name(self) -> str:
        """For people."""
        return f"Redis Stream {self._stream}"

    def __enter__(self) -> Self:
        self._redis = Redis.from_url(self._url, socket_timeout=_TIMEOUT_SECONDS)
        return self

    def __exit__(self, *error: object) -> None:
        self._redis.close()

    def batches(self) -> Iterator[Batch | None]:
        """First what this consumer had read when it ended last time; then what others left and new entries, in turn."""
        self._create_group()
        while pending := self._read(b"0"):
            yield self._batch(pending)
        while True:
            if claimed := self._claim():
                yield self._batch(claimed)
            new = self._read(b">")
            yield self._batch(new) if new else None

    def _create_group(self) -> None:
        try:
            self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _read(self, after: bytes) -> list[_Entry]:
        """Entries that nobody has read (after ``>``), or this consumer's pending ones (after ``0``)."""
        found = self._redis.xreadgroup(
            self._group,
            self._consumer,
            {self._stream: after},
            count=self._batch_size,
            block=_BLOCK_MILLISECONDS if after == b">" else None,
        )
        return cast(Any, found)[0][1] if found else []

    def _claim(self) -> list[_Entry]:
        """Entries that another consumer read and has not acknowledged for too long."""
        _, entries, *_ = cast(
            Any,
            self._redis.xautoclaim(
                self._stream, self._group, self._consumer, self._claim_milliseconds, count=self._batch_size
            ),
        )
        return cast(list[_Entry], entries)

    def _batch(self, entries: Sequence[_Entry]) -> Batch:
        return Batch(
            events=[_event(fields) for _, fields in entries if fields],
            acknowledge=partial(self._acknowledge, [entry for entry, _ in entries]),
        )

    def _acknowledge(self, ids: Sequence[bytes]) -> None:
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.xack(self._stream, self._group, *ids)
            pipeline.xdel(self._stream, *ids)
            pipeline.execute()


def _event(fields: dict[bytes, bytes]) -> bytes:
    """The event as it came. An entry without one becomes a dead letter that shows what it held."""
    event = fields.get(EVENT_FIELD)
    if event is not None:
        return event
    return json.dumps(
        {name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()}
    ).encode()
