"""Takes calls from gRPC as fast as they come, while there is room for them.

``grpc.aio`` asks its core for one call of a method at a time, and needs several turns of the event loop for each. Under
load a turn is long, so calls wait in the core, where nobody sees them, and are answered one by one. This asks for as
many as there are places: what one read of a socket brought is there in one turn, is answered together, and is admitted
or refused before it has grown old. When there is no room it asks for none, and gRPC's own loop goes on alone (ADR 32).

gRPC offers no way to ask for more; what is called here is inside it. So it is done with releases that are known, and
others serve as gRPC does it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import Context, ContextVar
from functools import partial
from typing import Any

import grpc
import grpc.aio
from grpc._cython import cygrpc  # type: ignore[attr-defined, unused-ignore]

_LOG = logging.getLogger(__name__)
_KNOWN = ("1.85.",)
"""Releases of grpcio whose inside this was written for, and tested with."""
_OTHERS_ASKED = 32
"""Calls of a method that says nothing of its room: so many at once are taken, and admitted or refused."""


class Arrival:
    """A call that has come, until its answer is on its way."""

    __slots__ = ("_left", "moment")

    def __init__(self, left: Callable[[], None]) -> None:
        self.moment = time.monotonic()
        """On the clock of ``time.monotonic()``."""
        self._left: Callable[[], None] | None = left

    def leave(self) -> None:
        """Make room for another; once, however often it is said."""
        left, self._left = self._left, None
        if left is not None:
            left()


_ARRIVAL: ContextVar[Arrival | None] = ContextVar("conductor_arrival", default=None)


def current_arrival() -> Arrival | None:
    """That of the call which this task answers; None where gRPC's own loop took it."""
    return _ARRIVAL.get()


class Handlers:
    """Stands for a server where generated code registers handlers: hands them on, and remembers them."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.by_method: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As of ``grpc.aio.Server``."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(
        self, service_name: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """As of ``grpc.aio.Server``."""
        self._server.add_registered_method_handlers(service_name, dict(handlers))
        self.by_method.update({f"/{service_name}/{method}": handler for method, handler in handlers.items()})


class Acceptor:
    """Asks a server's core for calls, beside gRPC's own loop."""

    def __init__(
        self,
        server: grpc.aio.Server,
        handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]],
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        bounded: Collection[str],
        room: Callable[[], int],
    ) -> None:
        """What is asked for, and how much.

        Args:
            server: has been made; its calls are handled as it would.
            handlers: of its methods, by full name with a slash at its beginning.
            interceptors: those of the server.
            bounded: methods whose calls are asked for only while there is room.
            room: how many calls of those may be under way at once, just now.
        """
        self._handlers, self._interceptors = handlers, tuple(interceptors)
        self._bounded, self._room = frozenset(bounded), room
        self._core = server._server  # type: ignore[attr-defined]
        self._asked = dict.fromkeys(handlers, 0)
        """Calls that the core was asked for and has not had yet."""
        self._bounded_count = 0
        """Calls of bounded methods that have come and whose answer is not on its way yet."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._context = Context()  # what is asked for when a call ends is not that call's

    def start(self) -> None:
        """Begin; the server has been started. It ends with the server."""
        if not grpc.__version__.startswith(_KNOWN):
            _LOG.warning("grpcio %s is not known here: it takes calls one by one, as gRPC does", grpc.__version__)
            return
        self._loop = asyncio.get_running_loop()
        self._resolver = cygrpc._MethodResolver([], dict(self._handlers))
        for method in self._handlers:
            self._ask(method)

    def _ask(self, method: str) -> None:
        room = self._room() - self._bounded_count if method in self._bounded else _OTHERS_ASKED
        while self._asked[method] < room and self._core.is_running():
            self._asked[method] += 1
            request = self._core._request_registered_call(method.encode())
            asking = self._loop.create_task(request, context=self._context)
            asking.add_done_callback(partial(self._take, method), context=self._context)

    def _take(self, method: str, asking: asyncio.Task[Any]) -> None:
        """Handle a call that has come. What was asked for when the server stops fails."""
        self._asked[method] -= 1
        if asking.cancelled() or asking.exception() is not None:
            return
        arrival = Arrival(partial(self._leave, method))
        _ARRIVAL.set(arrival)  # each task that is made now begins with a copy
        self._bounded_count += method in self._bounded
        state = asking.result()
        handling = cygrpc._handle_rpc(method, self._resolver, self._interceptors, state, self._loop, False)
        call = self._loop.create_task(cygrpc._schedule_rpc_coro(handling, state, self._loop, method))
        self._under_way.add(call)
        call.add_done_callback(self._under_way.discard)
        call.add_done_callback(lambda _: arrival.leave())
        self._ask(method)

    def _leave(self, method: str) -> None:
        self._bounded_count -= method in self._bounded
        self._ask(method)
