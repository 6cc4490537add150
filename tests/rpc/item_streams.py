"""Reading the results of a stream of items, up to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc

from conductor_client._aio_status import ServerStatus


async def results(stream: Any, count: int) -> dict[int, Any]:
    """So many results, by id."""
    found: dict[int, Any] = {}
    status = ServerStatus(stream)
    async with asyncio.timeout(30):
        while len(found) < count:
            try:
                response = await stream.read()
            except grpc.aio.AioRpcError as error:
                raise await status.of(error) from None
            assert response is not grpc.aio.EOF, found
            for result in response.results:
                assert result.id not in found
                found[result.id] = result
    assert len(found) == count
    return found


async def end_of(stream: Any) -> None:
    """What a stream ends with, when no result is left."""
    status = ServerStatus(stream)
    try:
        async with asyncio.timeout(30):
            assert await stream.read() is grpc.aio.EOF
    except grpc.aio.AioRpcError as error:
        raise await status.of(error) from None


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
