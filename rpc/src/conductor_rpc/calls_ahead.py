"""Takes calls from gRPC's core as many at a time as there is room for.

``grpc.aio`` asks the core for one call of a method, hands it on, and asks for the next one: some four turns of the
event loop for each. Where turns are long, calls wait in the core, where nobody can refuse them by tenant or answer them
together. Servers in other languages ask for hundreds at once. This does it for the methods that are called most, beside
what ``grpc.aio`` does for all. It needs a few names that grpcio keeps to itself, so with a release that is not known
calls come one by one (ADR 33).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc._cython import cygrpc as core  # type: ignore[attr-defined, unused-ignore]

from conductor_rpc.onion import Onion

_LOG = logging.getLogger(__name__)
_KNOWN_RELEASES = ("1.85.",)


class CallsAhead:
    """The calls that are asked for ahead, of one server. Register services with it instead of with the server."""

    def __init__(self, server: grpc.aio.Server, onion: Onion) -> None:
        """``onion``: what calls pass through, the server's only interceptor. The server must not be started yet."""
        self._server, self._onion = server, onion
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._asked: dict[str, int] = {}
        """Calls of a method that have not come yet."""
        self._tasks: set[asyncio.Task[None]] = set()

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Hand them on: what generated code calls first."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service: str, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Hand them on, and remember them: what generated code calls next."""
        self._server.add_registered_method_handlers(service, handlers)  # type: ignore[attr-defined, unused-ignore]
        self._handlers |= {f"/{service}/{method}": handler for method, handler in handlers.items()}

    def start(self, methods: Iterable[str]) -> None:
        """Ask for calls of these methods, whose requests are one message each, by full names with a slash at the
        beginning; the server must be started."""
        if not grpc.__version__.startswith(_KNOWN_RELEASES):
            _LOG.warning("grpcio %s is not known well enough to take calls from it many at a time", grpc.__version__)
            return
        self._core = self._server._server  # type: ignore[attr-defined]
        self._asked = dict.fromkeys(methods, 0)
        self._onion.handed_calls.overtaken = self._ask
        self._ask()

    def _ask(self) -> None:
        """Ask for as many calls as there is room for, and for one at least: it is refused, if it must be."""
        if not self._core.is_running():
            return
        most = max(1, self._onion.gate.room(len(self._onion.handed_calls)))
        for method, count in self._asked.items():
            for _ in range(most - count):
                self._asked[method] += 1
                task = asyncio.get_running_loop().create_task(self._take(method))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _take(self, method: str) -> None:
        """Wait for a call, and have it answered."""
        try:
            call = await self._core._request_registered_call(method.encode())
        except core._RequestCallError:  # the server stops
            return
        finally:
            self._asked[method] -= 1
        handed_calls = self._onion.handed_calls
        handed = handed_calls.handed()
        self._onion.handed_count += 1
        self._ask()
        loop = asyncio.get_running_loop()
        handler = handed_calls.reading(handed, self._onion.wrapped(method, self._handlers[method]))
        handle = core._handle_unary_stream_rpc if handler.response_streaming else core._handle_unary_unary_rpc
        answering = handle(handler, call, loop)
        try:
            await core._schedule_rpc_coro(answering, call, loop, method)  # which ends it when its caller does, too
        finally:
            handed_calls.left(handed)
            self._ask()
