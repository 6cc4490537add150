"""Rows of thousands of entities, or why there are none: an outage is not an error here."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np

from conductor_features.blocks import RowBlock, RowState
from conductor_features.listing import Identities, Owner
from conductor_features.listings import read_lists
from conductor_features.reader import OnlineReader, OnlineStoreUnavailable
from conductor_features.rows import Missing
from conductor_features.views import View
from conductor_rpc import names
from conductor_rpc.call import NO_DEADLINE, Deadline
from conductor_rpc.telemetry import Telemetry
from conductor_server.testing.rows import Rows

_UNAVAILABLE = Missing("unavailable")
_TOGETHER = 2_500
"""Rows that are checked in one turn of the event loop: others get theirs in between."""
T = TypeVar("T")


class Blocks:
    """Reads within the reader's timeout."""

    def __init__(self, reader: OnlineReader, telemetry: Telemetry) -> None:
        """``reader`` is of its own: large reads must not hold up small ones."""
        self._reader, self._telemetry = reader, telemetry

    @property
    def longest_seconds(self) -> float:
        """What a read may take."""
        return self._reader.timeout_seconds

    async def rows(self, view: View, keys: Sequence[bytes], identities: Identities, until: Deadline) -> Rows:
        """Rows of a view, one for each key; none that could be read where the store does not answer in time."""
        parts = (slice(at, at + _TOGETHER) for at in range(0, len(keys), _TOGETHER))
        reads = [self._reader.read_keyed_block(view, keys[part], identities[part]) for part in parts]
        blocks = await self._read(_all(reads), until)
        if not blocks:
            nothing = np.zeros(len(keys), bool)
            values = np.full((len(keys), len(view.fields)), np.nan)
            return Rows(view, values, np.zeros(len(keys), np.int64), nothing, ~nothing)
        state = np.concatenate([block.state for block in blocks])
        return Rows(
            view,
            np.concatenate([block.values for block in blocks]),
            np.concatenate([block.event_time_us for block in blocks]),
            state == RowState.OK,
            (state != RowState.OK) & (state != RowState.ABSENT),
        )

    async def lists(
        self, view: View, owners: Sequence[Owner], limit_each: int, until: Deadline
    ) -> Sequence[list[str] | Missing]:
        """The newest members of owners' lists."""
        found = await self._read(read_lists(self._reader, view, owners, limit_each), until)
        return [_UNAVAILABLE] * len(owners) if found is None else found

    async def _read(self, reading: Coroutine[Any, Any, T], until: Deadline) -> T | None:
        try:
            async with asyncio.timeout(None if until is NO_DEADLINE else until.remaining_seconds()):
                return await reading
        except (OnlineStoreUnavailable, TimeoutError) as error:
            self._telemetry.count(names.FEATURE_READ_FAILURES, {})
            self._telemetry.went_without(error)
            return None


async def _all(reads: Sequence[Coroutine[Any, Any, RowBlock]]) -> Sequence[RowBlock]:
    return await asyncio.gather(*reads)
