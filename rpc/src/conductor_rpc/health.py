"""gRPC health: one status per service."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health, health_pb2

SERVICE_NAME: str = health.SERVICE_NAME
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health(health.aio.HealthServicer):
    """The stock servicer, whose watches end when the process stops instead of holding up the drain."""

    def __init__(self, service_names: tuple[str, ...]) -> None:
        super().__init__()
        self._names = ("", *service_names)
        self._closed = asyncio.Event()

    async def report(self, *, serving: bool) -> None:
        """Set the status of every service."""
        for name in self._names:
            await self.set(name, SERVING if serving else NOT_SERVING)

    async def Watch(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> None:
        """Tell the status, and each change of it, until the caller or the process goes."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((watching, closed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            closed.cancel()
            await asyncio.gather(watching, closed, return_exceptions=True)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """The status of every service; the stock servicer does not have this method."""
        asked = (health_pb2.HealthCheckRequest(service=name) for name in self._names)
        statuses = {one.service: await self.Check(one, context) for one in asked}
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]  # its stubs lack it

    def close(self) -> None:
        """End the watches."""
        self._closed.set()
