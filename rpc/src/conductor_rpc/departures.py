"""Callers who leave while their answer is on its way to them: a call that was cancelled, nobody's fault.

gRPC cancels a call's task once it has noticed. Where a caller does not read, what is on its way fails before that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio

_GRPC_LOG = logging.getLogger("grpc._cython.cygrpc")
_UNSENT = "ExecuteBatchError"


async def send(write: Callable[[Any], Awaitable[None]], message: Any) -> None:
    """Write a message of a stream.

    Raises:
        asyncio.CancelledError: the caller has left.
    """
    try:
        await write(message)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None


def log_nothing_unsent() -> None:
    """Keep gRPC from logging a traceback for each answer that could not be sent: a tenant could fill the disk."""
    _GRPC_LOG.addFilter(_is_told)


def _is_told(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != _UNSENT
