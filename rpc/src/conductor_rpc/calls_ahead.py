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
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc._cython import cygrpc as core  # type: ignore[attr-defined, unused-ignore]

from conductor_rpc.call import HANDED_TIME

_LOG = logging.getLogger(__name__)
_KNOWN_RELEASES = ("1.85.",)


class CallsAhead:
    """The calls that are asked for ahead, of one server. Register services with it instead of with the server."""

    def __init__(
        self, server: grpc.aio.Server, interceptors: Sequence[grpc.aio.ServerInterceptor], room: Callable[[int], int]
    ) -> None:
        """What calls are handed to.

        Args:
            server: not started yet.
            interceptors: those that it was made with.
            room: how many more calls are welcome while so many of those that came are under way.
        """
        self._server, self._interceptors, self._room = server, tuple(interceptors), room
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._asked: dict[str, int] = {}
        """Calls of a method that have not come yet."""
        self._under_way_count = 0
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
        """Ask for calls of these methods, by full names with a slash at the beginning; the server must be started."""
        if not grpc.__version__.startswith(_KNOWN_RELEASES):
            _LOG.warning("grpcio %s is not known well enough to take calls from it many at a time", grpc.__version__)
            return
        self._core = self._server._server  # type: ignore[attr-defined]
        self._resolver = core._MethodResolver([], self._handlers)
        self._asked = dict.fromkeys(methods, 0)
        self._ask()

    def _ask(self) -> None:
        """Ask for as many calls as there is room for, and for one at least: it is refused, if it must be."""
        if not self._core.is_running():
            return
        most = max(1, self._room(self._under_way_count))
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
        HANDED_TIME.set(time.monotonic())
        self._under_way_count += 1
        self._ask()
        loop = asyncio.get_running_loop()
        answering = core._handle_rpc(method, self._resolver, self._interceptors, call, loop, False)
        try:
            await core._schedule_rpc_coro(answering, call, loop, method)  # which ends it when its caller does, too
        finally:
            self._under_way_count -= 1
            self._ask()
