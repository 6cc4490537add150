"""The online store as the prediction plane sees it: rows, or the reason why there are none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from conductor_features.reader import OnlineReader, OnlineStoreUnavailable
from conductor_features.rows import Missing
from conductor_features.tables import RowTable, TableLayout
from conductor_rpc import names
from conductor_rpc.call import NO_DEADLINE, Deadline
from conductor_rpc.telemetry import Telemetry

_UNAVAILABLE = Missing("unavailable")


class OnlineFeatures:
    """Reads rows within the reader's timeout. An outage is not an error here: every row is missing then."""

    def __init__(self, reader: OnlineReader, telemetry: Telemetry) -> None:
        self._reader, self._telemetry = reader, telemetry
        done = reader.statistics
        telemetry.count(names.FEATURE_READ_FAILURES, {}, 0)  # an alert sees the first only after a zero
        telemetry.observe(names.ONLINE_STORE_CONNECTED, lambda: int(reader.connected))
        telemetry.observe(names.FEATURE_READS, lambda: done.reads, total=True)
        telemetry.observe(names.FEATURE_READ_KEYS, lambda: done.keys, total=True)
        telemetry.observe(names.FEATURE_READ_TIMEOUTS, lambda: done.timeouts, total=True)
        telemetry.observe(names.FEATURE_READ_DISCONNECTS, lambda: done.disconnects, total=True)
        telemetry.observe_by(
            names.REASON, names.FEATURE_READ_BAD_VALUES, lambda: {"absent": done.absent, "corrupt": done.corrupt}
        )

    @property
    def longest_seconds(self) -> float:
        """What a read may take."""
        return self._reader.timeout_seconds

    async def read(
        self, layout: TableLayout, entities: Sequence[Sequence[tuple[str, ...]]], until: Deadline = NO_DEADLINE
    ) -> RowTable:
        """Rows of the layout's views, a line for each request, in one round trip."""
        try:
            if until is NO_DEADLINE:
                return await self._reader.read_table(layout, entities)
            async with asyncio.timeout(until.remaining_seconds()):
                return await self._reader.read_table(layout, entities)
        except (OnlineStoreUnavailable, TimeoutError) as error:
            self._telemetry.count(names.FEATURE_READ_FAILURES, {})
            self._telemetry.went_without(error)
            return layout.without_rows(len(entities), _UNAVAILABLE)
