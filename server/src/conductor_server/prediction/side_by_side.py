"""Waits for several parts of a batch at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def side_by_side(parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """What each gives, in their order. One by itself needs no task of its own."""
    if len(parts) == 1:
        return [await parts[0]]
    return await asyncio.gather(*parts)
