"""A call that may be repeated: asked again, within its time, where the server was not reached or asks for patience."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from conductor_client.connection import Attempts, ConnectionSettings

Answer = TypeVar("Answer")


async def ask(
    settings: ConnectionSettings, method: Callable[..., Awaitable[Answer]], request: object, seconds: float | None
) -> Answer:
    """The answer, from asyncio. ``seconds`` for all attempts together; None for the settings'.

    Raises ConductorError.
    """
    attempts = Attempts(settings.timeout_seconds if seconds is None else seconds)
    while True:
        try:
            return await method(request, timeout=attempts.timeout(), metadata=settings.metadata())
        except grpc.RpcError as error:
            wait = attempts.wait_after(error)
        await asyncio.sleep(wait)


def ask_sync(
    settings: ConnectionSettings, method: Callable[..., Answer], request: object, seconds: float | None
) -> Answer:
    """The same without asyncio."""
    attempts = Attempts(settings.timeout_seconds if seconds is None else seconds)
    while True:
        try:
            return method(request, timeout=attempts.timeout(), metadata=settings.metadata())
        except grpc.RpcError as error:
            wait = attempts.wait_after(error)
        time.sleep(wait)
