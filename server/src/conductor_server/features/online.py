"""The online store as the prediction plane sees it: rows, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Sequence

from conductor_features.reader import OnlineReader, OnlineStoreUnavailable
from conductor_features.rows import FeatureRow, Missing
from conductor_features.views import View
from conductor_rpc import names
from conductor_rpc.telemetry import Telemetry

_UNAVAILABLE = Missing("unavailable")


class OnlineFeatures:
    """Reads rows within the reader's timeout. An outage is not an error here: every row is missing then."""

    def __init__(self, reader: OnlineReader, telemetry: Telemetry) -> None:
        self._reader, self._telemetry = reader, telemetry

    async def read(self, requests: Sequence[tuple[View, tuple[str, ...]]]) -> list[FeatureRow | Missing]:
        """Rows in the order asked, in one round trip."""
        try:
            return await self._reader.read(requests)
        except OnlineStoreUnavailable:
            self._telemetry.count(names.FEATURE_READ_FAILURES, {})
            return [_UNAVAILABLE] * len(requests)
