"""EventService: events come in by gRPC and are acknowledged after their commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime

import grpc.aio

from conductor.events.v1 import event_service_pb2_grpc
from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor.events.v1.event_service_pb2 import DeadLetter, PublishEventsRequest, PublishEventsResponse
from conductor_rpc.exceptions import TenantMismatch
from conductor_rpc.server import Service
from conductor_warehouse.ingestion import IngestResult

SERVICE_NAME = "conductor.events.v1.EventService"

Ingest = Callable[[Sequence[CloudEvent], str], Awaitable[IngestResult]]
"""Stores a batch of one tenant's events; returns after the commit, or raises WarehouseUnavailable."""


class EventServicer(event_service_pb2_grpc.EventServiceServicer):
    """Translates and delegates. Credentials, field rules and the size of batches are checked before it is called."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    async def PublishEvents(  # noqa: N802 - the contract's name
        self,
        request_iterator: AsyncIterator[PublishEventsRequest],
        context: grpc.aio.ServicerContext[PublishEventsRequest, PublishEventsResponse],
    ) -> PublishEventsResponse:
        """Store batch after batch, each committed before the next is read."""
        total = IngestResult()
        async for request in request_iterator:
            _require_own_events(request)
            total.add(await self._ingest(request.events, request.tenant_id))
        return _response(total)


def event_service(ingest: Ingest) -> Service:
    """The service, to be served by ``conductor_rpc``."""
    servicer = EventServicer(ingest)
    return Service(
        SERVICE_NAME,
        lambda server: event_service_pb2_grpc.add_EventServiceServicer_to_server(servicer, server),
    )


def _require_own_events(request: PublishEventsRequest) -> None:
    """Another tenant's event in a batch is refused with the whole batch; one without a tenant is a dead letter."""
    if any(event.tenant_id not in {"", request.tenant_id} for event in request.events):
        raise TenantMismatch


def _response(result: IngestResult) -> PublishEventsResponse:
    response = PublishEventsResponse(
        received_count=result.received,
        stored_count=result.stored,
        duplicate_count=result.duplicates,
        dead_letter_count=result.dead_letter_count,
        expired_count=result.expired,
        parked_count=result.parked,
    )
    now = datetime.now(UTC)
    for letter in result.dead_letters:
        told = DeadLetter(event_id=letter.event_id, event_source=letter.source, reason=letter.reason)
        told.dead_letter_time.FromDatetime(now)
        response.dead_letters.append(told)
    return response
