"""``/livez``, ``/readyz`` and ``/metrics``.

They are answered on the process's event loop: a loop that hangs is not alive, and a thread of its own would not know.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from uvicorn.protocols.http.h11_impl import H11Protocol

from conductor_rpc.settings import SettingsInvalid

_MAX_HEADER_BYTES = 8 * 1024
_MAX_CONNECTIONS = 64
_BACKLOG = 64
_CONNECTION_SECONDS = 10.0
"""Longest life of a connection: whoever says nothing, or says it slowly, holds no place for longer."""
_STOP_SECONDS = 1
_TEXT = "text/plain; charset=utf-8"

_Message = MutableMapping[str, Any]
_Answer = tuple[int, str, bytes]


class _Connection(H11Protocol):
    """HTTP/1.1, for a while. Where there are too many, the oldest one goes.

    Whoever only holds connections open must not keep a probe out, which would have the process restarted.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._end = self.loop.call_later(_CONNECTION_SECONDS, transport.abort)
        if len(self.connections) >= _MAX_CONNECTIONS:
            oldest = min((found for found in self.connections if isinstance(found, _Connection)), key=_Connection.when)
            oldest.transport.abort()
            self.connections.discard(oldest)  # it is told later

    def when(self) -> float:
        """When it will have lived long enough."""
        return self._end.when()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        super().connection_lost(exc)


class AdminHttp:
    """An HTTP server on a port of its own."""

    def __init__(self, host: str, port: int, is_ready: Callable[[], bool], registry: CollectorRegistry | None) -> None:
        self._host, self._is_ready, self._registry = host.strip("[]"), is_ready, registry
        self._scraping = asyncio.Lock()
        self._server: uvicorn.Server | None = None
        self.port = port

    async def start(self) -> None:
        """Raises:
        SettingsInvalid: the port is taken.
        """
        try:
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            listening = socket.create_server((self._host, self.port), family=family, backlog=_BACKLOG)
        except (OSError, OverflowError) as error:
            text = f"can't listen on {self._host}:{self.port} (admin_http_port): {error}"
            raise SettingsInvalid(text) from error
        config = uvicorn.Config(
            self._application,
            http=_Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",  # what a stranger sends must not fill our log
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MAX_CONNECTIONS,
            backlog=_BACKLOG,
            timeout_keep_alive=int(_CONNECTION_SECONDS),
            timeout_graceful_shutdown=_STOP_SECONDS,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        )
        config.load()
        # Started by its parts: `serve` would take our signals away.
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup([listening])
        self.port = listening.getsockname()[1]

    async def stop(self) -> None:
        """Close the port; requests under way get a second to end."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.shutdown()

    async def _application(
        self, scope: _Message, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """The three pages, as an ASGI application."""
        status, kind, body = await self._answer(scope)
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: _Message) -> _Answer:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, _TEXT, b"GET only\n"
        match scope["path"]:
            case "/livez":
                return 200, _TEXT, b"ok\n"
            case "/readyz":
                return (200, _TEXT, b"ok\n") if self._is_ready() else (503, _TEXT, b"not ready\n")
            case "/metrics" if self._registry is not None:
                return await self._metrics(self._registry, scope)
        return 404, _TEXT, b"there is /livez, /readyz, /metrics\n"

    async def _metrics(self, registry: CollectorRegistry, scope: _Message) -> _Answer:
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
        encode, kind = choose_encoder(accepted)
        # In a thread, as it walks through all that was ever recorded; one at a time, as OpenTelemetry's reader hands
        # what it collected to whoever asks next.
        async with self._scraping:
            return 200, kind, await asyncio.to_thread(encode, registry)
