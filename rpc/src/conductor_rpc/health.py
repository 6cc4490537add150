"""gRPC health: one status per service.

The stock servicer holds a lock of all of a service's watchers while it writes to one of them. A watcher who does not
read, and nobody asks watchers for credentials, would keep the others from being told, and the process from stopping.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICE_NAME: str = health.SERVICE_NAME
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):
    """Tells it to who asks, and each change of it to who watches; waits for none of them."""

    def __init__(self, service_names: tuple[str, ...]) -> None:
        self._names = ("", *service_names)
        self._serves = self._stops = False
        self._changed = asyncio.Event()
        """Set at the next change, which puts another one here."""
        self._closed = asyncio.Event()

    def report(self, *, serving: bool) -> None:
        """Set the status of every service. Once the process stops, it serves no more."""
        self._serves = serving and not self._stops
        self._changed.set()
        self._changed = asyncio.Event()

    def stop_serving(self) -> None:
        """Report NOT_SERVING, whatever is reported later."""
        self._stops = True
        self.report(serving=False)

    async def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """The status of a service."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return self._response(request.service)

    async def Watch(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> None:
        """Tell the status, and each change of it, until the caller or the process goes."""
        watching = asyncio.ensure_future(self._tell(request.service, context))
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((watching, closed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            closed.cancel()
            await asyncio.gather(watching, closed, return_exceptions=True)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """The status of every service."""
        statuses = {name: self._response(name) for name in self._names}
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]  # its stubs lack it

    def close(self) -> None:
        """End the watches."""
        self._closed.set()

    def _response(self, service: str) -> health_pb2.HealthCheckResponse:
        if service not in self._names:
            return health_pb2.HealthCheckResponse(status=_UNKNOWN)
        return health_pb2.HealthCheckResponse(status=SERVING if self._serves else NOT_SERVING)

    async def _tell(self, service: str, context: Any) -> None:
        told = None
        while True:
            changed, response = self._changed, self._response(service)
            if response == told:
                await changed.wait()
            else:
                await context.write(response)
                told = response
