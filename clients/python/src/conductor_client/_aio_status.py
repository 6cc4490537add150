"""The status that a server ended a stream with, in spite of grpc/grpc#36066.

When a server ends a call while ``grpc.aio`` is still writing to it, the failed write sets the call's status to INTERNAL
"Internal error from Core": before the server's own status, which then follows, or over it. Measured with grpcio 1.85:
up to one call in seven. Once that is mended upstream, this file can go.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc
from grpc.aio import AioRpcError, Metadata

Value = TypeVar("Value")

_PATIENCE_SECONDS = 0.5
_CORE_DETAILS = "Internal error from Core"


class ServerStatus:
    """Keeps what a call is first said to have ended with, and tells which of its two statuses is the server's."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._first: AioRpcError | None = None
        call.add_done_callback(self._keep)

    async def of(self, raised: grpc.RpcError) -> grpc.RpcError:
        """The server's error in place of the one that gRPC raised, if there is another."""
        if not isinstance(raised, AioRpcError) or not _by_core(raised):
            return raised
        if self._first is not None and not _by_core(self._first):
            return self._first
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while _by_core(current := self._current()):  # noqa: ASYNC110 - gRPC tells no one of the second status
                    await asyncio.sleep(0.001)
        except TimeoutError:
            return raised
        return current

    def _keep(self, _: object) -> None:
        self._first = self._current()

    def _current(self) -> AioRpcError:
        call = self._call
        trailing = _at_once(call.trailing_metadata()) or Metadata()
        return AioRpcError(_at_once(call.code()), Metadata(), trailing, details=_at_once(call.details()))


def _by_core(error: AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _CORE_DETAILS


def _at_once(coroutine: Coroutine[Any, Any, Value]) -> Value:
    """The result of a coroutine that has nothing to wait for: a call that has ended knows its status."""
    try:
        coroutine.send(None)
    except StopIteration as result:
        value: Value = result.value
        return value
    coroutine.close()
    raise RuntimeError("the call has not ended")
