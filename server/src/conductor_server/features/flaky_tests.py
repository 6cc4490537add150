"""The online store as flakiness sees it: which tests have failed or were quarantined."""

from __future__ import annotations

import asyncio

from conductor_features.keyed import Keyed, keyed
from conductor_features.listings import Listings
from conductor_features.rows import ABSENT, Missing
from conductor_features.views import TEST_FLAKINESS, TEST_HISTORY
from conductor_rpc.call import Deadline
from conductor_rpc.exceptions import NoPrediction


class OnlineFlakyTests:
    """Reads lists of the view ``test_flakiness``."""

    def __init__(self, listings: Listings, longest_seconds: float) -> None:
        """``listings`` goes back as far as the view's rows are served; waits for a list for ``longest_seconds``."""
        self._listings, self._longest_seconds = listings, longest_seconds

    async def listed(self, tenant_id: str, repository: str, until: Deadline) -> Keyed:
        """As the port says."""
        owner = (tenant_id, repository)
        patience = max(min(self._longest_seconds, until.remaining_seconds()), 0.0)
        found = await self._listings.get(TEST_FLAKINESS, owner, patience)
        if isinstance(found, Missing) and found is not ABSENT:
            raise NoPrediction
        members = () if isinstance(found, Missing) else found.members
        return await asyncio.to_thread(keyed, TEST_HISTORY, owner, members)
