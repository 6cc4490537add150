"""Publishing events: batches on the way out, counts on the way back."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.events.v1.event_service_pb2 import PublishEventsRequest, PublishEventsResponse

MOST_EVENTS = 1000
"""Events in one message of the stream, at most: the contract's limit."""
MOST_BYTES = 1 << 20
"""Bytes in one message, about: far below gRPC's own limit of 4 MiB, unless a single event is larger."""


@dataclass(frozen=True)
class DeadLetter:
    """An event that could not be taken in."""

    event_id: str
    event_source: str
    reason: str
    time: datetime


@dataclass(frozen=True)
class PublishedEvents:
    """What became of the events; everything counted as stored is durable."""

    received: int
    stored: int
    duplicates: int
    """Events that had been stored before; they changed nothing."""
    dead_lettered: int
    dead_letters: tuple[DeadLetter, ...]
    """The first ones, at most 100."""


class Batcher:
    """Collects events into requests."""

    def __init__(self, tenant_id: str) -> None:
        self._tenant_id = tenant_id
        self._events: list[CloudEvent] = []
        self._byte_count = 0

    def add(self, event: CloudEvent) -> PublishEventsRequest | None:
        """Take an event; give the request before it if it doesn't fit in there any more."""
        size = event.ByteSize()
        full = len(self._events) >= MOST_EVENTS or (self._events and self._byte_count + size > MOST_BYTES)
        request = self.flush() if full else None
        self._events.append(event)
        self._byte_count += size
        return request

    def flush(self) -> PublishEventsRequest | None:
        """Give the request of the events left over, if any."""
        if not self._events:
            return None
        request = PublishEventsRequest(tenant_id=self._tenant_id, events=self._events)
        self._events, self._byte_count = [], 0
        return request


def requests(tenant_id: str, events: Iterable[CloudEvent]) -> Iterator[PublishEventsRequest]:
    """The stream of requests for ``events``."""
    batcher = Batcher(tenant_id)
    for event in events:
        if request := batcher.add(event):
            yield request
    if request := batcher.flush():
        yield request


def published_events(response: PublishEventsResponse) -> PublishedEvents:
    """Read an answer."""
    return PublishedEvents(
        received=response.received_count,
        stored=response.stored_count,
        duplicates=response.duplicate_count,
        dead_lettered=response.dead_letter_count,
        dead_letters=tuple(
            DeadLetter(item.event_id, item.event_source, item.reason, item.dead_letter_time.ToDatetime(tzinfo=UTC))
            for item in response.dead_letters
        ),
    )
