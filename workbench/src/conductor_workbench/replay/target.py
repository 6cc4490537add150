"""What a replay runs against: clients of a running Conductor, and how to know that it has taken everything in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Self

from conductor.events.v1.cloud_event_pb2 import CloudEvent
from conductor_client import ConductorClient, PublishedEvents, Unavailable

_LONGEST_OUTAGE_SECONDS = 30.0
"""How long to go on trying to deliver events."""

TokenFor = Callable[[str], str]
Train = Callable[[str, datetime], Awaitable[None]]
Settle = Callable[[], Awaitable[None]]


@dataclass
class Target:
    """A Conductor to replay against. Opens one connection per tenant, each with that tenant's token."""

    prediction_target: str
    events_target: str
    token_for: TokenFor | None
    """Token of a tenant; None for an insecure target."""
    root_certificates: bytes | None
    settle: Settle
    """Returns once the features of everything acknowledged so far are visible online."""
    train: Train | None
    """Trains and publishes a tenant's model from what was known before a moment, and returns once it serves; None
    where the models are somebody else's."""
    timeout_seconds: float = 1.0
    _clients: dict[tuple[str, str], ConductorClient] = field(default_factory=dict)

    def predictions(self, tenant_id: str) -> ConductorClient:
        """Client of the prediction server for a tenant."""
        return self._client(self.prediction_target, tenant_id)

    async def deliver(self, events: Iterable[CloudEvent]) -> None:
        """Publish events; returns after their commit. Raises ConductorError, or ValueError for dead letters."""
        by_tenant: dict[str, list[CloudEvent]] = {}
        for event in events:
            by_tenant.setdefault(event.tenant_id, []).append(event)
        await asyncio.gather(*(self._publish(tenant, batch) for tenant, batch in by_tenant.items()))

    async def _publish(self, tenant_id: str, events: list[CloudEvent]) -> None:
        published = await self._publish_until_taken(tenant_id, events)
        if published.dead_lettered:
            first = published.dead_letters[0]
            raise ValueError(
                f"{published.dead_lettered} events of {tenant_id} were put aside; {first.event_id}: {first.reason}"
            )

    async def _publish_until_taken(self, tenant_id: str, events: list[CloudEvent]) -> PublishedEvents:
        """Publish, again where the service was away: what it had stored counts as a duplicate."""
        client = self._client(self.events_target, tenant_id)
        deadline = time.monotonic() + _LONGEST_OUTAGE_SECONDS
        while True:
            try:
                return await client.publish_events(tenant_id, events, timeout_seconds=600.0)
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.2)

    def _client(self, target: str, tenant_id: str) -> ConductorClient:
        key = (target, tenant_id)
        if key not in self._clients:
            self._clients[key] = ConductorClient.connect(
                target,
                token=self.token_for(tenant_id) if self.token_for else None,
                root_certificates=self.root_certificates,
                insecure=self.root_certificates is None,
                timeout_seconds=self.timeout_seconds,
            )
        return self._clients[key]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(client.close() for client in self._clients.values()))
        self._clients.clear()
